"""What a generator computes, as a graph of operations, read off one run of its own ``forward``.

So a new backbone needs nothing here: whatever it calls is in the graph, and what cannot be traced is said.
"""

from __future__ import annotations

import operator
from functools import partialmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from gancompress.kernels.layout import scale, scale_and_shift
from gancompress.kernels.resample import average2, bilinear_up2, smooth, smooth_up2, upsample2
from gancompress.sparsity.weights import LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gancompress.backbones.base import Generator

__all__ = ["ENTRY", "VALUE", "trace", "value_of"]

#: key in a node's ``meta`` of what it gave for the example
VALUE = "gancompress_value"
#: what the names of the generator's modules begin with inside the graph
ENTRY = "network."


_OWN = (upsample2, average2, bilinear_up2, smooth, smooth_up2, scale, scale_and_shift)


class _Conditional(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, labels: Tensor) -> Any:
        return self.network(z, labels)


class _Unconditional(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Any:
        return self.network(z, None)


class _Symbol(fx.Proxy):
    """A proxy of a sequence knows how long it is; how many images a batch has stays unknown.

    ``x += y`` writes into the memory of ``x``, which torch's own proxies forget.
    """

    def _written(self, function: Callable[..., Any], other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    __iadd__, __isub__ = partialmethod(_written, operator.iadd), partialmethod(_written, operator.isub)
    __imul__, __itruediv__ = partialmethod(_written, operator.imul), partialmethod(_written, operator.itruediv)

    def __len__(self) -> int:
        value = value_of(self.node)
        if not isinstance(value, tuple | list):
            super().__len__()
        return len(value)


class _Tracer(fx.Tracer):
    """Keeps what every node gives for an example, so that shapes are known and sequences can be unpacked."""

    proxy_buffer_attributes = True  # else what reads a buffer has a value that is not known

    def __init__(self, example: dict[str, Tensor]) -> None:
        # our own operations look at what they are given, so they stay whole
        super().__init__(autowrap_functions=_OWN)
        self.example = example
        self._running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (*LAYERS, nn.BatchNorm2d, nn.Embedding)):
            return True  # also their subclasses, of whatever package
        return bool(super().is_leaf_module(m, module_qualified_name))

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        # while an example is computed, modules and parameters are themselves, not symbols
        return forward(*args, **kwargs) if self._running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Symbol(node, self)

    def create_proxy(
        self,
        kind: str,
        target: fx.node.Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any | None = None,
        proxy_factory_fn: Callable[[fx.Node], fx.Proxy] | None = None,
    ) -> fx.Proxy:
        proxy = super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        outer, self._running = self._running, True
        try:
            proxy.node.meta[VALUE] = self._run(proxy.node)
        finally:
            self._running = outer
        return proxy

    def create_arg(self, a: Any) -> Any:
        argument = super().create_arg(a)
        if isinstance(a, Tensor) and isinstance(argument, fx.Node):
            argument.meta[VALUE] = a  # an attribute that is neither parameter nor buffer
        return argument

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        value = value_of(obj.node)
        if not isinstance(value, tuple | list):
            return super().iter(obj)
        symbol: Any = obj
        return iter([symbol[index] for index in range(len(value))])

    def _run(self, node: fx.Node) -> Any:
        args, kwargs = map_arg((node.args, node.kwargs), value_of)
        target: Any = node.target
        if node.op == "placeholder":
            return self.example[target]
        if node.op == "get_attr":
            value: Any = self.root
            for part in target.split("."):
                value = getattr(value, part)
            return value
        if node.op == "call_module":
            return self.root.get_submodule(target)(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs)


def value_of(node: fx.Node) -> Any:
    """Return what ``node`` gave for the example, None for a node that was added later."""
    return node.meta.get(VALUE)


@torch.no_grad()
def trace(generator: Generator, example: dict[str, Tensor]) -> fx.GraphModule:
    """Return the graph of a generator that is in eval mode and has no parametrisations.

    Args:
        generator: shared with the result, not copied.
        example: ``z`` (B, latent_dim), and ``labels`` (B,) for a conditional one; B is at least 2.

    Raises:
        Exception: whatever its ``forward`` raises when it is given symbols, such as a decision by a number in a tensor.
    """
    root = _Conditional(generator) if "labels" in example else _Unconditional(generator)
    graph = _Tracer(example).trace(root)
    _settle_dtypes(graph)
    return fx.GraphModule(root, graph)


def _settle_dtypes(graph: fx.Graph) -> None:
    """Replace questions for a tensor's dtype by the answer: they would count as readers of the tensor."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is getattr and node.args[1] == "dtype":
            dtype = value_of(node)

            def answered(other: fx.Node, asked: fx.Node = node, answer: Any = dtype) -> Any:
                return answer if other is asked else other

            for user in list(node.users):
                user.args, user.kwargs = map_arg((user.args, user.kwargs), answered)
            graph.erase_node(node)
