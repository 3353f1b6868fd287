"""Bytes of packed SNGAN generators on disk, with ERK masks over their convolutions.

    python benchmarks/bench_export.py [--channels 256]

Weights are drawn as before training and the masks are random: the hardest case for the mask's code. The linear layer
that makes the first map is not masked, as in the published sparse GANs.
"""

from __future__ import annotations

import argparse
import tempfile
from io import BytesIO
from pathlib import Path

import torch

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.sngan import SNGAN, SNGANConfig
from gancompress.data.base import ImageSpec
from gancompress.export.packed import TensorSize, Values, export_packed, load_packed
from gancompress.sparsity.allocate import allocate
from gancompress.sparsity.masks import random_mask

DENSITIES = (0.2, 0.1, 0.05)


def bytes_of(tensors: dict[str, torch.Tensor]) -> int:
    """Return the bytes that ``torch.save`` takes."""
    content = BytesIO()
    torch.save(tensors, content)
    return len(content.getvalue())


def measure(channels: int, density: float, values: Values, linear: bool) -> tuple[float, float, float, float]:
    """Pack one generator; return ratios of convolutions, of all prunable weights, of the file, and its megabytes."""
    torch.manual_seed(0)
    model = SNGANConfig(channels=channels)
    generator = SNGAN(model, ImageSpec(3, 32)).generator().eval()
    weights = {name: w for name, w in prunable_weights(generator).items() if linear or w.kind == "convolution"}
    budget = allocate("erk", {name: tuple(w.parameter.shape) for name, w in weights.items()}, density)
    rng, masks = torch.Generator().manual_seed(0), {}
    for name, weight in weights.items():
        masks[name] = random_mask(weight.parameter.shape, budget.counts[name], rng)
        weight.parameter.data.masked_fill_(~masks[name], 0)
    state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.safetensors"
        sizes = export_packed(
            generator, path, model={"name": "sngan", "channels": channels}, masks=masks, values=values
        )
        packed, file = load_packed(path), path.stat().st_size
    if values == "float32":
        assert all(torch.equal(packed.state[name], tensor) for name, tensor in state.items())

    def ratio(kinds: tuple[str, ...]) -> float:
        of: list[TensorSize] = [size for size in sizes.values() if size.kind in kinds]
        return sum(size.dense for size in of) / sum(size.packed for size in of)

    return ratio(("convolution",)), ratio(("convolution", "linear")), bytes_of(state) / file, file / 1e6


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=256)
    channels = parser.parse_args().channels
    print("| masked | values | density | convolutions | prunable weights | whole file | MB |")
    print("|---|---|---|---|---|---|---|")
    for linear in (False, True):
        for values in ("float32", "bf16"):
            for density in DENSITIES:
                conv, prunable, file, size = measure(channels, density, values, linear)
                masked = "convolutions, linear" if linear else "convolutions"
                print(f"| {masked} | {values} | {density} | {conv:.1f}x | {prunable:.1f}x | {file:.1f}x | {size:.2f} |")


if __name__ == "__main__":
    main()
