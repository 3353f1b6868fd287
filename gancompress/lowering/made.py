"""What a program is going to be made of: results, and what their readers make of them on the way.

Scales, activations, enlargements and borders are not computed where they stand in the graph. They travel with a
:class:`Read` until a convolution takes them in, ahead of its weights or behind them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gancompress.graphs.graph import Value
    from gancompress.kernels import Activation, Border

__all__ = ["NO_SIDES", "Conv", "Factor", "Made", "Norm", "Read", "Sides", "Source", "Sum", "Term", "composed"]

Sides: TypeAlias = tuple[int, int, int, int]
NO_SIDES: Sides = (0, 0, 0, 0)

#: gain or bias of a map: one number per channel, ``(C,)`` float64; a value of the graph with one per image and channel
Factor: TypeAlias = "Tensor | Value | None"


@dataclass(eq=False)
class Made:
    """A result inside a program.

    Attributes:
        node: that it is the result of.
        shape: channels, rows, columns.
        open: whether only one more operation reads it, which may then become part of it.
    """

    node: str
    shape: tuple[int, int, int]
    open: bool = field(default=True, init=False)


@dataclass(eq=False)
class Source(Made):
    """What comes into the program."""

    def __post_init__(self) -> None:
        self.open = False


@dataclass(eq=False)
class Term:
    """One thing that is added: ``factor`` times a result, every pixel ``up`` by ``up`` times."""

    made: Made
    factor: float = 1.0
    up: int = 1


@dataclass(eq=False)
class Sum(Made):
    """A sum of results, then an activation."""

    add: list[Term] = field(default_factory=list)
    activation: Activation | None = None


@dataclass(eq=False)
class Norm(Made):
    """A group norm of one result."""

    source: Made
    groups: int
    eps: float
    weight: Tensor | None
    bias: Tensor | None


@dataclass(eq=False)
class Conv(Made):
    """A convolution: settings as in torch, in two axes; ``layer`` is the name of its weight, empty of a fixed one."""

    layer: str
    read: Read
    weight: Tensor
    bias: Tensor | None
    transposed: bool
    stride: tuple[int, int]
    padding: Sides
    dilation: tuple[int, int]
    groups: int
    output_padding: tuple[int, int] = (0, 0)
    border: Border = "zeros"
    add: list[Term] = field(default_factory=list)
    activation: Activation | None = None
    shuffle: int = 1


@dataclass(frozen=True)
class Read:
    """Results as something reads them: ``border(up(factor * activation(affine(concatenated parts))))``.

    Attributes:
        parts: concatenated along channels.
        by: the node that this is the value of.
        affine: pairs of a gain and a bias, applied one after the other.
        slope: of the activation.
        factor: what the result is multiplied by.
        up: every pixel counts so many by so many times.
        sides: rows and columns of border: top, bottom, left, right.
        border: what is there.
        regrouped: the shape of the map while its channels are seen in groups, as inside of a group norm in pieces.
    """

    parts: tuple[Made, ...]
    by: str
    affine: tuple[tuple[Factor, Factor], ...] = ()
    slope: Activation | None = None
    factor: float = 1.0
    up: int = 1
    sides: Sides = NO_SIDES
    border: Border = "zeros"
    regrouped: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        """Of all parts."""
        return sum(part.shape[0] for part in self.parts)

    @property
    def bare(self) -> bool:
        """Whether it is one result as it is."""
        return self.addable and self.factor == 1 and self.up == 1

    @property
    def addable(self) -> bool:
        """Whether it can be an addend: one result, multiplied and enlarged at most."""
        return len(self.parts) == 1 and not self.affine and self.slope is None and self.sides == NO_SIDES

    @property
    def given(self) -> list[Value]:
        """The factors that differ from image to image."""
        return [one for pair in self.affine for one in pair if one is not None and not isinstance(one, Tensor)]


def composed(read: Read) -> tuple[Tensor, Tensor]:
    """Return one gain and one bias, ``(C,)`` float64, of a read whose affine map is the same for every image."""
    scale = torch.ones(read.channels, dtype=torch.float64)
    shift = torch.zeros(read.channels, dtype=torch.float64)
    for gain, bias in read.affine:
        if isinstance(gain, Tensor):
            scale, shift = scale * gain, shift * gain
        if isinstance(bias, Tensor):
            shift = shift + bias
    return scale, shift
