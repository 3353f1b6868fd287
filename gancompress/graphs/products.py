"""Values that are products, element by element: of stored numbers, and of others that depend on the inputs.

A weight that styles modulate is one: whatever was transposed, flipped, repeated or reshaped on the way, every element
of it is an element of the stored weight times elements of styles. Which ones is found out by sending the numbers of the
elements through the same operations.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.graphs.graph import Stored, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.graphs.build import CapturedModule
    from gancompress.graphs.graph import Argument, Node

__all__ = ["Product", "Products", "Term", "varies"]

#: operations that put elements elsewhere and compute nothing
_MOVES = {
    "view.default", "_unsafe_view.default", "reshape.default", "flatten.using_ints", "unflatten.int", "permute.default",
    "transpose.int", "t.default", "squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default",
    "expand.default", "repeat.default", "repeat_interleave.self_int", "flip.default", "roll.default", "clone.default",
    "select.int", "slice.Tensor", "index_select.default", "to.dtype", "_to_copy.default",
}  # fmt: skip


#: those that only repeat them
_COPIES = ("aten.expand.default", "aten.repeat.default")


@dataclasses.dataclass(frozen=True)
class Term:
    """One factor of a product.

    Attributes:
        source: a tensor of the graph.
        power: what it is raised to.
        index: of the product's shape: which element of the flat source every element is multiplied by.
    """

    source: Value | Stored
    power: float
    index: Tensor


@dataclasses.dataclass(frozen=True)
class Product:
    """``scale`` times all terms.

    Attributes:
        scale: a number.
        stored: terms that no input changes.
        given: terms that inputs change.
    """

    scale: float
    stored: tuple[Term, ...] = ()
    given: tuple[Term, ...] = ()

    def power(self, exponent: float) -> Product:
        """Return the product raised to ``exponent``, a whole number."""
        stored, given = (
            tuple(dataclasses.replace(term, power=term.power * exponent) for term in terms)
            for terms in (self.stored, self.given)
        )
        return Product(self.scale**exponent, stored, given)

    def moved(self, move: Any) -> Product:
        """Return the product with ``move`` applied to where its elements are."""
        stored, given = (
            tuple(dataclasses.replace(term, index=move(term.index)) for term in terms)
            for terms in (self.stored, self.given)
        )
        return Product(self.scale, stored, given)


class Products:
    """The products among the values of a network.

    Args:
        network: whose operations they are.
        values: of all operations, for one size of the inputs: tensors, of which the shapes count, and numbers.
        constants: values that no input changes.
    """

    def __init__(self, network: CapturedModule, values: Mapping[str, Any], constants: Mapping[str, Tensor]) -> None:
        self._network, self._values, self._constants = network, values, constants
        self._nodes = {node.name: (index, node) for index, node in enumerate(network.captured.nodes)}
        self._known: dict[str, Product] = {}

    def tensor(self, source: Value | Stored) -> Tensor:
        """Return a tensor of the graph that no input changes."""
        if isinstance(source, Value):
            return self._constants[source.name]
        path, _, leaf = source.name.rpartition(".")
        found: Tensor = getattr(self._network.get_submodule(path), leaf)
        return found.detach()

    def shape(self, argument: Value | Stored) -> tuple[int, ...]:
        """Return the sizes of a tensor."""
        found = self.tensor(argument) if self.constant(argument) else self._values[argument.name]
        return tuple(found.shape)

    def constant(self, argument: Argument) -> bool:
        """Whether it is a tensor that no input changes."""
        return isinstance(argument, Stored) or (isinstance(argument, Value) and argument.name in self._constants)

    def of(self, argument: Argument) -> Product:
        """Return what a number or tensor is the product of: of itself alone where it is computed otherwise."""
        found = self._of(argument)
        self._known.clear()  # the numbers of the elements are as large as the weights
        return found

    def _of(self, argument: Argument) -> Product:
        if isinstance(argument, bool | int | float):
            return Product(float(argument))
        if argument.name not in self._known:
            self._known[argument.name] = self._found(argument)
        return self._known[argument.name]

    def _found(self, argument: Value | Stored) -> Product:
        if self.constant(argument):
            return Product(1.0, stored=(Term(argument, 1.0, _numbers(self.shape(argument))),))
        index, node = self._nodes.get(argument.name, (0, None))
        found = None if node is None else self._computed(index, node)
        if found is not None:
            return found
        return Product(1.0, given=(Term(argument, 1.0, _numbers(self.shape(argument))),))

    def numbers(self, terms: tuple[Term, ...], scale: float) -> Tensor:
        """Return the product of stored terms, float64, in the shape of their indices."""
        found = torch.tensor(scale, dtype=torch.float64)
        for term in terms:
            found = found * self.tensor(term.source).double().flatten()[term.index.long()] ** term.power
        return found

    def _computed(self, index: int, node: Node) -> Product | None:
        value = self._values[node.name]
        if not isinstance(value, Tensor) or value.dtype is not torch.float32:
            return None
        if node.op.removeprefix("aten.") in _MOVES:
            x = node.args[0]
            if not isinstance(x, Stored) and self._values[x.name].dtype is not torch.float32:
                return None
            inner = self._of(x)
            if not inner.stored and node.op not in _COPIES:
                return None
            if node.op in ("aten.to.dtype", "aten._to_copy.default", "aten.clone.default"):
                return inner
            values = {**self._values, **self._constants}
            return inner.moved(lambda numbers: self._network.operation(index, values, numbers))
        if node.op in ("aten.mul.Tensor", "aten.mul.Scalar", "aten.div.Tensor", "aten.div.Scalar"):
            if len(node.args) != 2 or node.kwargs:
                return None
            if any(isinstance(one, Value) and not isinstance(self._values[one.name], Tensor) for one in node.args):
                return None  # a size
            a, b = (self._of(one) for one in node.args)
            if ".div." in node.op:
                if b.scale == 0:
                    return None
                b = b.power(-1)
            a, b = (one.moved(lambda numbers: numbers.expand(value.shape)) for one in (a, b))
            # without anything stored, a product of others is of no use
            return Product(a.scale * b.scale, a.stored + b.stored, a.given + b.given) if a.stored or b.stored else None
        if node.op == "aten.neg.default":
            inner = self._of(node.args[0])
            return dataclasses.replace(inner, scale=-inner.scale) if inner.stored else None
        if node.op == "aten.square.default":
            return inner.power(2) if (inner := self._of(node.args[0])).stored else None
        if node.op == "aten.pow.Tensor_Scalar" and node.args[1] in (2, 4):
            return inner.power(node.args[1]) if (inner := self._of(node.args[0])).stored else None
        return None


def varies(term: Term, axis: int) -> bool:
    """Whether a term is not the same along an axis of the product."""
    index = term.index
    return index.shape[axis] > 1 and index.stride(axis) != 0 and bool((index != index.narrow(axis, 0, 1)).any())


def _numbers(shape: tuple[int, ...]) -> Tensor:
    return torch.arange(math.prod(shape), dtype=torch.int32).reshape(shape)
