"""Operations that write into what they read, replaced in a traced graph by those that give a new tensor.

Published generators are full of ``nn.ReLU(inplace=True)``. Whoever reads its input later means its result; once that is
written down, it is a ReLU like any other and can be fused.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.fx.node import map_arg

from gancompress.export.tracing import value_of

__all__ = ["without_writes"]

_OPERATORS = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
_METHODS = {"add_": operator.add, "sub_": operator.sub, "mul_": operator.mul, "div_": operator.truediv}
#: what else is known to write, by the name that it has as a function or method without the underscore
_NAMES = {"relu", "leaky_relu", "elu", "celu", "selu", "hardtanh", "threshold", "tanh", "sigmoid", "clamp", "abs",
          "neg", "exp", "sqrt", "rsqrt", "add", "sub", "mul", "div", "addcmul"}  # fmt: skip


def without_writes(graph: fx.GraphModule) -> None:
    """Replace operations that write into their first argument, where all later readers of that memory are known.

    Args:
        graph: from :func:`~gancompress.export.tracing.trace`; changed in place. What is not replaced stays as it is.
    """
    modules = dict(graph.named_modules())
    place = {node: index for index, node in enumerate(graph.graph.nodes)}
    for node in list(place):
        plain = _plain(node, modules)
        if plain is None:
            continue
        stale = _stale(node, place)
        if stale is None:
            continue
        target, module = plain
        if module is not None:
            target = f"plain_{place[node]}"
            graph.add_submodule(target, module)
        elif callable(target):
            node.op = "call_function"
        node.target = target
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        for old in stale:
            for reader in [reader for reader in old.users if place[reader] > place[node]]:

                def current(other: fx.Node, old: fx.Node = old, new: fx.Node = node) -> fx.Node:
                    return new if other is old else other

                reader.args, reader.kwargs = map_arg((reader.args, reader.kwargs), current)
            if not old.users and _plain(old, modules) is None:
                graph.graph.erase_node(old)  # it gave its own input, and would count as a reader
    graph.recompile()


def _plain(node: fx.Node, modules: dict[str, Any]) -> tuple[Any, Any] | None:
    """Return target, and module if it needs one, of the operation that gives a new tensor; None if none is written."""
    x = node.args[0] if node.args else None
    if not isinstance(x, fx.Node) or not _alike(node, x):
        return None
    if node.op == "call_module":
        module = modules[str(node.target)]
        if not getattr(module, "inplace", False):
            return None
        if isinstance(module, torch.nn.ReLU):
            return F.relu, None
        module = copy.copy(module)
        module.inplace = False
        return node.target, module
    if node.op == "call_function":
        if node.target in _OPERATORS:
            return _OPERATORS[node.target], None
        if node.kwargs.get("inplace") is True:
            return node.target, None
        name = getattr(node.target, "__name__", "")
        if name.endswith("_") and name[:-1] in _NAMES:
            return getattr(torch, name[:-1], None) or getattr(F, name[:-1]), None
    if node.op == "call_method":
        name = str(node.target)
        if name in _METHODS and len(node.args) == 2 and not node.kwargs:
            return _METHODS[name], None
        if name.endswith("_") and name[:-1] in _NAMES:
            return name[:-1], None
    return None


def _alike(node: fx.Node, x: fx.Node) -> bool:
    """Whether the result is the memory of ``x``, and an operation on these arguments alone would give one like it."""
    given = [value for other in node.all_input_nodes if isinstance(value := value_of(other), Tensor)]
    made, own = value_of(node), value_of(x)
    tensors = isinstance(made, Tensor) and isinstance(own, Tensor)
    return tensors and _same(made, own) and all(one.dtype is own.dtype for one in given)


def _same(one: Tensor, other: Tensor) -> bool:
    def where(tensor: Tensor) -> Any:
        return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype

    return bool(where(one) == where(other))


def _stale(node: fx.Node, place: dict[fx.Node, int]) -> list[fx.Node] | None:
    """Return the nodes whose later readers mean what ``node`` wrote; None when other memory is written as well.

    That is a parameter, buffer or input, which keeps what is written, or a map that is looked at through a view.
    """
    written = value_of(node)
    memory = written.untyped_storage().data_ptr()
    found = []
    for other, index in place.items():
        if index >= place[node]:
            break
        values = value_of(other)
        values = values if isinstance(values, tuple | list) else (values,)
        shared = [one for one in values if isinstance(one, Tensor) and one.untyped_storage().data_ptr() == memory]
        if not shared:
            continue
        if other.op in ("placeholder", "get_attr"):
            return None
        if any(place[reader] > place[node] for reader in other.users):
            if value_of(other) is not shared[0] or not _same(shared[0], written):
                return None
            found.append(other)
    return found
