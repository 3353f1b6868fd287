"""Which operations of a graph become which program.

Operations that programs have and operations that run in torch take turns: everything has a level, even in torch, odd in
programs, at least that of what it reads. What is connected within an odd level is one region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.graphs.graph import Value
from gancompress.lowering.fuse import Fusion, UnfitError
from gancompress.lowering.made import Conv, Made, Norm, Read, Source, Sum
from gancompress.lowering.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from gancompress.graphs.graph import Graph, Node

__all__ = ["Parts", "Region", "find_regions"]


@dataclass(frozen=True)
class Region:
    """One program's part of a graph.

    Attributes:
        nodes: names of its operations.
        made: what the program computes, in an order in which it can.
        sources: what it reads, by value.
        results: what it gives, by value.
    """

    nodes: tuple[str, ...]
    made: tuple[Made, ...]
    sources: dict[str, Source]
    results: dict[str, Made]

    @property
    def convolutions(self) -> list[Conv]:
        """In the order in which they run."""
        return [one for one in self.made if isinstance(one, Conv)]


@dataclass(frozen=True)
class Parts:
    """A graph taken apart.

    Attributes:
        levels: of every operation: even in torch, odd in a program.
        regions: by level.
    """

    levels: dict[str, int]
    regions: dict[int, list[Region]]


def find_regions(
    graph: Graph,
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    constants: Mapping[str, Tensor],
    stays: Collection[str] = (),
) -> Parts:
    """Put all that programs can do into regions.

    Args:
        graph: what is computed.
        values: of every input and operation, for the sizes of one call: tensors of any device, and numbers.
        tensors: that are stored beside the graph, on the CPU.
        constants: values that are computed of these alone.
        stays: names of operations that stay in torch.
    """
    return _Search(graph, values, tensors, constants).found(set(stays))


class _Search:
    def __init__(
        self, graph: Graph, values: Mapping[str, Any], tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor]
    ) -> None:
        self.graph, self.tensors, self.constants = graph, tensors, constants
        firsts = {name: one[0] if isinstance(one, tuple | list) and one else one for name, one in values.items()}
        self.shapes = {name: tuple(one.shape) for name, one in firsts.items() if isinstance(one, Tensor)}
        self.numbers = {name: one for name, one in values.items() if isinstance(one, int)}
        self.maps = {name for name, one in firsts.items() if _is_map(one) and name not in constants}
        self.readers: dict[str, list[str]] = {name: [] for name in values}
        for node in graph.nodes:
            for name in dict.fromkeys(one.name for one in node.references() if isinstance(one, Value)):
                self.readers[name].append(node.name)
        for name in graph.outputs:
            self.readers[name].append("")

    def found(self, stays: set[str]) -> Parts:
        stays |= {node.name for node in self.graph.nodes if not self._can(node)}
        while True:
            levels = self._levels(stays)
            regions: dict[int, list[Region]] = {}
            before = len(stays)
            for level, nodes in self._connected(levels, stays):
                try:
                    region = self._region(nodes)
                except UnfitError as error:
                    # a value from elsewhere that cannot be computed as it is read: whoever changed it stays
                    stays.add(error.node)
                    continue
                if any(conv.layer for conv in region.convolutions):
                    regions.setdefault(level, []).append(region)
                else:
                    stays |= set(region.nodes)
            if len(stays) == before:
                return Parts(levels, regions)

    def _can(self, node: Node) -> bool:
        """Whether programs may have a place for an operation, so far as one sees before it is tried."""
        if node.op not in OPERATIONS or node.name not in self.maps:
            return False
        return any(name in self.maps for name in _reads(node, self.shapes))

    def _levels(self, stays: Collection[str]) -> dict[str, int]:
        levels = {one.name: 0 for one in self.graph.inputs}
        for node in self.graph.nodes:
            program = node.name not in stays
            maps = set(_reads(node, self.shapes)) & self.maps if program else set[str]()
            level = int(program)
            for one in node.references():
                if isinstance(one, Value):
                    own = levels[one.name]
                    if not program:
                        level = max(level, own + own % 2)
                    else:
                        level = max(level, own + (own + 1) % 2 if one.name in maps else own + 1 + own % 2)
            levels[node.name] = level
        return levels

    def _connected(self, levels: Mapping[str, int], stays: Collection[str]) -> Iterator[tuple[int, list[Node]]]:
        """Yield every region's level and operations, in their order."""
        group: dict[str, str] = {}

        def root(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for node in self.graph.nodes:
            if node.name in stays:
                continue
            group[node.name] = node.name
            for name in _reads(node, self.shapes):
                if name in group and levels[name] == levels[node.name]:
                    group[root(name)] = root(node.name)
        found: dict[str, list[Node]] = {}
        for node in self.graph.nodes:
            if node.name in group:
                found.setdefault(root(node.name), []).append(node)
        for nodes in found.values():
            yield levels[nodes[0].name], nodes

    def _region(self, nodes: list[Node]) -> Region:
        inside = {node.name for node in nodes}
        sources: dict[str, Source] = {}
        reads: dict[str, Read] = {}
        for node in nodes:
            for name in _reads(node, self.shapes):
                if name not in inside and name not in sources:
                    _, channels, *sizes = self.shapes[name]
                    sources[name] = Source(name, (channels, sizes[0] if len(sizes) == 2 else 1, sizes[-1]))
                    reads[name] = Read((sources[name],), node.name)
        fusion = Fusion(self.shapes, self.tensors, self.constants, self.numbers, reads)
        for node in nodes:
            fusion.take(node, OPERATIONS[node.op](fusion, node), shared=len(self.readers[node.name]) != 1)
        results: dict[str, Made] = {}
        for node in nodes:
            if not set(self.readers[node.name]) <= inside:
                result = fusion.result(node.name)
                if isinstance(result, Source):
                    raise UnfitError(node.name)
                results[node.name] = result
        made = _in_order(results.values())
        used = {name: one for name, one in sources.items() if one in made}
        return Region(tuple(inside), tuple(one for one in made if not isinstance(one, Source)), used, results)


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() in (3, 4) and value.dtype is torch.float32 and value.numel() > 0


def _reads(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the maps that an operation is computed of, without factors per image and weights that were computed."""
    if node.op == "aten.cat.default":
        return [one.name for one in node.args[0] if isinstance(one, Value)]
    elementwise = any(f".{name}." in node.op for name in ("add", "sub", "mul"))
    candidates = node.args[:2] if elementwise else node.args[:1]
    names = [one.name for one in candidates if isinstance(one, Value)]
    return [name for name in names if shapes.get(name) == shapes.get(node.name)] if elementwise else names


def _in_order(results: Any) -> list[Made]:
    """Return all that the results need, every one behind what it is computed of."""
    done: dict[Made, None] = {}
    ahead = [(one, False) for one in reversed(list(results))]
    while ahead:
        made, ready = ahead.pop()
        if made in done:
            continue
        if ready:
            done[made] = None
        else:
            ahead.append((made, True))
            ahead.extend((one, False) for one in reversed(_needs(made)))
    return list(done)


def _needs(made: Made) -> list[Made]:
    if isinstance(made, Conv):
        return [*made.read.parts, *(term.made for term in made.add)]
    if isinstance(made, Norm):
        return [made.source]
    return [term.made for term in made.add] if isinstance(made, Sum) else []
