"""What pruning costs a network from elsewhere when only a few of its inputs are at hand: agreement by density.

``python benchmarks/reconstruction.py UPSCALER.onnx`` prunes by magnitude and by reconstruction, on the same calibration
photographs, and prints PSNR to the dense network's output on three others, with CPU seconds of one thread.
``--distill 120s`` trains what was kept as well. Photographs are those of scikit-learn and scikit-image, made small, as
an upscaler gets them; ``--inputs LATENTS.safetensors`` takes inputs of anything, such as a vocoder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skimage
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from torch import Tensor

from gancompress.foreign.agreement import agreement
from gancompress.foreign.compress import METHODS, compress_network
from gancompress.foreign.distill import Distillation, parse_length
from gancompress.foreign.network import open_onnx

if TYPE_CHECKING:
    from gancompress.foreign.calibration import Inputs

CALIBRATION = (0, "chelsea.png", "rocket.jpg", "motorcycle_left.png")
TEST = (1, "astronaut.png", "coffee.png")


def photograph(of: int | str, size: int) -> Tensor:
    """Return a photograph (1, 3, H, W) in 0 to 1 whose shorter side is ``size``: a number is one of scikit-learn's."""
    content: Any = load_sample_images().images[of] if isinstance(of, int) else None
    folder = Path(skimage.__file__).parent / "data"
    image = Image.fromarray(content) if content is not None else Image.open(folder / str(of)).convert("RGB")
    scale = size / min(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255


def inputs_of(latents: str) -> tuple[list[Inputs], list[Tensor]]:
    """Return inputs to prune by and inputs to measure on: photographs, or the tensors of a file and its last one."""
    if latents:
        *first, last = load_file(latents).values()
        given, test = [(one,) for one in first], [last]
    else:
        given = [(photograph(one, 160),) for one in CALIBRATION]
        test = [photograph(one, 112)[:, :, :112, :112] for one in TEST]
    # Every fourth input would only be measured by; these are measured by others, so one is given twice.
    given.insert(min(3, len(given)), given[0])
    return given, test


def main(path: str, densities: list[float], latents: str, distilled: str) -> None:
    """Print a line per density and method."""
    torch.set_num_threads(1)
    network = open_onnx(Path(path))
    inputs, test = inputs_of(latents)
    ways: list[tuple[str, str]] = [(method, "") for method in METHODS]
    if distilled:
        ways.append(("reconstruct", distilled))
    for density in densities:
        for method, length in ways:
            start = time.process_time()
            with tempfile.TemporaryDirectory() as directory:
                asked = Distillation(parse_length(length), Path(directory)) if length else None
                made = compress_network(network, density, inputs, method=method, distillation=asked)
            seconds = time.process_time() - start
            found = agreement(network, made.network, [(x,) for x in test], (0.0, 1.0))
            each = ", ".join(
                f"{one.name} {' / '.join(f'{value:.1f}' for value in one.values)}, mean {one.mean:.2f} {one.unit}"
                for one in found
            )
            print(f"{density:g} {method} {length}: {each}; {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--density", default="0.5,0.3,0.2")
    parser.add_argument("--inputs", default="", help="a .safetensors with inputs, of which the last is measured on")
    parser.add_argument("--distill", default="", help="also distil, such as 120s")
    given = parser.parse_args()
    main(given.path, [float(one) for one in given.density.split(",")], given.inputs, given.distill)
