"""From a graph and its tensors to a module that computes it.

Convolutions, linear layers and batch norms with stored weights become real modules under the names they were stored by,
so that whatever looks for such layers (pruning, compilation to sparse programs, folding) finds them.
"""

from __future__ import annotations

import dataclasses
import operator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancompress.errors import ExportError
from gancompress.graphs.graph import Stored, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from gancompress.graphs.graph import Argument, Graph, Node

__all__ = ["CapturedModule", "build", "check"]

#: Elements of one value while a graph is tried on empty tensors: 1 GB of float32 for two images.
_LARGEST = 2**28
_NO_SIZE = 2**62


#: what settings that make no sense raise, somewhere in torch
_FORGED = (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError)


class _AnyBatchNorm(nn.BatchNorm2d):
    """Batch norm of tensors of any rank."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def _nearest(x: Tensor, size: Any = None, scales: Any = None) -> Tensor:
    factor = 2.0 if scales == [2.0, 2.0] else scales  # which is how compilation knows it
    return F.interpolate(x, size=size, scale_factor=factor)


#: Operations that are called by another name: one that compilation knows, or that takes any memory format.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "aten.relu.default": torch.relu,
    "aten.add.Tensor": torch.add,
    "aten.mul.Tensor": torch.mul,
    "aten.addcmul.default": torch.addcmul,
    "aten.upsample_nearest2d.vec": _nearest,
    "aten.view.default": torch.reshape,
    "aten._unsafe_view.default": torch.reshape,
    "aten.full.default": torch.full,
    "aten.zeros.default": torch.zeros,
    "aten.ones.default": torch.ones,
    "aten.arange.default": torch.arange,
    "aten.arange.start": torch.arange,
    "aten.arange.start_step": torch.arange,
    "aten.scalar_tensor.default": torch.scalar_tensor,
    "aten.sym_size.int": lambda x, axis: x.size(axis),
}
_CONVOLUTIONS: dict[str, type[nn.Module]] = {
    "aten.conv1d.default": nn.Conv1d,
    "aten.conv2d.default": nn.Conv2d,
    "aten.conv3d.default": nn.Conv3d,
    "aten.conv1d.padding": nn.Conv1d,
    "aten.conv2d.padding": nn.Conv2d,
    "aten.conv3d.padding": nn.Conv3d,
    "aten.conv_transpose1d.default": nn.ConvTranspose1d,
    "aten.conv_transpose2d.input": nn.ConvTranspose2d,
    "aten.conv_transpose3d.input": nn.ConvTranspose3d,
}


class CapturedModule(nn.Module):
    """Runs a graph; called with its inputs, returns its one output or a tuple of them.

    Its state has the names of the graph's tensors. Settings of modules are the graph's; dtypes and devices follow the
    tensors.

    Args:
        graph: what to compute.
        tensors: by name, all that the graph reads; they are taken over, not copied.

    Raises:
        ExportError: a tensor is missing, or a layer cannot have one of such a shape.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.captured = graph
        #: name of the last convolution or linear layer, empty without any
        self.last_layer = ""
        self._last_use: dict[str, int] = {}
        wanted = graph.tensors
        self._leaves: dict[str, set[str]] = {}
        for name in wanted:
            path, _, leaf = name.rpartition(".")
            self._leaves.setdefault(path, set()).add(leaf)
            if name not in tensors:
                raise ExportError(f"tensor {name} is missing: the graph reads it")
        self._calls: list[tuple[Node, str | Callable[..., Any]]] = []
        made: dict[str, tuple[Any, ...]] = {}
        for node in graph.nodes:
            call: str | Callable[..., Any] = ""
            try:
                call = self._module(node, tensors, made) or _function(node.op)
            except _FORGED as error:
                raise ExportError(f"operation {node.name} cannot be built ({_line(error)})") from error
            self._calls.append((node, call))
        own = {*self.state_dict()}
        for name in wanted:
            if name not in own:
                path, _, leaf = name.rpartition(".")
                try:
                    self._container(path).register_buffer(leaf, tensors[name])
                except _FORGED as error:
                    raise ExportError(f"no tensor can be called {name[:80]!r} ({_line(error)})") from error
        self._last_use = {
            one.name: index
            for index, node in enumerate(graph.nodes)
            for one in node.references()
            if isinstance(one, Value)
        } | dict.fromkeys(graph.outputs, len(graph.nodes))
        self.eval().requires_grad_(False)

    def forward(self, *inputs: Tensor) -> Any:
        """Compute the graph."""
        outputs = self.compute(inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def compute(self, inputs: Sequence[Tensor], largest: int | None = None) -> tuple[Any, ...]:
        """Return all outputs, be it one, refusing a value of more than ``largest`` elements."""
        steps = self.walk(inputs, largest)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                outputs: tuple[Any, ...] = end.value
                return outputs

    def walk(
        self, inputs: Sequence[Tensor], largest: int | None = None
    ) -> Generator[tuple[str, Tensor], None, tuple[Any, ...]]:
        """Compute the graph and stop ahead of every layer that is a module: path and input; outputs in the end.

        A layer may be changed while it is stopped at.
        """
        values: dict[str, Any] = {one.name: tensor for one, tensor in zip(self.captured.inputs, inputs, strict=True)}
        for index, (node, call) in enumerate(self._calls):
            if isinstance(call, str):
                yield call, self._given(node.args[0], values)
            result = self._result(node, call, values)
            if largest is not None and isinstance(result, Tensor) and result.numel() > largest:
                raise ExportError(f"operation {node.name} gives {tuple(result.shape)}: too large")
            values[node.name] = result
            for one in node.references():
                if isinstance(one, Value) and self._last_use[one.name] == index:
                    values.pop(one.name, None)
        return tuple(values[name] for name in self.captured.outputs)

    def operation(self, index: int, values: Mapping[str, Any], first: Any = None) -> Any:
        """Compute the ``index``-th operation of the graph alone, from ``values`` by name.

        Args:
            index: of the operation.
            values: of what it reads.
            first: what its first argument is, if not what the graph says.
        """
        node, call = self._calls[index]
        if first is None:
            return self._result(node, call, values)
        args = (Value("first"), *node.args[1:])
        return self._result(dataclasses.replace(node, args=args), call, {**values, "first": first})

    def _result(self, node: Node, call: str | Callable[..., Any], values: Mapping[str, Any]) -> Any:
        if isinstance(call, str):
            return self.get_submodule(call)(self._given(node.args[0], values))
        args = [self._given(one, values) for one in node.args]
        return call(*args, **{key: self._given(one, values) for key, one in node.kwargs.items()})

    def _given(self, argument: Argument, values: Mapping[str, Any]) -> Any:
        if isinstance(argument, Value):
            return values[argument.name]
        if isinstance(argument, Stored):
            path, _, leaf = argument.name.rpartition(".")
            return getattr(self.get_submodule(path), leaf)
        if isinstance(argument, tuple):
            return [self._given(item, values) for item in argument]
        return argument

    def _container(self, path: str) -> nn.Module:
        """Return the module at ``path``, made of empty ones where there is none."""
        module: nn.Module = self
        for part in path.split(".") if path else ():
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module

    def _module(self, node: Node, tensors: Mapping[str, Tensor], made: dict[str, tuple[Any, ...]]) -> str:
        """Return the path of the module that computes ``node``, empty when it must be called as a function."""
        makes = _norm if node.op == "aten.batch_norm.default" else _layer
        found = makes(node, tensors)
        if found is None:
            return ""
        path, module = found
        settings = (node.op, *node.args[1:])
        if path in made:
            return path if made[path] == settings else ""
        parent, _, leaf = path.rpartition(".")
        container = self._container(parent)
        own = {*module.state_dict()}
        if leaf in container._modules or any(hasattr(module, name) for name in self._leaves[path] - own):
            return ""  # something inside a layer was met before the layer, or has the name of what a layer has
        container.add_module(leaf, module)
        made[path] = settings
        if makes is _layer:
            self.last_layer = path
        return path


def build(graph: Graph, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]) -> CapturedModule:
    """Return a module in eval mode that computes ``graph``, after :func:`check`.

    Args:
        graph: what to compute.
        tensors: all that it reads, by name; they are taken over, not copied.
        sizes: see :func:`check`.

    Raises:
        ExportError: tensors are missing, or their shapes do not go together.
    """
    check(graph, tensors, sizes)
    return CapturedModule(graph, tensors)


def check(graph: Graph, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """Run a graph on the meta device, where nothing takes memory whatever a forged graph asks for.

    Args:
        graph: what to compute.
        tensors: all that it reads, by name; what they hold is not looked at.
        sizes: by the names in the shapes of the inputs.

    Returns:
        Shapes of the outputs.

    Raises:
        ExportError: tensors are missing, their shapes do not go together, or a value is too large.
    """
    trial = CapturedModule(graph, {name: tensor.to("meta") for name, tensor in tensors.items()})
    try:
        with torch.device("meta"), torch.no_grad():
            outputs = trial.compute([one.example(sizes, "meta") for one in graph.inputs], _LARGEST)
            return tuple(tuple(one.shape) for one in outputs)
    except ExportError:
        raise
    except Exception as error:  # arguments that make no sense together fail anywhere in torch
        raise ExportError(f"the graph cannot run ({_line(error)})") from error


def _layer(node: Node, tensors: Mapping[str, Tensor]) -> tuple[str, nn.Module] | None:
    """Return path and module of a convolution or linear layer with stored weights."""
    if (node.op not in _CONVOLUTIONS and node.op != "aten.linear.default") or node.kwargs:
        return None
    _, weight, bias, *settings = (*node.args, None)[: max(3, len(node.args))]
    path = _path(weight, "weight")
    if path is None or not (bias is None or _path(bias, "bias") == path):
        return None
    shape, biased = tensors[weight.name].shape, bias is not None
    with torch.device("meta"):
        if node.op == "aten.linear.default":
            module: Any = nn.Linear(shape[1], shape[0], bias=biased)
        else:
            names = ("stride", "padding", "dilation", "groups")
            transposed = "transpose" in node.op
            if transposed:
                names = ("stride", "padding", "output_padding", "groups", "dilation")  # type: ignore[assignment]
            given = dict(zip(names, settings, strict=False))
            axes = len(shape) - 2
            given = {name: value * axes if isinstance(value, tuple) and len(value) == 1 else value
                     for name, value in given.items()}  # fmt: skip
            groups = given.get("groups", 1)
            ins, outs = (shape[0], shape[1] * groups) if transposed else (shape[1] * groups, shape[0])
            module = _CONVOLUTIONS[node.op](ins, outs, tuple(shape[2:]), bias=biased, **given)
    if module.weight.shape != shape or (biased and module.bias.shape != tensors[bias.name].shape):
        raise ValueError(f"its weight is {tuple(shape)}")
    module.weight = nn.Parameter(tensors[weight.name], requires_grad=False)
    if biased:
        module.bias = nn.Parameter(tensors[bias.name], requires_grad=False)
    return path, module


def _norm(node: Node, tensors: Mapping[str, Tensor]) -> tuple[str, nn.Module] | None:
    """Return path and module of a batch norm with stored statistics."""
    if node.kwargs or len(node.args) < 8 or node.args[5] is not False:
        return None
    parts = dict(zip(("weight", "bias", "running_mean", "running_var"), node.args[1:5], strict=True))
    paths = {_path(stored, name) for name, stored in parts.items() if stored is not None}
    path = next(iter(paths))
    if len(paths) != 1 or path is None or parts["running_mean"] is None or parts["running_var"] is None:
        return None
    affine = parts["weight"] is not None
    if affine != (parts["bias"] is not None):
        return None
    shape = tensors[parts["running_mean"].name].shape
    with torch.device("meta"):
        module = _AnyBatchNorm(shape[0], eps=node.args[7], affine=affine)
    module.num_batches_tracked = None
    for name, stored in parts.items():
        if stored is not None:
            tensor = tensors[stored.name]
            if tensor.shape != shape:
                raise ValueError(f"its {name} is {tuple(tensor.shape)}")
            setattr(module, name, nn.Parameter(tensor, requires_grad=False) if name in ("weight", "bias") else tensor)
    return path, module


def _path(stored: Argument, leaf: str) -> str | None:
    """Return the module that owns a stored tensor called ``leaf``."""
    if not isinstance(stored, Stored) or not stored.name.endswith(f".{leaf}"):
        return None
    return stored.name.removesuffix(f".{leaf}")


def _function(op: str) -> Callable[..., Any]:
    if op in _FUNCTIONS:
        return _FUNCTIONS[op]
    module, name, *overload = op.split(".")
    if module == "operator":
        found: Callable[..., Any] = getattr(operator, name)
        return found if name == "getitem" else partial(_of_sizes, found)
    return getattr(getattr(torch.ops.aten, name), overload[0])  # type: ignore[no-any-return]


def _of_sizes(function: Callable[..., Any], *sizes: Any) -> Any:
    """Compute with sizes, not with lists or text, which a forged graph would make grow without end."""
    if any(isinstance(one, list | str) or (isinstance(one, int) and abs(one) >= _NO_SIZE) for one in sizes):
        raise ValueError("a list, a text or a huge number is no size")
    return function(*sizes)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
