"""A network from elsewhere, dense in torch and in onnxruntime, and made sparse: timed in turn on the same inputs."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gancompress.bench.engines import onnx_bytes, onnxruntime_session, ready
from gancompress.bench.timing import Ratio, alternate, keep_memory, ratios

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["DENSE", "ONNXRUNTIME", "NetworkTimes", "time_network"]

DENSE, ONNXRUNTIME = "torch, dense", "onnxruntime, dense"
#: seconds that the turns of all variants may take together, about
_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class NetworkTimes:
    """What was measured.

    Attributes:
        rows: every variant against dense torch.
        times: CPU and wall seconds of every turn, by variant.
        shapes: of the inputs of a call.
        missing: why an engine was left out, a sentence each.
    """

    rows: Mapping[str, Ratio]
    times: Mapping[str, list[tuple[float, float]]]
    shapes: tuple[tuple[int, ...], ...]
    missing: tuple[str, ...]

    def before_and_after(self, ours: str) -> dict[str, Any]:
        """Return the rows, how many times as fast ``ours`` is as each other, and the shapes; ready for JSON."""
        return {
            "input_shapes": [list(shape) for shape in self.shapes],
            "times": {
                name: {"seconds": one.seconds, "faster": one.faster, "quartiles": list(one.quartiles)}
                for name, one in self.rows.items()
            },
            "faster": {name: self.against(name)[ours].faster for name in self.rows if name != ours},
        }

    def against(self, reference: str) -> dict[str, Ratio]:
        """Return every variant against another one than dense torch, paired with it round by round."""
        return ratios(self.times, reference)


def time_network(
    dense: nn.Module,
    sparse: Mapping[str, Callable[..., object]],
    inputs: tuple[Tensor, ...],
    *,
    onnx: Path | None = None,
    rounds: int = 7,
) -> NetworkTimes:
    """Time a network and what was made of it.

    Args:
        dense: the network.
        sparse: what was made of it, by name.
        inputs: of a call.
        onnx: the file that it was read from, which onnxruntime then runs; without one it is exported for this.
        rounds: turns of each, fewer where a turn takes seconds.
    """
    keep_memory()
    steps: dict[str, Callable[[], object]] = {DENSE: lambda: dense(*inputs)}

    def runtime() -> Callable[[], object]:
        model = onnx_bytes(dense, inputs) if onnx is None else str(onnx)
        return onnxruntime_session(model, inputs, torch.get_num_threads())

    found, left_out = ready({ONNXRUNTIME: runtime})
    steps |= found
    steps |= {name: _call(one, inputs) for name, one in sparse.items()}
    with torch.no_grad():
        start = time.process_time()
        for step in steps.values():
            step()  # what makes its programs on the first call does it here
        taken = (time.process_time() - start) or 1e-9
        turns = max(3, min(rounds, int(_SECONDS / taken)))
        # a short call says more about what ran before it than about itself
        calls = max(1, min(20, int(0.02 * len(steps) / taken)))
        times = alternate(steps, turns, calls=calls)
    missing = tuple(f"onnxruntime: {why}" for why in left_out.values())
    return NetworkTimes(ratios(times, DENSE), times, tuple(tuple(x.shape) for x in inputs), missing)


def _call(network: Callable[..., object], inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    return lambda: network(*inputs)
