"""What pruning costs a real upscaler when only photographs are at hand: agreement with the dense one, by density.

``python benchmarks/reconstruction.py UPSCALER.onnx [densities]`` prunes by magnitude and by reconstruction, on the same
calibration photographs, and prints PSNR to the dense generator's output on three others, with CPU seconds of one
thread. Photographs are those of scikit-learn and scikit-image, made small, as an upscaler gets them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from gancompress.foreign.agreement import psnr
from gancompress.foreign.compress import METHODS, compress_network
from gancompress.foreign.network import open_onnx

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


def main(path: str, densities: list[float]) -> None:
    """Print a line per density and method."""
    torch.set_num_threads(1)
    network = open_onnx(Path(path))
    test = [photograph(one, 112)[:, :, :112, :112] for one in TEST]
    # Every fourth input would only be measured by; these are measured by others, so the first is given twice.
    inputs = [(photograph(one, 160),) for one in CALIBRATION]
    inputs.insert(3, inputs[0])
    for density in densities:
        for method in METHODS:
            start = time.process_time()
            made = compress_network(network, density, inputs, method=method)
            seconds = time.process_time() - start
            with torch.no_grad():
                found = [psnr(network(x), made(x)) for x in test]
            each = " / ".join(f"{one:.1f}" for one in found)
            print(f"{density:g} {method}: {each}, mean {sum(found) / 3:.2f} dB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], [float(one) for one in sys.argv[2].split(",")] if len(sys.argv) > 2 else [0.5, 0.3, 0.2])
