"""A network for the sizes of one call: operations of torch and sparse programs, in an order in which they can run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gancompress.graphs.graph import Value
from gancompress.lowering.programs import RegionProgram
from gancompress.lowering.regions import find_regions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch import Tensor

    from gancompress.graphs.build import CapturedModule
    from gancompress.kernels import Pattern
    from gancompress.quantization.ranges import LayerBytes

__all__ = ["Plan"]


class Plan:
    """Computes a network for inputs of one size.

    Args:
        network: on the CPU.
        values: of this size, from :func:`~gancompress.graphs.values.values_of`.
        constants: from :func:`~gancompress.graphs.values.constants_of`.
        pattern: gives that of a weight, by its name and what it holds.
        stays: names of operations that stay in torch.
        ranges: how convolutions compute in bytes, by the names of their weights.

    Attributes:
        programs: in the order in which they run.
        steps: indices of operations that run in torch, and programs, in order.
    """

    def __init__(
        self,
        network: CapturedModule,
        values: Mapping[str, Any],
        constants: Mapping[str, Tensor],
        pattern: Callable[[str, Tensor], Pattern],
        stays: Collection[str] = (),
        ranges: Mapping[str, LayerBytes] | None = None,
    ) -> None:
        graph = network.captured
        parts = find_regions(graph, values, network.state_dict(), constants, stays)
        self._network, self._constants = network, constants
        steps: list[int | RegionProgram] = []
        for level in range(max(parts.levels.values(), default=0) + 1):
            steps += [RegionProgram(region, pattern, ranges or {}) for region in parts.regions.get(level, ())]
            if level % 2 == 0:
                steps += [
                    index
                    for index, node in enumerate(graph.nodes)
                    if parts.levels[node.name] == level and node.name not in constants
                ]
        self.steps = self._needed(steps)
        self.programs = [step for step in self.steps if isinstance(step, RegionProgram)]
        self._last = {name: place for place, step in enumerate(self.steps) for name in self._reads(step)}
        for name in graph.outputs:
            self._last.pop(name, None)
        self._ends: dict[int, list[str]] = {}
        for name, place in self._last.items():
            self._ends.setdefault(place, []).append(name)

    @property
    def sparse(self) -> list[str]:
        """Names of the weights of convolutions that run in programs."""
        return [layer for program in self.programs for layer in program.layers if layer]

    def __call__(self, *inputs: Tensor) -> Any:
        """Return the network's one output, or a tuple of them."""
        return self._run(inputs, None)

    def calls(self, *inputs: Tensor) -> list[tuple[Tensor, ...]]:
        """Return what every program is called with."""
        found: list[tuple[Tensor, ...]] = []
        self._run(inputs, None, found)
        return found

    def timed(self, *inputs: Tensor) -> list[float]:
        """Return the seconds of every step."""
        taken: list[float] = []
        self._run(inputs, taken)
        return taken

    def _run(
        self, inputs: Sequence[Tensor], taken: list[float] | None, calls: list[tuple[Tensor, ...]] | None = None
    ) -> Any:
        graph = self._network.captured
        values: dict[str, Any] = {one.name: x for one, x in zip(graph.inputs, inputs, strict=True)}
        values |= self._constants
        for place, step in enumerate(self.steps):
            start = 0.0 if taken is None else time.perf_counter()
            if isinstance(step, RegionProgram):
                if calls is not None:
                    calls.append(step.arguments(values))
                step(values)
            else:
                values[graph.nodes[step].name] = self._network.operation(step, values)
            for name in self._ends.get(place, ()):
                del values[name]
            if taken is not None:
                taken.append(time.perf_counter() - start)
        outputs = tuple(values[name] for name in graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _needed(self, steps: list[int | RegionProgram]) -> list[int | RegionProgram]:
        """Leave out what nothing needs: what was fused away, and sizes that are known."""
        graph = self._network.captured
        wanted, kept = {*graph.outputs}, list[int | RegionProgram]()
        for step in reversed(steps):
            gives = step.results if isinstance(step, RegionProgram) else (graph.nodes[step].name,)
            if wanted & {*gives}:
                wanted |= {*self._reads(step)}
                kept.append(step)
        return kept[::-1]

    def _reads(self, step: int | RegionProgram) -> list[str]:
        if isinstance(step, RegionProgram):
            return step.needs
        references = self._network.captured.nodes[step].references()
        return [one.name for one in references if isinstance(one, Value)]
