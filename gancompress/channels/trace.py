"""Which elements of a network's tensors belong to which channel: read off its graph, by sending labels through it.

Every output of a convolution or linear layer gets a label. What moves elements moves labels: the operation itself is
called on them, so that no index map is written down anywhere. What needs two elements together joins their labels: a
sum joins those of its terms, a norm those of a channel's positions and of its statistics, a layer those of its inputs
and of its weight's columns. What cannot be cut (inputs, outputs, statistics over channels, unknown operations) is
joined with what always stays. Joining more than needed keeps more whole and is never wrong.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.channels.atoms import FIXED, Atoms, narrowed
from gancompress.graphs.build import CapturedModule
from gancompress.graphs.graph import Stored, Value
from gancompress.graphs.naming import is_layer
from gancompress.graphs.values import values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.graphs.graph import Argument, Node

__all__ = ["CHANNELWISE", "ELEMENTWISE", "MOVES", "SIZED", "Trace", "axis_of", "short", "trace"]

ELEMENTWISE = {
    "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "sigmoid", "hardsigmoid", "hardswish", "hardtanh", "tanh",
    "prelu", "_prelu_kernel", "clamp", "clamp_min", "clamp_max", "add", "sub", "rsub", "mul", "div", "addcmul", "neg",
    "abs", "pow", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sin", "cos", "square", "sign", "round", "floor", "ceil",
    "maximum", "minimum", "lerp", "where", "masked_fill", "eq", "ne", "lt", "le", "gt", "ge", "logical_not", "clone",
    "_to_copy", "to", "full_like", "zeros_like", "ones_like",
}  # fmt: skip
#: put elements elsewhere; whatever they do to elements, they do to labels
MOVES = {
    "view", "_unsafe_view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "squeeze", "unsqueeze",
    "expand", "repeat", "repeat_interleave", "cat", "stack", "split", "split_with_sizes", "chunk", "unbind", "select",
    "slice", "flip", "pixel_shuffle", "pixel_unshuffle",
}  # fmt: skip
#: those whose sizes a graph says by numbers
SIZED = {"view", "_unsafe_view", "reshape", "unflatten", "expand"}
#: take parts of what they get along one axis
_PARTS = {"split", "split_with_sizes", "chunk", "unbind", "select", "slice"}
#: act on every channel alone, whatever they do along the other axes
CHANNELWISE = {
    "avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "max_pool2d", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "reflection_pad1d",
    "reflection_pad2d", "replication_pad1d", "replication_pad2d", "grid_sampler_2d",
}  # fmt: skip
_REDUCTIONS = {"sum", "mean", "amax", "amin", "var", "std", "linalg_vector_norm", "prod"}
_ALONG = {"softmax", "_softmax", "log_softmax", "cumsum", "roll", "index_select"}


def short(op: str) -> str:
    """Return the name of an operation without its library and overload."""
    return op.split(".")[1]


@dataclasses.dataclass
class Trace:
    """What was found.

    Attributes:
        atoms: the sets.
        values: labels of every value of the graph, in its shape.
        axes: labels of the axes of layers' weights, by name and axis.
        stored: labels of the elements of other stored tensors.
        produced: axes of weights that make channels.
        summed: where channels are summed up by what is no layer: the values that are multiplied there, and their axes.
        uncut: operations without a rule, and why what they read stays whole, by name.
    """

    atoms: Atoms = dataclasses.field(default_factory=Atoms)
    values: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    axes: dict[tuple[str, int], Tensor] = dataclasses.field(default_factory=dict)
    stored: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    produced: set[tuple[str, int]] = dataclasses.field(default_factory=set)
    summed: list[tuple[tuple[Value | Stored, int], ...]] = dataclasses.field(default_factory=list)
    uncut: dict[str, str] = dataclasses.field(default_factory=dict)


def trace(network: CapturedModule, inputs: Sequence[Tensor]) -> Trace:
    """Label a network.

    Args:
        network: any captured one; only its shapes are looked at.
        inputs: of a call, two images at least; sizes that are open may be small.
    """
    return _Tracing(network, inputs).result()


def axis_of(node: Node) -> int:
    """Return the axis along which a node takes parts."""
    place = 1 if short(node.op) in ("unbind", "select", "slice") else 2
    return int(node.args[place]) if len(node.args) > place else 0


def _flat(arguments: Sequence[Argument]) -> list[Argument]:
    return [item for one in arguments for item in (one if isinstance(one, tuple) else (one,))]


class _UnknownError(Exception):
    """There is no rule; why."""


class _Tracing:
    def __init__(self, network: CapturedModule, inputs: Sequence[Tensor]) -> None:
        self.graph = network.captured
        state = network.state_dict()
        self.tensors = {name: state[name] for name in self.graph.tensors}
        self.meta = CapturedModule(self.graph, {name: tensor.to("meta") for name, tensor in self.tensors.items()})
        self.shapes = values_of(self.meta, inputs)
        self.found = Trace()
        self.atoms, self.labels = self.found.atoms, dict[str, Any]()
        for one in self.graph.inputs:
            self.labels[one.name] = self._fixed(self.shapes[one.name].shape)

    def result(self) -> Trace:
        for index, node in enumerate(self.graph.nodes):
            value: Any = self.shapes[node.name]
            if not isinstance(value, Tensor | tuple | list):
                continue  # a size
            try:
                self.labels[node.name] = self._rule(index, node)
            except _UnknownError as reason:
                self.found.uncut[node.name] = str(reason)
                for one in node.references():
                    self._fix(one)
                if isinstance(value, Tensor):
                    self.labels[node.name] = self._fixed(value.shape)
                else:
                    self.labels[node.name] = [self._fixed(part.shape) for part in value]
        for name in self.graph.outputs:
            self._fix(Value(name))
        self.found.values = {name: labels for name, labels in self.labels.items() if isinstance(labels, Tensor)}
        self._settle()
        return self.found

    def _settle(self) -> None:
        """Fix what is no channel: labels that differ along more than one axis of a tensor."""
        twice = {name for name, _ in self.found.axes} & {*self.found.stored}
        for name in twice:
            self.atoms.fix(self.found.stored[name])
        held: list[Tensor] = []
        while True:
            every = [*self.found.values.values(), *self.found.stored.values()]
            bad = [one for one in every if sum(self.atoms.varies(one, axis) for axis in range(one.dim())) > 1]
            bad += [labels for (name, _), labels in self.found.axes.items() if name in twice]
            bad = [one for one in bad if not any(one is other for other in held)]
            if not bad:
                return
            for one in bad:
                self.atoms.fix(one)
            held += bad

    # ------------------------------------------------------------------------------------------------ rules

    def _rule(self, index: int, node: Node) -> Any:
        if is_layer(node):
            return self._layer(node)
        name = node.op.split(".")[1]
        if node.op == "operator.getitem":
            return self.labels[node.args[0].name][node.args[1]]
        if name in ELEMENTWISE:
            return self._elementwise(node)
        if name in MOVES:
            return self._moved(index, node, name)
        if name in CHANNELWISE:
            return self._channelwise(node)
        if name in ("constant_pad_nd", "pad"):
            return self._padded(node)
        if name in _REDUCTIONS:
            return self._reduced(node, name)
        if name in _ALONG:
            return self._along(node, name)
        if name in ("batch_norm", "instance_norm"):
            return self._norm(node)
        if name == "layer_norm":
            return self._layer_norm(node)
        if name in ("bmm", "matmul", "mm"):
            return self._product(node)
        if name == "scaled_dot_product_attention":
            return self._attention(node)
        if name == "embedding":
            columns = self._axis(node.args[0], 1)
            return columns.expand(self.shapes[node.name].shape)
        if not any(isinstance(one, Value | Stored) and self._is_tensor(one) for one in node.references()):
            return self._fixed(self.shapes[node.name].shape)
        raise _UnknownError(f"{name} has no rule")

    def _layer(self, node: Node) -> Tensor:
        x, weight, bias, *settings = (*node.args, None)[: max(3, len(node.args))]
        shape = self.shapes[node.name].shape
        if not isinstance(weight, Stored):
            raise _UnknownError("its weight is computed")
        size = self.tensors[weight.name].shape
        if "linear" in node.op:
            ins, outs = self._axis(weight, 1), self._axis(weight, 0)
            self._meet(self._per_channel(self._of(x), -1), ins)
            self.found.produced.add((weight.name, 0))
            self._bias(bias, outs)
            return outs.expand(shape)
        if self._of(x).dim() != len(size):
            raise _UnknownError("its input has no axis for images")
        transposed = "transpose" in node.op
        count = settings[3] if len(settings) > 3 else 1
        if not isinstance(count, int):
            raise _UnknownError("how many groups it has depends on its input")
        read = self._per_channel(self._of(x), 1)
        made = self._convolved(weight, read, count, transposed)
        self._bias(bias, made)
        return made.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)

    def _convolved(self, weight: Stored, read: Tensor, groups: int, transposed: bool) -> Tensor:
        """Return the labels of what a convolution makes (channels,)."""
        first = self._axis(weight, 0)
        depthwise = len(read) == groups > 1
        if depthwise:
            per = self.tensors[weight.name].shape[1] if transposed else len(first) // groups
            made = read.repeat_interleave(per)
            self._meet(read if transposed else made, first)
            return made
        second = self._axis(weight, 1)
        ins, outs = (first, second) if transposed else (second, first)
        self.found.produced.add((weight.name, 1 if transposed else 0))
        if groups == 1:
            self._meet(read, ins)
            return outs
        # every group keeps as many as the others: the same places of all go together
        if transposed:
            self._meet(read, first)
            self._meet(first.view(groups, -1)[:1].expand(groups, -1), first.view(groups, -1))
            return second.repeat(groups)
        self._meet(read.view(groups, -1), second.expand(groups, -1))
        self._meet(first.view(groups, -1)[:1].expand(groups, -1), first.view(groups, -1))
        return first

    def _bias(self, bias: Argument, made: Tensor) -> None:
        if bias is not None:
            self._meet(self._per_channel(self._of(bias), -1), made)

    def _elementwise(self, node: Node) -> Tensor:
        shape = self.shapes[node.name].shape
        operands = [one for one in node.references() if self._is_tensor(one)]
        if not operands:
            return self._fixed(shape)
        labels = [self._of(one) for one in operands]
        if short(node.op) == "prelu":  # its slopes lie along the channels
            slopes, rank = labels[1], labels[0].dim()
            labels[1] = slopes if slopes.numel() == 1 else slopes.view(-1, *[1] * (rank - 2))
        whole = [one.expand(shape) for one in labels]
        shared = []
        for number, (own, full) in enumerate(zip(labels, whole, strict=True)):
            sizes = (1,) * (len(shape) - own.dim()) + tuple(own.shape)
            lone = [axis for axis, size in enumerate(sizes) if size == 1 and shape[axis] > 1]
            others = [other for place, other in enumerate(whole) if place != number]
            if self.atoms.alike(own) and any(self.atoms.varies(other, axis) for other in others for axis in lone):
                self.atoms.fix(own)  # one number for several channels
            else:
                shared.append(full)
        for other in shared[1:]:
            self._meet(shared[0], other)
        return shared[0] if shared else self._fixed(shape)

    def _moved(self, index: int, node: Node, name: str) -> Any:
        names = {one.name for one in node.references() if isinstance(one, Value)}
        values = {key: self._numbers(self.labels[key]) if key in self.labels else self.shapes[key] for key in names}
        given: Any = node.args[0]
        first = None
        if isinstance(given, Stored):
            first = self._numbers(self._of(given))
        elif isinstance(given, tuple) and any(isinstance(one, Stored) for one in given):
            raise _UnknownError("it joins a stored tensor with others")
        found = self.meta.operation(index, values, first)
        parts = [found] if isinstance(found, Tensor) else list(found)
        parts = [narrowed(part).long().expand(part.shape) for part in parts]
        if name in SIZED:
            self._check_sizes(node, name, parts[0])
        elif name in _PARTS and self.atoms.varies(self._of(given), axis := axis_of(node)):
            plain = all(one is None or isinstance(one, int) for one in _flat(node.args[1:]))
            if name in ("select", "unbind") or not plain or (name == "slice" and node.args[4:] not in ((), (1,))):
                raise _UnknownError(f"{name} of channels along axis {axis}")
        return parts[0] if isinstance(found, Tensor) else parts

    def _check_sizes(self, node: Node, name: str, labels: Tensor) -> None:
        """Refuse sizes that are computed where channels lie: nothing could write the new ones there."""
        if name == "unflatten":
            axis, sizes = int(node.args[1]) % self._of(node.args[0]).dim(), node.args[2]
        else:
            axis, sizes = 0, node.args[1]
        for offset, size in enumerate(sizes):
            if isinstance(size, Value) and self.atoms.varies(labels, axis + offset):
                raise _UnknownError("a size with channels in it is computed")

    def _channelwise(self, node: Node) -> Tensor:
        shape = self.shapes[node.name].shape
        x, *others = (one for one in node.references() if self._is_tensor(one))
        for one in others:
            self._fix(one)
        return self._per_channel(self._of(x), 1).view(1, -1, *[1] * (len(shape) - 2)).expand(shape)

    def _padded(self, node: Node) -> Tensor:
        labels, shape = self._of(node.args[0]), self.shapes[node.name].shape
        axes = [labels.dim() - 1 - place // 2 for place in range(len(node.args[1]))]
        if any(self.atoms.varies(labels, axis) for axis in axes):
            raise _UnknownError("it pads channels")
        for axis in axes:
            labels = labels.narrow(axis, 0, 1)
        return labels.expand(shape)

    def _reduced(self, node: Node, name: str) -> Tensor:
        labels, shape = self._of(node.args[0]), self.shapes[node.name].shape
        dims: Any = node.args[2 if name == "linalg_vector_norm" else 1 :][:1]
        given = dims[0] if dims and dims[0] not in (None, ()) else tuple(range(labels.dim()))
        axes = sorted({int(axis) % labels.dim() for axis in (given if isinstance(given, tuple) else (given,))})
        if any(self.atoms.varies(labels, axis) for axis in axes):
            if name != "sum":
                raise _UnknownError(f"{name} over channels")
            rest = [axis for axis in range(labels.dim()) if axis not in axes]
            if any(self.atoms.varies(labels, axis) for axis in rest):
                raise _UnknownError("sum over channels among others")
            self.found.summed += [((node.args[0], axis),) for axis in axes if self.atoms.varies(labels, axis)]
            return self._fixed(shape)  # as of a layer whose weights are 1
        for axis in reversed(axes):
            labels = labels.narrow(axis, 0, 1)
            if labels.dim() > len(shape):
                labels = labels.squeeze(axis)
        return labels.expand(shape)

    def _along(self, node: Node, name: str) -> Tensor:
        labels, shape = self._of(node.args[0]), self.shapes[node.name].shape
        given = node.args[2] if name == "roll" and len(node.args) > 2 else node.args[1] if name != "roll" else ()
        axes = given if isinstance(given, tuple) else (given,)
        axes = axes or tuple(range(labels.dim()))
        if any(self.atoms.varies(labels, int(axis)) for axis in axes):
            raise _UnknownError(f"{name} along channels")
        for axis in axes:
            labels = labels.narrow(int(axis), 0, 1)
        return labels.expand(shape)

    def _norm(self, node: Node) -> Tensor:
        labels = self._of(node.args[0])
        channels = self._per_channel(labels, 1)
        for one in node.args[1:5]:
            if one is not None:
                self._meet(self._of(one), channels)
        return channels.view(1, -1, *[1] * (labels.dim() - 2)).expand(labels.shape)

    def _layer_norm(self, node: Node) -> Tensor:
        labels = self._of(node.args[0])
        if any(self.atoms.varies(labels, -1 - axis) for axis in range(len(node.args[1]))):
            raise _UnknownError("layer norm over channels")
        for one in node.args[2:4]:
            if isinstance(one, Value | Stored):
                self._fix(one)
        return labels

    def _product(self, node: Node) -> Tensor:
        a, b = (self._of(one) for one in node.args[:2])
        shape = self.shapes[node.name].shape
        if a.dim() != b.dim() or a.dim() < 2:
            raise _UnknownError("a product of matrices of other ranks")
        varies = self.atoms.varies
        if (varies(a, -1) and varies(a, -2)) or (varies(b, -1) and varies(b, -2)):
            raise _UnknownError("a product of matrices with channels along both axes")
        if (varies(a, -1) and varies(b, -1)) or (varies(b, -2) and varies(a, -2)):
            raise _UnknownError("a product of matrices with channels where they do not meet")
        if any(varies(one, axis) for one in (a, b) for axis in range(a.dim() - 2)):
            raise _UnknownError("a product of matrices with channels along other axes")
        if varies(a, -1) or varies(b, -2):
            self._meet(self._per_channel(a, -1), self._per_channel(b, -2))
            self.found.summed.append(((node.args[0], -1), (node.args[1], -2)))
        rows = varies(a, -2)
        if rows and varies(b, -1):
            raise _UnknownError("a product of matrices that spreads channels over both axes")
        if rows:
            return a.narrow(-1, 0, 1).expand(shape)
        return b.narrow(-2, 0, 1).expand(shape) if varies(b, -1) else self._fixed(shape)

    def _attention(self, node: Node) -> Tensor:
        value = node.args[2]
        for one in node.references():
            if one != value and self._is_tensor(one):
                self._fix(one)  # their width sets the scale
        labels = self._of(value)
        if any(self.atoms.varies(labels, axis) for axis in range(labels.dim() - 1)):
            raise _UnknownError("attention over channels")
        return labels.narrow(-2, 0, 1).expand(self.shapes[node.name].shape)

    # ------------------------------------------------------------------------------------------------ labels

    def _of(self, argument: Argument) -> Tensor:
        """Return the labels of a tensor."""
        if isinstance(argument, Stored):
            if argument.name not in self.found.stored:
                shape = self.tensors[argument.name].shape
                self.found.stored[argument.name] = self.atoms.fresh(shape.numel()).view(shape)
            return self.found.stored[argument.name]
        if not isinstance(argument, Value) or not isinstance(self.labels.get(argument.name), Tensor):
            raise _UnknownError("it takes no tensor")
        found: Tensor = self.labels[argument.name]
        return found

    def _axis(self, weight: Argument, axis: int) -> Tensor:
        """Return the labels along an axis of a layer's weight."""
        if not isinstance(weight, Stored):
            raise _UnknownError("its weight is computed")
        place = (weight.name, axis)
        if place not in self.found.axes:
            self.found.axes[place] = self.atoms.fresh(self.tensors[weight.name].shape[axis])
        return self.found.axes[place]

    def _per_channel(self, labels: Tensor, axis: int) -> Tensor:
        """Join the labels of everything that is in one channel; return one of them for each (channels,)."""
        if labels.dim() < 1:
            raise _UnknownError("it takes a single number")
        rows = labels.movedim(axis, 0)
        size, own = rows.shape[0], narrowed(rows).flatten(1) if rows.dim() > 1 else narrowed(rows)[:, None]
        first = own[:, :1]
        if own.shape[1] > 1:
            self.atoms.join(own, first.expand(own.shape))
        return first[:, 0].expand(size) if own.shape[0] == 1 else first[:, 0]

    def _meet(self, one: Tensor, other: Tensor) -> None:
        if one.shape != other.shape:
            raise _UnknownError(f"channels {tuple(one.shape)} meet {tuple(other.shape)}")
        self.atoms.join(one, other)

    def _fix(self, argument: Value | Stored) -> None:
        if isinstance(argument, Stored):
            for (name, _), labels in self.found.axes.items():
                if name == argument.name:
                    self.atoms.fix(labels)
            self.atoms.fix(self._of(argument))
            return
        found = self.labels.get(argument.name)
        for one in found if isinstance(found, list) else [found]:
            if isinstance(one, Tensor):
                self.atoms.fix(one)

    def _is_tensor(self, one: Value | Stored) -> bool:
        return isinstance(one, Stored) or isinstance(self.labels.get(one.name), Tensor)

    @staticmethod
    def _numbers(labels: Any) -> Any:
        """Return labels as what any operation takes."""
        return narrowed(labels).double().expand(labels.shape)

    @staticmethod
    def _fixed(shape: Sequence[int]) -> Tensor:
        return torch.full((), FIXED).expand(tuple(shape))
