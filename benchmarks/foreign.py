"""How fast networks from elsewhere run: torch, onnxruntime, OpenVINO, its int8, and sparse programs, in turns.

    python benchmarks/foreign.py FILE.onnx --density 0.1,0.2 --sizes N=1,H=128,W=128
    python benchmarks/foreign.py FILE.onnx --files small.safetensors,small-int8.safetensors

``--density`` times random masks, which are as fast as chosen ones; ``--files`` what ``gancompress compress`` wrote.
``--sizes`` are those of the input that the file leaves open. Photographs go in where the network takes images, and
NNCF calibrates on others of them; ``--inputs LATENTS.safetensors`` takes inputs of anything. One thread, process CPU
time; ratios of turns that alternate, with their quartiles. PSNR is to the network as it came.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import torch
from reconstruction import inputs_of
from rivals import quantised
from torch import Tensor

from gancompress import load
from gancompress.bench.engines import Engine, onnxruntime_session, openvino_model, ready
from gancompress.bench.timing import alternate, keep_memory, machine, ratios
from gancompress.foreign.network import open_onnx
from gancompress.lowering.network import SparseNetwork

PEAK = 1.0  # of the outputs' range


def pruned(path: str, density: float) -> SparseNetwork:
    """The network with random masks."""
    network = open_onnx(Path(path))
    masks = {}
    for name, weight in network.state_dict().items():
        if name.endswith("weight") and weight.dim() > 2:
            masks[name] = torch.rand(weight.shape) < density
            weight.mul_(masks[name])
    return SparseNetwork(network, masks, "always")


def psnr(found: Any, wanted: Tensor) -> float:
    """Decibels."""
    return float(10 * torch.log10(PEAK**2 / (torch.as_tensor(found) - wanted).double().square().mean()))


def main(asked: argparse.Namespace) -> None:
    """Print a line per engine and one of ours."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_memory()
    path = asked.path
    network = open_onnx(Path(path))
    (taken,) = network.captured.inputs
    sizes = {name: int(size) for name, size in (one.split("=") for one in asked.sizes.split(",") if one)}
    shape = taken.example(sizes).shape
    given, test = inputs_of(asked.inputs)
    x, *calibration = [fitted(one, shape) for one in (test[0], *[one for (one,) in given])]
    makers: dict[str, Any] = {"torch": lambda: Engine(lambda: network(x), "float32")}
    makers["onnxruntime"] = lambda: onnxruntime_session(path, (x,), 1)
    makers["OpenVINO"] = lambda: openvino_model(Path(path).read_bytes(), (x,), 1, "f32")
    makers["OpenVINO int8"] = lambda: quantised(Path(path).read_bytes(), x, [one.numpy() for one in calibration])
    own = {f"density {d}": functools.partial(pruned, path, float(d)) for d in asked.density.split(",") if d}
    files = [Path(file).resolve() for file in asked.files.split(",") if file]
    own |= {"/".join(file.parts[-3:]): functools.partial(load, file, sparse="always") for file in files}
    for name, make in own.items():
        makers[name] = lambda make=make: Engine(functools.partial(make(), x))
    with torch.no_grad():
        steps, left_out = ready(makers)
        wanted = network(x)
        decibels = {name: psnr(step(), wanted) for name, step in steps.items()}
        times = alternate(steps, asked.rounds, warm=1)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(f"{Path(path).name}, {' x '.join(map(str, x.shape))}; the time of each over that of ours [quartiles]\n")
    print(f"| | ms | ran in | PSNR | {' | '.join(own)} |\n|---|---|---|---|{'---|' * len(own)}")
    for name in steps:
        cells = []
        for mine in own:
            row = ratios(times, name)[mine]
            cells.append(f"{row.faster:.2f} [{row.quartiles[0]:.2f}–{row.quartiles[1]:.2f}]")
        seconds = ratios(times, name)[name].seconds
        ran = getattr(steps[name], "ran", "")
        print(f"| {name} | {1e3 * seconds:.1f} | {ran} | {decibels[name]:.1f} | {' | '.join(cells)} |")
    for name, why in left_out.items():
        print(f"\nleft out: {name}: {why}")


def fitted(x: Tensor, shape: torch.Size) -> Tensor:
    """Return an input cut or repeated to a shape."""
    for axis, size in enumerate(shape):
        times = [1] * x.dim()
        times[axis] = -(-size // x.shape[axis])
        x = x.repeat(times).narrow(axis, 0, size)
    return x.contiguous()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--density", default="", help="of random masks, separated by commas")
    parser.add_argument("--files", default="", help="what compress wrote, separated by commas")
    parser.add_argument("--sizes", default="", help="N=1,H=128,W=128")
    parser.add_argument("--inputs", default="", help="a .safetensors with inputs, of which the last is measured on")
    parser.add_argument("--rounds", type=int, default=11)
    main(parser.parse_args())
