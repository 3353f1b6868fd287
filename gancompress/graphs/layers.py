"""Convolutions and linear layers whose weights are computed, as layers that have a weight of their own.

Two kinds are known. A weight that no input changes, such as a raw parameter times a gain, is computed once. One that is
a stored weight times factors per image and input channel, or per image and output channel (a modulated convolution, be
it one convolution with a group for every image), becomes a scale of the inputs, a convolution with the stored weight,
and a scale of the outputs. The sums of squares of such weights, by which their outputs are brought to one power, become
products of squared styles with the sums of squares of the stored weight. These are kept as they were before pruning:
computed anew, they would take back what a refitted weight gains.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.graphs.build import CapturedModule
from gancompress.graphs.graph import Graph, Node, Stored, Value
from gancompress.graphs.naming import is_layer, named, replaced
from gancompress.graphs.products import Product, Products, varies
from gancompress.graphs.values import constants_of, values_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gancompress.graphs.graph import Argument, Input
    from gancompress.graphs.products import Term

__all__ = ["with_layers"]

#: keep the order of elements, so that one behind another is one
_VIEWS = frozenset({"aten.view.default", "aten._unsafe_view.default", "aten.reshape.default"})
_PADS = ("aten.pad.default", "aten.constant_pad_nd.default")
_SUMS = ("aten.sum.dim_IntList", "aten.mean.dim", "aten.linalg_vector_norm.default")


class _OtherError(Exception):
    """It is computed in another way."""


def with_layers(
    graph: Graph, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor], parameters: Collection[str]
) -> tuple[Graph, dict[str, Tensor]]:
    """Return a graph of the same outputs in which every convolution and linear layer that can be has a stored weight.

    Args:
        graph: what to compute.
        tensors: all that it reads, by name.
        inputs: of a call; sizes that may change should be unlike others.
        parameters: names of the tensors that were trained; filters of fixed numbers do not become layers.

    Returns:
        The graph and its tensors; weights that are new are called after the parameter that they came from.
    """
    return _Rewriting(graph, tensors, inputs, parameters).result()


class _Rewriting:
    def __init__(
        self, graph: Graph, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor], parameters: Collection[str]
    ) -> None:
        self.graph, self.tensors, self.parameters = graph, dict(tensors), {*parameters}
        network = CapturedModule(graph, tensors)
        self.constants = constants_of(network)
        meta = CapturedModule(graph, {name: tensor.to("meta") for name, tensor in tensors.items()})
        self.values = values_of(meta, inputs)
        self.products = Products(network, self.values, self.constants)
        #: the new nodes, and those that are being made for one of the old
        self.nodes: list[Node] = []
        self.made: list[Node] = []
        #: values that are another one under a new name
        self.same: dict[Value | Stored, Argument] = {}
        #: of a view, what it is one of
        self.origins: dict[str, Value] = {}
        #: of one image with a group of channels for every image, ``(1, B * C, ...)``, the images
        self.groups: dict[Argument, Value] = {}
        self.names = {one.name for one in graph.inputs} | {one.name for one in graph.nodes}
        #: trained tensors that a constant is computed of, the largest first
        self.roots: dict[str, list[str]] = {}
        #: new tensors, by the name of the parameter that they came from
        self.derived: dict[str, list[str]] = {}

    def result(self) -> tuple[Graph, dict[str, Tensor]]:
        for node in self.graph.nodes:
            if node.name in self.constants:
                self.roots[node.name] = self._roots(node)
        for node in self.graph.nodes:
            self.made = []
            try:
                self._change(node)
            except _OtherError:
                self.made = [replaced(node, self.same)]
            self.nodes += self.made
        self._keep_constants()
        outputs: Any = tuple(self._given(Value(name)) for name in self.graph.outputs)
        graph = _needed(self.graph.inputs, self.nodes, tuple(one.name for one in outputs))
        new = {name: (root, name.rsplit("/", 2)[1]) for root, names in self.derived.items() for name in names}
        return named(graph, self.tensors, new, self.parameters)

    # ---------------------------------------------------------------------------------------------- operations

    def _change(self, node: Node) -> None:
        if node.name in self.constants:
            raise _OtherError
        if node.op in _VIEWS:
            self._view(node)
        elif node.op in _PADS:
            self._pad(node)
        elif node.op in _SUMS:
            self._sum(node)
        elif is_layer(node):
            try:
                (self._filter if node.args[0] in self.groups else self._convolution)(node)
            except _OtherError:
                self.made = []
                self._layer(node)
        elif node.op in ("aten.addmm.default", "aten.mm.default", "aten.matmul.default"):
            self._product_of_matrices(node)
        else:
            raise _OtherError

    def _view(self, node: Node) -> None:
        x = self._given(node.args[0])
        if not isinstance(x, Value):
            raise _OtherError
        origin = self.origins.get(x.name, x)
        alike = self.values[origin.name].shape == self.values[node.name].shape
        if alike and node.name not in self.graph.outputs:
            self.same[Value(node.name)] = origin
            return
        self.origins[node.name] = origin
        self._emit(node.op, origin, self._given(node.args[1]), name=node.name)
        images, *sizes = self.values[origin.name].shape
        if len(sizes) > 1 and self.values[node.name].shape == (1, images * sizes[0], *sizes[1:]):
            self.groups[Value(node.name)] = origin

    def _pad(self, node: Node) -> None:
        """A border of groups of images, or none at all."""
        x, pads, *rest = node.args
        if not any(isinstance(one, Value) or one for one in pads) and node.name not in self.graph.outputs:
            self.same[Value(node.name)] = self._given(x)
            return
        if x not in self.groups or len(pads) > 2 * len(self.values[x.name].shape) - 4 or node.kwargs:
            raise _OtherError
        found = self._emit(node.op, self.groups[x], *map(self._given, (pads, *rest)))
        self._folded(node, found, self.values[self.groups[x].name].shape[0])
        self._name_last(node.name)

    def _filter(self, node: Node) -> None:
        """One filter for every channel of groups of images."""
        x, weight, *rest = node.args
        settings: list[Any] = [*rest, *(None, 1, 0, 1, 1)[len(rest) :]]
        bias, stride, padding, dilation, groups = settings
        images, channels = self.values[self.groups[x].name].shape[:2]
        shape, count = self.products.shape(weight), images * channels
        if node.kwargs or "transpose" in node.op or shape[:2] != (count, 1) or self._number(groups) != count:
            return self._convolution(node)
        product = self.products.of(weight)
        if product.given or bias is not None:
            raise _OtherError
        taps = self._shared(product).expand(channels, *shape[1:])
        settings = [*map(self._given, (stride, padding, dilation)), channels]
        found = self._emit(node.op, self.groups[x], self._store(node.name, "filter", taps), None, *settings)
        self._folded(node, found, images)
        self._name_last(node.name)
        return None

    def _sum(self, node: Node) -> None:
        """A sum of squares of a weight that is computed."""
        product, shape = self.products.of(node.args[0]), self.values[node.args[0].name].shape
        if norm := node.op == "aten.linalg_vector_norm.default":
            order, dims, keeps = (*node.args[1:], *(2, None, False)[len(node.args) - 1 :])[:3]
            product = product.power(2)
        else:
            order, dims, keeps = 2, *(*node.args[1:], False)[:2]
        root = self._root(product)
        if node.kwargs or order != 2 or any(term.power % 2 for term in product.given):
            raise _OtherError
        axes = range(len(shape))
        reduced = sorted({int(axis) % len(shape) for axis in dims or axes})
        kept = [axis for axis in axes if axis not in reduced]
        inner = [term for term in product.given if any(varies(term, axis) for axis in reduced)]
        outer = [term for term in product.given if term not in inner]
        images, ins = ([axis for axis in own if any(varies(term, axis) for term in inner)] for own in (kept, reduced))
        outs = [axis for axis in kept if any(varies(term, axis) for term in product.stored)]
        seen = {*images, *outs} | {axis for axis in kept if any(varies(term, axis) for term in outer)}
        if not inner or len(images) > 1 or images >= outs > [] or any(shape[axis] > 1 for axis in {*kept} - seen):
            raise _OtherError
        squares = self._computed(product, [axis for axis in kept if axis not in outs])
        squares = squares.permute(*kept, *(axis for axis in reduced if axis not in ins), *ins)
        squares = squares.reshape(math.prod(shape[axis] for axis in outs), -1, math.prod(shape[axis] for axis in ins))
        squares = squares.sum(1)
        if node.op == "aten.mean.dim":
            squares = squares / math.prod(shape[axis] for axis in reduced)
        found: Argument = None
        for term in inner:
            index = _first(term, [axis for axis in axes if axis not in (*images, *ins)]).permute(*kept, *reduced)
            index = index.reshape(-1, math.prod(shape[axis] for axis in ins))
            found = self._times(found, self._raised(self._arranged(term, index), term.power))
        found = self._emit("aten.linear.default", found, self._store(root, "squares", squares))
        result = [axis for axis in axes if keeps or axis in kept]
        sizes = [-1 if axis in images else shape[axis] if axis in outs else 1 for axis in result]
        if len(sizes) != 2 or -1 not in sizes:
            found = self._emit("aten.view.default", found, tuple(sizes))
        for term in outer:
            index = _first(term, reduced).reshape([shape[axis] if axis in kept else 1 for axis in result])
            found = self._times(found, self._raised(self._arranged(term, index), term.power))
        if norm:
            self._emit("aten.sqrt.default", found)
        self._name_last(node.name)

    def _convolution(self, node: Node) -> None:
        if node.op == "aten.linear.default":
            raise _OtherError
        transposed = "transpose" in node.op
        x, weight, bias, *settings = (*node.args, None)[: max(3, len(node.args))]
        usual: tuple[Any, ...] = (1, 0, 0, 1, 1) if transposed else (1, "valid" if ".padding" in node.op else 0, 1, 1)
        stride, padding, third, groups, *rest = (*settings, *usual[len(settings) :])
        given, axes = self.products.shape(x), len(self.values[node.name].shape)
        images = self._number(groups) if given[0] == 1 else 1
        if node.kwargs or len(given) != axes or self._number(groups) != images:
            raise _OtherError
        if images == 1 and self.products.constant(weight):
            raise _OtherError
        product = self.products.of(weight)
        root, shape = self._root(product), self.products.shape(weight)
        product = product.moved(lambda index: index.reshape(images, -1, *shape[1:]))
        if transposed:
            product = product.moved(lambda index: index.transpose(1, 2))
        kernel = range(3, len(shape) + 1)  # behind images, outputs and inputs
        if any(varies(term, axis) for term in product.given for axis in kernel):
            raise _OtherError
        ins = [term for term in product.given if varies(term, 2)]
        outs = [term for term in product.given if not varies(term, 2)]
        if any(varies(term, 1) for term in ins):
            raise _OtherError
        shared = self._shared(product)
        outputs, inputs = shared.shape[:2]
        vector, added = self._bias(bias, images, outputs, len(kernel))
        if vector is not None and outs:
            vector, added = None, self._emit("aten.view.default", vector, (1, -1, *(1,) * len(kernel)))
        found = self._unfolded(self._given(x), images, inputs)
        scale: Argument = None
        for term in ins:
            index = _first(term, [1, *kernel]).reshape(images, inputs)
            scale = self._times(scale, self._raised(self._arranged(term, index, len(kernel)), term.power))
        found = found if scale is None else self._times(found, scale)
        stored = self._store(root, "weight", shared.transpose(0, 1) if transposed else shared)
        found = self._emit(node.op, found, stored, vector, *map(self._given, (stride, padding, third)), 1, *rest)
        for term in outs:
            index = _first(term, [2, *kernel]).reshape(images, outputs)
            found = self._times(found, self._raised(self._arranged(term, index, len(kernel)), term.power))
        if added is not None:
            found = self._emit("aten.add.Tensor", found, added)
        if images > 1:
            found = self._folded(node, found, images)
        self._name_last(node.name)

    def _product_of_matrices(self, node: Node) -> None:
        bias, x, weight = node.args if node.op == "aten.addmm.default" else (None, *node.args)
        if node.kwargs or not self.products.constant(weight) or self.products.constant(x):
            raise _OtherError
        matrix, root = self.products.tensor(weight), self._trained(weight)
        if matrix.dim() != 2 or matrix.dtype is not torch.float32:
            raise _OtherError
        if bias is not None:
            vector = self.products.tensor(bias) if self.products.constant(bias) else None
            if vector is None or vector.numel() != matrix.shape[1]:
                raise _OtherError
            bias = self._store(self._trained(bias), "bias", vector.reshape(-1))
        self._emit("aten.linear.default", self._given(x), self._store(root, "weight", matrix.t()), bias, name=node.name)

    def _layer(self, node: Node) -> None:
        """A layer whose weight, or bias, no input changes."""
        args = list(replaced(node, self.same).args)
        for place, what in ((1, "weight"), (2, "bias")):
            one = node.args[place] if place < len(node.args) else None
            if isinstance(one, Value) and one.name in self.constants and (what == "bias" or self.roots[one.name]):
                root = self._trained(one) if self.roots[one.name] else one.name
                args[place] = self._store(root, what, self.constants[one.name])
        self._emit(node.op, *args, name=node.name, **replaced(node, self.same).kwargs)

    # ---------------------------------------------------------------------------------------------- pieces

    def _computed(self, product: Product, same: Sequence[int]) -> Tensor:
        """Return the stored part of a product, float64, 1 along axes where it is the ``same``."""
        stored = (dataclasses.replace(term, index=_first(term, same)) for term in product.stored)
        return self.products.numbers(tuple(stored), product.scale)

    def _shared(self, product: Product) -> Tensor:
        """Return the stored part of a product whose first axis is that of the images, where they are alike."""
        found = self._computed(product, [])
        if bool((found != found[:1]).any()):
            raise _OtherError
        return found[0]

    def _bias(self, bias: Argument, images: int, channels: int, axes: int) -> tuple[Argument, Argument]:
        """Return the bias of a convolution with one group: a stored vector, or a value to be added."""
        if bias is None:
            return None, None
        product = self.products.of(bias).moved(lambda index: index.reshape(images, channels))
        if not product.given:
            source = product.stored[0].source.name
            root = next(iter(self.roots.get(source, [source])), source)
            return self._store(root, "bias", self._shared(product)), None
        if product.stored or len(product.given) > 1 or product.scale != 1:
            raise _OtherError
        return None, self._arranged(product.given[0], product.given[0].index, axes)

    def _folded(self, node: Node, found: Value, images: int) -> Value:
        """Return what was computed for every image as it was: one image with a group of channels for each."""
        _, channels, *sizes = self.values[node.name].shape
        self.made.append(dataclasses.replace(self.made.pop(), name=(name := self._fresh(node.op))))
        self.values[name] = torch.empty(images, channels // images, *sizes, device="meta")
        self.origins[node.name] = self.groups[Value(node.name)] = Value(name)
        flat = self._emit("aten.flatten.using_ints", Value(name), 0, 1)
        return self._emit("aten.unsqueeze.default", flat, 0)

    def _unfolded(self, x: Value, images: int, channels: int) -> Value:
        """Return the maps of all images, ``(B, C, ...)``, of what has them in groups, ``(1, B * C, ...)``."""
        if images == 1:
            return x
        origin = self.origins.get(x.name, x)
        if self.values[origin.name].shape == (images, channels, *self.values[x.name].shape[2:]):
            return origin
        return self._emit("aten.squeeze.dim", self._emit("aten.unflatten.int", x, 1, (-1, channels)), 0)

    def _arranged(self, term: Term, index: Tensor, axes: int = 0) -> Value:
        """Return the source of a term in the shape of ``index``, 1 along axes where it does not vary, and more axes.

        Raises:
            _OtherError: its elements are in another order.
        """
        sizes: list[int] = []
        for axis in range(index.dim()):
            if not bool((index != index.narrow(axis, 0, 1)).any()):
                index = index.narrow(axis, 0, 1)
            sizes.append(index.shape[axis])
        source: Value = self._given(term.source)
        numel = self.values[source.name].numel()
        if not torch.equal(index.flatten(), torch.arange(numel, dtype=index.dtype)):
            raise _OtherError
        open_axis = next((axis for axis, size in enumerate(sizes) if size > 1), None)
        wanted = [-1 if axis == open_axis else size for axis, size in enumerate(sizes)] + [1] * axes
        if tuple(self.values[source.name].shape) == (*sizes, *[1] * axes):
            return source
        return self._emit("aten.view.default", source, tuple(wanted))

    def _raised(self, x: Value, power: float) -> Value:
        if power == 1:
            return x
        if power == 2:
            return self._emit("aten.mul.Tensor", x, x)
        return self._emit("aten.pow.Tensor_Scalar", x, power)

    def _times(self, a: Argument, b: Value) -> Value:
        return b if a is None else self._emit("aten.mul.Tensor", a, b)

    def _given(self, argument: Argument) -> Argument:
        """Return an argument with the names that its values have now."""
        return replaced(Node("", "", (argument,)), self.same).args[0]

    def _emit(self, op: str, *args: Argument, name: str = "", **kwargs: Argument) -> Value:
        self.made.append(Node(name or self._fresh(op), op, args, kwargs))
        return Value(self.made[-1].name)

    def _fresh(self, op: str) -> str:
        stem, number = op.split(".")[1], 0
        while f"{stem}_{number}" in self.names:
            number += 1
        self.names.add(f"{stem}_{number}")
        return f"{stem}_{number}"

    def _name_last(self, name: str) -> None:
        self.made[-1] = dataclasses.replace(self.made[-1], name=name)

    def _number(self, argument: Argument) -> int:
        return int(self.values[argument.name] if isinstance(argument, Value) else argument)

    # ---------------------------------------------------------------------------------------------- tensors

    def _roots(self, node: Node) -> list[str]:
        names = []
        for one in node.references():
            names += [one.name] if isinstance(one, Stored) else self.roots[one.name]
        own = {name for name in names if name in self.parameters}
        return sorted(own, key=lambda name: (-self.tensors[name].numel(), name))

    def _trained(self, argument: Argument) -> str:
        """Return the parameter that a constant is computed of."""
        roots = self.roots[argument.name] if isinstance(argument, Value) else [argument.name]
        if not roots or roots[0] not in self.parameters:
            raise _OtherError
        return roots[0]

    def _root(self, product: Product) -> str:
        """Return the largest parameter that is in a product."""
        sources = [term.source for term in product.stored]
        names = [self.roots[one.name] if isinstance(one, Value) else [one.name] for one in sources]
        found = [name for own in names for name in own if name in self.parameters]
        if not found:
            raise _OtherError
        return max(found, key=lambda name: self.tensors[name].numel())

    def _store(self, root: str, what: str, tensor: Tensor) -> Stored:
        """Keep a new tensor, once."""
        tensor = tensor.float().contiguous().clone()
        for name in self.derived.get(root, ()):
            if self.tensors[name].shape == tensor.shape and torch.equal(self.tensors[name], tensor):
                return Stored(name)
        own = self.derived.setdefault(root, [])
        name = f"{root}/{what}/{len(own)}"  # until all are known
        self.tensors[name] = tensor
        own.append(name)
        return Stored(name)

    def _keep_constants(self) -> None:
        """Keep what else is computed of a weight that became another one, if that is smaller."""
        reads = {one.name for node in self.nodes if node.name not in self.constants for one in node.references()}
        reads -= {*self.graph.outputs}
        for name, roots in self.roots.items():
            root, tensor = roots[0] if roots else "", self.constants[name]
            if name in reads and root in self.derived and tensor.numel() <= self.tensors[root].numel():
                self.same[Value(name)] = self._store(root, "constant", tensor)
        self.nodes = [replaced(node, self.same) for node in self.nodes]


def _first(term: Term, axes: Sequence[int]) -> Tensor:
    """Return the index of a term at the beginning of some axes."""
    index = term.index
    for axis in axes:
        index = index.narrow(axis, 0, 1)
    return index


def _needed(inputs: Sequence[Input], nodes: Sequence[Node], outputs: Sequence[str]) -> Graph:
    """Return the graph without what nothing reads."""
    wanted, kept = {*outputs}, list[Node]()
    for node in reversed(nodes):
        if node.name in wanted:
            wanted |= {one.name for one in node.references() if isinstance(one, Value)}
            kept.append(node)
    return Graph(tuple(inputs), tuple(reversed(kept)), tuple(outputs))
