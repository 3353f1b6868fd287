"""Bytes of packed SNGAN generators on disk, with ERK masks over their convolutions.

    python benchmarks/bench_export.py [--channels 256]
    python benchmarks/bench_export.py --of generator-int8.safetensors ...

Weights are drawn as before training and the masks are random: the hardest case for the mask's code. As before training,
weights are spread evenly, which is the hardest case for int8 too: all whole numbers are as frequent. The second table
has both these and weights of a normal distribution. The linear layer that makes the first map is not masked, as in the
published sparse GANs. With ``--of``, what the convolutions of files take, which may be of trained generators.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from io import BytesIO
from pathlib import Path

import torch

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.sngan import SNGAN, SNGANConfig
from gancompress.data.base import ImageSpec
from gancompress.export.container import read_container
from gancompress.export.packed import FORMAT, KIND, TensorSize, Values, export_packed, load_packed
from gancompress.kernels import Quantized
from gancompress.quantization.ranges import LayerBytes
from gancompress.sparsity.allocate import allocate
from gancompress.sparsity.select import at_random
from gancompress.sparsity.units import Units

DENSITIES = (0.2, 0.1, 0.05)
#: outputs and inputs of a block, by what the tables call it; layers that it does not fit keep single weights
BLOCKS: dict[str, tuple[int, int]] = {
    "single weights": (1, 1), "1x4": (1, 4), "2x4": (2, 4), "16x1": (16, 1), "16x4": (16, 4),
}  # fmt: skip


def bytes_of(tensors: dict[str, torch.Tensor]) -> int:
    """Return the bytes that ``torch.save`` takes."""
    content = BytesIO()
    torch.save(tensors, content)
    return len(content.getvalue())


@functools.cache
def measure(
    channels: int, density: float, values: Values, linear: bool, pattern: str = "single weights", normal: bool = False
) -> tuple[float, float, float, float]:
    """Pack one generator; return ratios of convolutions, of all prunable weights, of the file, and its megabytes."""
    torch.manual_seed(0)
    model = SNGANConfig(channels=channels)
    generator = SNGAN(model, ImageSpec(3, 32)).generator().eval()
    weights = {name: w for name, w in prunable_weights(generator).items() if linear or w.kind == "convolution"}
    shapes = {name: tuple(w.parameter.shape) for name, w in weights.items()}
    boxes = {name: w.layer.box(*BLOCKS[pattern]) for name, w in weights.items()}
    units = {name: Units(shapes[name], box) for name, box in boxes.items() if box is not None}
    budget = allocate("erk", shapes, density, units=units)
    masks = at_random(units, shapes, budget.counts, torch.Generator().manual_seed(0))
    for name, weight in weights.items():
        if normal:
            weight.parameter.data.normal_()
        weight.parameter.data.masked_fill_(~masks[name], 0)
    state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    # two numbers of each layer, which calibration would choose: whichever they are, they take as many bytes
    ranges = {name: LayerBytes(Quantized(1.0, 0)) for name, w in weights.items() if w.kind == "convolution"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.safetensors"
        sizes = export_packed(
            generator, path, model={"name": "sngan", "channels": channels}, masks=masks, values=values, ranges=ranges
        )
        packed, file = load_packed(path), path.stat().st_size
    assert all(torch.equal(packed.masks[name], mask) for name, mask in masks.items())
    if values == "float32":
        assert all(torch.equal(packed.state[name], tensor) for name, tensor in state.items())

    def ratio(kinds: tuple[str, ...]) -> float:
        of: list[TensorSize] = [size for size in sizes.values() if size.kind in kinds]
        return sum(size.dense for size in of) / sum(size.packed for size in of)

    return ratio(("convolution",)), ratio(("convolution", "linear")), bytes_of(state) / file, file / 1e6


def describe(path: Path) -> str:
    """Return what the convolutions of a file take."""
    packed, (parts, _) = load_packed(path), read_container(path, kind=KIND, format=FORMAT)
    weights = prunable_weights(packed.generator())
    names = [name for name, weight in weights.items() if weight.kind != "linear"]
    elements = sum(packed.state[name].numel() for name in names)
    kept = sum(int(packed.masks[n].sum()) if n in packed.masks else packed.state[n].numel() for n in names)

    def taken(suffix: str) -> int:
        found = [parts[name + suffix] for name in names if name + suffix in parts]
        return sum(part.numel() * part.element_size() for part in found)

    values, masks, scales = taken("") + taken(":values"), taken(":mask"), taken(":scales")
    ratio, file = 4 * elements / (values + masks + scales), path.stat().st_size
    return (
        f"convolutions {ratio:.1f}x, {kept} of {elements} weights kept in {8 * values / kept:.2f} bits each, masks "
        f"{8 * masks / elements:.3f} bits a weight, scales {8 * scales / kept:.2f} bits a kept one; file {file} bytes"
    )


def main() -> None:
    """Run and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--of", type=Path, nargs="+", default=[])
    options = parser.parse_args()
    for path in options.of:
        print(f"{path}: {describe(path)}")
    if options.of:
        return
    channels = options.channels
    print("| masked | values | density | convolutions | prunable weights | whole file | MB |")
    print("|---|---|---|---|---|---|---|")
    rows: tuple[tuple[Values, str], ...] = (
        ("float32", "single weights"), ("bf16", "single weights"), ("int8", "1x4"),
    )  # fmt: skip
    for linear in (False, True):
        for values, pattern in rows:
            for density in DENSITIES:
                conv, prunable, file, size = measure(channels, density, values, linear, pattern)
                masked = "convolutions, linear" if linear else "convolutions"
                named = values if pattern == "single weights" else f"{values}, {pattern}"
                print(f"| {masked} | {named} | {density} | {conv:.1f}x | {prunable:.1f}x | {file:.1f}x | {size:.2f} |")
    print("\n| int8 | weights | " + " | ".join(f"density {density}" for density in DENSITIES) + " |")
    print("|---|---|" + "---|" * len(DENSITIES))
    for pattern in BLOCKS:
        for normal in (False, True):
            ratios = [measure(channels, density, "int8", False, pattern, normal)[0] for density in DENSITIES]
            drawn = "normal" if normal else "as initialised"
            print(f"| {pattern} | {drawn} | " + " | ".join(f"{ratio:.1f}x" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
