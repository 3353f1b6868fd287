"""A sparse generator against a narrow dense one with as many convolution weights, which needs no kernels of ours.

    python benchmarks/bench_narrow.py [--batch 16] [--rounds 9]

SNGAN for 32x32 images: 256 channels at densities 0.2, 0.1 and 0.05, compiled, against 112, 80 and 56 channels on
OpenVINO (folded) and onnxruntime (as exported); both packages are needed. One thread, paired ratios, process CPU time.
What the two are worth as generators is another question: `gancompress compare` trains both.
"""

from __future__ import annotations

import argparse

import torch

from gancompress.bench.engines import onnx_bytes, onnxruntime_session, openvino_model
from gancompress.bench.infer import _masked
from gancompress.bench.styles import fold
from gancompress.bench.timing import alternate, keep_memory, ratios
from gancompress.export.compiled import compile_generator
from gancompress.export.folding import folded
from gancompress.recipe.load import load_recipe

PAIRS = ((0.2, 112), (0.1, 80), (0.05, 56))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    inputs = (torch.randn(options.batch, 128),)
    steps = {}
    for density, width in PAIRS:
        data = ("data=shapes", "data.resolution=32")
        wide = load_recipe("sngan_cifar10", overrides=(*data, "model.channels=256")).recipe
        slim = load_recipe("sngan_cifar10", overrides=(*data, f"model.channels={width}")).recipe
        generator, masks = _masked(wide, density)
        dense, _ = _masked(slim, 1.0)
        best = folded(dense)
        fold(best, frozen=True)
        compiled = compile_generator(generator, masks, sparse="always")
        steps[f"sparse {density}"] = lambda net=compiled: net(*inputs)
        steps[f"openvino {width}"] = openvino_model(onnx_bytes(best, inputs), inputs, 1, "f32")
        steps[f"onnxruntime {width}"] = onnxruntime_session(onnx_bytes(dense, inputs), inputs, 1)
    with torch.no_grad():
        times = alternate(steps, options.rounds, warm=2)
    for density, width in PAIRS:
        found = ratios(times, f"sparse {density}")
        for engine in ("openvino", "onnxruntime"):
            row = found[f"{engine} {width}"]
            low, high = row.quartiles
            print(
                f"density {density:<5} {1e3 * found[f'sparse {density}'].seconds:7.1f} ms; {width:3} channels on "
                f"{engine:<11} {1e3 * row.seconds:7.1f} ms, {row.faster:.2f}x faster [{low:.2f}-{high:.2f}]"
            )


if __name__ == "__main__":
    main()
