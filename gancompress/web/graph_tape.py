"""A plan of a captured network as the list of operations that ``generator.js`` goes through.

As :mod:`gancompress.web.tape`, for graphs: programs compute nearly all of a network, and little stands between.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.errors import ExportError
from gancompress.graphs.graph import Stored, Value
from gancompress.lowering.programs import RegionProgram
from gancompress.web.steps import program_entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.graphs.graph import Graph, Node
    from gancompress.web.blob import Tensors

__all__ = ["GraphTape"]

_UNARY = {"relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "silu": "silu"}
_BINARY = {"add.Tensor": "add", "add.Scalar": "add", "sub.Tensor": "sub", "sub.Scalar": "sub", "mul.Tensor": "mul",
           "mul.Scalar": "mul", "div.Tensor": "div", "div.Scalar": "div"}  # fmt: skip
_VIEWS = ("view", "_unsafe_view", "reshape", "flatten.using_ints", "unflatten.int", "squeeze", "squeeze.dim",
          "squeeze.dims", "unsqueeze", "clone")  # fmt: skip


class GraphTape:
    """What is being recorded, for one input of one size.

    Args:
        tensors: takes the tensors.
        graph: of the network.
        values: of this size, from :func:`~gancompress.graphs.values.values_of`.
        state: tensors of the network.
        constants: values that are computed of these alone.
        places: of every program, the arena of every value; planned here where there are none yet.

    Attributes:
        places: the same, whole.
    """

    def __init__(
        self,
        tensors: Tensors,
        graph: Graph,
        values: Mapping[str, Any],
        state: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
        places: Sequence[dict[int, int]],
    ) -> None:
        self.places = list(places)
        self._tensors, self._graph, self._values, self._state = tensors, graph, values, state
        self._constants = constants
        self._programs: list[dict[str, Any]] = []
        self._operations: list[dict[str, Any]] = []
        self._slots = {graph.inputs[0].name: 0}
        self._free = 1

    def record(self, output: str) -> dict[str, Any]:
        """Return programs, operations, and the slot and shape of the output."""
        return {
            "programs": self._programs,
            "operations": self._operations,
            "output": self._slots[output],
            "gives_shape": self._shape(output),
        }

    def add(self, step: int | RegionProgram) -> None:
        """Record a step of a plan.

        Raises:
            ExportError: pages lack its operation.
        """
        if isinstance(step, RegionProgram):
            self._program(step)
            return
        node = self._graph.nodes[step]
        kind = node.op.removeprefix("aten.").removesuffix(".default")
        try:
            known = self._known(node, kind)
        except (IndexError, KeyError, TypeError, ValueError):  # of other things than maps of one input
            known = False
        if not known:
            raise ExportError(f"pages have nothing for the operation {kind} ({node.name}) as it is used here")

    def _shape(self, name: str) -> list[int]:
        return [int(size) for size in self._values[name].shape[1:]]

    def _write(self, op: str, name: str, **more: Any) -> None:
        self._slots[name], self._free = self._free, self._free + 1
        self._operations.append({"op": op, "out": self._slots[name], "shape": self._shape(name), **more})

    def _operand(self, x: Any) -> dict[str, Any]:
        """Return a slot, a number, or a tensor of the network's own, whose axis of images counts 1."""
        if isinstance(x, Value) and x.name in self._slots:
            return {"slot": self._slots[x.name]}
        if isinstance(x, Value | Stored):
            tensor = self._constants[x.name] if isinstance(x, Value) else self._state[x.name]
            return {"tensor": self._tensors.add(tensor.float()), "shape": list(tensor.shape)}
        return {"number": float(x)}

    def _known(self, node: Node, kind: str) -> bool:
        """Record an operation of torch; return whether pages have it."""
        args = node.args
        if node.kwargs or not isinstance(self._values[node.name], Tensor):
            return False
        of = self._slots[args[0].name] if isinstance(args[0], Value) and args[0].name in self._slots else None
        if kind in _UNARY:
            self._write("unary", node.name, of=self._slots[args[0].name], kind=_UNARY[kind])
        elif kind == "leaky_relu":
            self._write("unary", node.name, of=self._slots[args[0].name], kind="leaky", slope=float((*args, 0.01)[1]))
        elif kind in _BINARY and len(args) == 2:
            self._write("binary", node.name, kind=_BINARY[kind], a=self._operand(args[0]), b=self._operand(args[1]))
        elif kind in _VIEWS and of is not None and self._keeps_images(args[0].name, node.name):
            self._write("view", node.name, of=of)
        elif kind == "cat" and len(args) > 1 and args[1] == 1:
            self._write("cat", node.name, of=[self._slots[one.name] for one in args[0]])
        elif kind == "clamp" and of is not None:
            low, high = (*args[1:], None, None)[:2]
            self._write("clamp", node.name, of=of, low=low, high=high)
        elif kind in ("mean.dim", "adaptive_avg_pool2d", "_adaptive_avg_pool2d") and of is not None:
            return self._means(node, kind, of)
        elif kind == "linear" and of is not None and len(self._shape(node.name)) == 1:
            weight, bias = (self._operand(one)["tensor"] if one is not None else -1 for one in (*args[1:], None)[:2])
            self._write("linear", node.name, of=of, weight=weight, bias=bias)
        else:
            return False
        return True

    def _means(self, node: Node, kind: str, of: int) -> bool:
        before = self._shape(node.args[0].name)
        whole = (
            sorted(axis % 4 for axis in node.args[1]) == [2, 3] if kind == "mean.dim" else list(node.args[1]) == [1, 1]
        )
        if len(before) != 3 or not whole:
            return False
        self._write("means", node.name, of=of)
        return True

    def _keeps_images(self, before: str, after: str) -> bool:
        a, b = self._values[before], self._values[after]
        return a.shape[:1] == b.shape[:1] and math.prod(a.shape) == math.prod(b.shape) and a.dtype is torch.float32

    def _program(self, step: RegionProgram) -> None:
        if not step.program.native:
            raise ExportError(f"pages have nothing for a stride in {', '.join(step.layers[:1]) or 'it'}")
        number = len(self._programs)
        if number == len(self.places):
            self.places.append(step.program.arenas()[0])
        entry = program_entry(
            step.program, self._tensors, [self._as_built(one) for one in step.layers], self.places[number]
        )
        del entry["batch"]  # pages give one image
        affines = [self._affine(read) for read in step.given]
        of = [self._slots[name] for name in step.sources]
        outs = [self._free + index for index in range(len(step.program.outputs))]
        self._free += len(outs)
        shapes: list[list[int]] = [[] for _ in outs]
        for name, place in zip(step.results, step.places, strict=True):
            self._slots[name] = outs[place]
            shapes[place] = self._shape(name)
        self._programs.append(entry)
        self._operations.append(
            {
                "op": "programs",
                "out": outs[0],
                "outs": outs,
                "shapes": shapes,
                "program": number,
                "of": of,
                "affines": affines,
            }
        )

    def _as_built(self, layer: str) -> Tensor | None:
        """Return a weight before norms were merged into it, as a program has it: with two axes of taps."""
        weight = self._state.get(layer)
        return weight if weight is None or weight.dim() == 4 else weight.unsqueeze(2) if weight.dim() == 3 else None

    def _affine(self, read: Any) -> int:
        factors = [None if one is None else self._factor(one, read.channels) for pair in read.affine for one in pair]
        slot, self._free = self._free, self._free + 1
        self._operations.append({"op": "affine", "out": slot, "shape": [2, read.channels], "factors": factors})
        return slot

    def _factor(self, factor: Any, channels: int) -> dict[str, Any]:
        if isinstance(factor, Tensor):
            return {"tensor": self._tensors.add(factor.float()), "shape": [channels, 1, 1]}
        return self._operand(factor)
