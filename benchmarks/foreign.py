"""How fast networks from elsewhere run at a density: torch, onnxruntime, OpenVINO and sparse programs in turns.

``python benchmarks/foreign.py FILE.onnx DENSITY [SIZES] [ROUNDS]``: sizes of the input that the file leaves open, as
``N=1,H=128,W=128``. Masks are random, which is as fast as chosen ones. One thread, process CPU time, medians; brackets
hold the middle half. OpenVINO takes part where it is installed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import onnxruntime
import torch

from gancompress.foreign.network import open_onnx
from gancompress.lowering.network import SparseNetwork


def engines(path: str, x: torch.Tensor) -> dict[str, Any]:
    """Return what runs the whole network, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: x.numpy()}
    found = {"onnxruntime": lambda: session.run(None, given)}
    try:
        import openvino
    except ImportError:
        return found
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return found | {"OpenVINO": lambda: compiled([x.numpy()])}


def main(path: str, density: float, sizes: dict[str, int], rounds: int) -> None:
    """Print a line per engine."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = open_onnx(Path(path))
    (taken,) = network.captured.inputs
    x = torch.rand(taken.example(sizes).shape)
    calls = {"torch": lambda: network(x)} | engines(path, x)
    pruned = open_onnx(Path(path))
    masks = {}
    for name, weight in pruned.state_dict().items():
        if name.endswith("weight") and weight.dim() > 2:
            masks[name] = torch.rand(weight.shape) < density
            weight.mul_(masks[name])
    run = SparseNetwork(pruned, masks, "always")
    calls[f"sparse, density {density:g}"] = lambda: run(x)
    with torch.no_grad():
        difference = float((pruned(x) - run(x)).abs().max() / pruned(x).abs().max())
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(rounds + 2):
            for name, call in calls.items():
                start = time.process_time()
                call()
                if turn > 1:
                    times[name].append(time.process_time() - start)
    print(f"{Path(path).name}, {' x '.join(map(str, x.shape))}: outputs differ by {difference:.0e} of the largest")
    own = median(times[next(reversed(times))])
    for name, taken_by in times.items():
        low, _, high = quantiles(taken_by, n=4)
        print(f"{name:22} {1e3 * median(taken_by):8.1f} ms [{1e3 * low:.1f} to {1e3 * high:.1f}], "
              f"{median(taken_by) / own:.2f} times sparse")  # fmt: skip
    print(run.profile(x))


if __name__ == "__main__":
    given = dict(one.split("=") for one in (sys.argv[3] if len(sys.argv) > 3 else "").split(",") if one)
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 12
    main(sys.argv[1], float(sys.argv[2]), {name: int(size) for name, size in given.items()}, rounds)
