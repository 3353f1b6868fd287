"""From a module to its graph, by ``torch.export``: in-place operations become functions, every tensor gets a name."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import logging
import operator
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from gancompress.errors import ExportError
from gancompress.graphs.graph import OPERATIONS, Graph, Input, Node, Stored, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["capture"]

#: give back what they are given
_NOTHING = {"aten.alias.default", "aten.detach.default", "aten.lift_fresh_copy.default", "aten.contiguous.default",
            "aten.dropout.default"}  # fmt: skip
#: look and compute nothing
_CHECKS = {"aten._assert_tensor_metadata.default", "aten._assert_scalar.default", "aten.sym_constrain_range_for_size"}
_NORMS = {"aten._native_batch_norm_legit_no_training.default"}
_SIZES = {operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.floordiv: "floordiv",
          operator.neg: "neg", operator.getitem: "getitem"}  # fmt: skip
#: where and how memory lies is decided where the graph runs
_PLACES = ("device", "layout", "pin_memory", "memory_format")


def capture(
    module: nn.Module, example: Mapping[str, Tensor], dynamic: Sequence[Mapping[int, str]]
) -> tuple[Graph, dict[str, Tensor]]:
    """Return the graph of a module in eval mode, and the tensors that it reads.

    Args:
        module: left as it is; what it computes must not depend on what is in a tensor.
        example: its inputs by name, in the order of the call; sizes that may change must be at least 2.
        dynamic: for each input, names of the axes whose size may change; equal names are equal sizes.

    Returns:
        The graph, and every stored tensor by the name that it has in the module's state; constants of the code are
        ``constant_0``, ``constant_1``, ….

    Raises:
        ExportError: it cannot be captured; the reason is one line.
    """
    sizes = {name: torch.export.Dim(name) for axes in dynamic for name in axes.values()}
    shapes: Any = tuple({axis: sizes[name] for axis, name in axes.items()} for axes in dynamic)
    if any(one.kind is one.VAR_POSITIONAL for one in inspect.signature(module.forward).parameters.values()):
        shapes = (shapes,)  # all of them are one argument then
    silent = logging.root.manager.disable  # torch logs whole graphs of what it cannot export
    logging.disable(logging.CRITICAL)
    try:
        quiet = contextlib.redirect_stderr(io.StringIO())  # and prints them
        with warnings.catch_warnings(), torch.no_grad(), quiet:
            warnings.simplefilter("ignore")
            program = _exported(module, tuple(example.values()), shapes).run_decompositions(_pieces())
    except Exception as error:  # symbols went through someone's code: anything may be raised
        if "DataDependent" in type(error).__name__ or "data-dependent" in str(error):
            raise ExportError(
                "values of its inputs decide what it computes, as in `if x.sum() > 0`; in a graph only sizes may"
            ) from error
        raise ExportError(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}") from error
    finally:
        logging.disable(silent)
    return _Reader(program).read(example, dynamic)


def _exported(module: nn.Module, example: tuple[Tensor, ...], shapes: Any) -> torch.export.ExportedProgram:
    """Run the module once, or, where that fixes a size that may change, read its bytecode: ``len(z)`` is an int.

    The second takes seconds, so it is not the first.
    """
    try:
        return torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    except Exception:
        try:
            return torch.export.export(module, example, dynamic_shapes=shapes, strict=True)
        except Exception:  # the first says what is wrong in words of torch, this one in those of its compiler
            logging.getLogger(__name__).debug("nor from its bytecode", exc_info=True)
        raise


@functools.cache
def _pieces() -> Any:
    """Return what operations are taken apart that no graph holds."""
    known = torch.export.default_decompositions()
    return {op: known[op] for op in (torch.ops.aten.einsum.default,)}


class _Reader:
    """Turns an exported program into a graph."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[fx.Node, Any] = {}
        self.nodes: list[Node] = []

    def read(
        self, example: Mapping[str, Tensor], dynamic: Sequence[Mapping[int, str]]
    ) -> tuple[Graph, dict[str, Tensor]]:
        inputs = []
        ahead = iter(zip(example.items(), dynamic, strict=True))
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                stored = self._stored(node.name)
                if stored is not None:
                    self.values[node] = stored
                else:
                    (name, tensor), axes = next(ahead)
                    shape = tuple(axes.get(axis, size) for axis, size in enumerate(tensor.shape))
                    inputs.append(Input(name, shape, str(tensor.dtype).removeprefix("torch.")))
                    self.values[node] = Value(name)
            elif node.op == "call_function":
                self._operation(node)
            elif node.op == "output":
                outputs = [self.values[one] for one in node.args[0]]
            else:
                raise ExportError(f"the graph has a node {node.op} {node.target}")
        if not all(isinstance(one, Value) for one in outputs):
            raise ExportError("it returns a constant")
        used = {one.name for node in self.nodes for one in node.references() if isinstance(one, Stored)}
        graph = Graph(tuple(inputs), tuple(self.nodes), tuple(one.name for one in outputs))
        return graph, {name: tensor for name, tensor in self.tensors.items() if name in used}

    def _stored(self, placeholder: str) -> Stored | None:
        signature = self.program.graph_signature
        constants = {**signature.inputs_to_lifted_tensor_constants}
        name = signature.inputs_to_parameters.get(placeholder) or signature.inputs_to_buffers.get(placeholder)
        if name is not None:
            tensor = self.program.state_dict.get(name)
            tensor = self.program.constants[name] if tensor is None else tensor
        elif placeholder in constants:
            tensor = self.program.constants[constants[placeholder]]
            name = f"constant_{sum(known.startswith('constant_') for known in self.tensors)}"
        else:
            return None
        self.tensors[name] = tensor.detach()
        return Stored(name)

    def _operation(self, node: fx.Node) -> None:
        target: Any = node.target
        op = f"operator.{_SIZES[target]}" if target in _SIZES else str(target)
        if op in _CHECKS:
            return
        args, kwargs = self._argument(node.args), dict(self._argument(node.kwargs))
        if op in _NOTHING or (op == "aten.slice.Tensor" and args[2:] in ((0, sys.maxsize), (0, sys.maxsize, 1))):
            self.values[node] = args[0]
            return
        if op in _NORMS:
            x, weight, bias, mean, variance, momentum, eps = args
            op, args = "aten.batch_norm.default", (x, weight, bias, mean, variance, False, momentum, eps, False)
        elif target is operator.getitem and str(getattr(node.args[0], "target", "")) in _NORMS and args[1] == 0:
            self.values[node] = args[0]
            return
        elif op not in OPERATIONS and target not in _SIZES:
            raise ExportError(f"it calls {op}, which a graph cannot hold")
        for place in _PLACES:
            kwargs.pop(place, None)
        self.nodes.append(Node(node.name, op, args, kwargs))
        self.values[node] = Value(node.name)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.values[argument]
        if isinstance(argument, dict):
            return {key: self._argument(item) for key, item in argument.items() if key not in _PLACES}
        if isinstance(argument, list | tuple):
            return tuple(self._argument(item) for item in argument)
        if argument is None or isinstance(argument, bool | int | float | str | torch.dtype):
            return argument
        raise ExportError(f"an operation takes a {type(argument).__name__}, which a graph cannot hold")
