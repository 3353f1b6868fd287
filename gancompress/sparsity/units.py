"""What is kept or dropped as one: a box of neighbouring weights, and how many boxes of a group may be kept."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gancompress.errors import InvariantError
from gancompress.sparsity.masks import rank_keys, ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Units"]


def _split(shape: Sequence[int], box: Sequence[int]) -> list[int]:
    """Return the shape that has an axis of boxes and one inside a box for every axis."""
    return [size for whole, extent in zip(shape, box, strict=True) for size in (whole // extent, extent)]


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of one weight: boxes that fill it, in the order of their first weights.

    Attributes:
        shape: shape of the weight.
        box: extent of a unit along every axis; all 1 for single weights. Each divides its axis.
        group: extent, in units along every axis, of the groups that a limit counts in; empty without a limit.
        at_most: units of a group that may be kept. A weight that is kept whole is exempt.
    """

    shape: tuple[int, ...]
    box: tuple[int, ...]
    group: tuple[int, ...] = ()
    at_most: int = 0

    def __post_init__(self) -> None:
        for whole, extents in ((self.shape, self.box), *([(self.grid, self.group)] if self.group else [])):
            if len(whole) != len(extents) or any(size % extent for size, extent in zip(whole, extents, strict=True)):
                raise InvariantError(f"units of {extents} do not fill {whole}")

    @classmethod
    def single(cls, shape: Sequence[int]) -> Units:
        """Return units of one weight each, without a limit."""
        return cls(tuple(shape), (1,) * len(shape))

    @property
    def size(self) -> int:
        """Weights of one unit."""
        return math.prod(self.box)

    @property
    def grid(self) -> tuple[int, ...]:
        """Units along every axis: the shape of what :meth:`pool` returns."""
        return tuple(whole // extent for whole, extent in zip(self.shape, self.box, strict=True))

    @property
    def count(self) -> int:
        """Units in all."""
        return math.prod(self.grid)

    @property
    def most(self) -> int:
        """Weights that may be kept, unless all are."""
        groups = self.count // math.prod(self.group) if self.group else 0
        return groups * self.at_most * self.size if self.group else math.prod(self.shape)

    def pool(self, scores: Tensor) -> Tensor:
        """Return the mean score of every unit, shape ``grid``; single weights get their own, unchanged.

        Means are taken in double precision, so that units of equal scores stay equal.
        """
        if self.size == 1:
            return scores
        inside = tuple(range(1, 2 * len(self.shape), 2))
        return scores.detach().double().reshape(_split(self.shape, self.box)).mean(inside)

    def chosen(self, mask: Tensor) -> Tensor:
        """Return which units a mask keeps, all of their weights."""
        if self.size == 1:
            return mask
        split = mask.reshape(_split(self.shape, self.box))
        return (
            split.movedim(tuple(range(0, 2 * len(self.shape), 2)), tuple(range(len(self.shape))))
            .flatten(len(self.shape))
            .all(-1)
        )

    def expand(self, chosen: Tensor) -> Tensor:
        """Return the mask that keeps the chosen units; undoes :meth:`chosen`."""
        if self.size == 1:
            return chosen
        for axis, extent in enumerate(self.box):
            chosen = chosen.repeat_interleave(extent, axis)
        return chosen

    def room(self, scores: Tensor, candidates: Tensor | None, beside: Tensor | None) -> Tensor | None:
        """Return the candidates that can be kept without a group exceeding its limit: in every group its best.

        Args:
            scores: of units, shape ``grid``.
            candidates: units that can be chosen; ``None``: all.
            beside: units that are kept already; ``None``: none.
        """
        if not self.group:
            return candidates
        keys = rank_keys(scores).reshape(self.grid)
        if candidates is not None:
            keys = keys.masked_fill(~candidates, torch.iinfo(keys.dtype).min)
        taken = 0 if beside is None else self._groups(beside).sum(1, keepdim=True)
        free = self._ungroup(ranks(self._groups(keys)) < self.at_most - taken)
        return free if candidates is None else free & candidates

    def violated(self, mask: Tensor) -> Tensor:
        """Return, as a bool tensor of shape (), whether a mask splits a unit or exceeds the limit of a group."""
        chosen = self.chosen(mask)
        broken = (self.expand(chosen) != mask).any()
        if self.group:
            broken |= (self._groups(chosen).sum(1) > self.at_most).any() & ~mask.all()
        return broken

    def _groups(self, units: Tensor) -> Tensor:
        """Return a tensor of the grid as (groups, units of a group), each in ascending order."""
        n = len(self.grid)
        split = units.reshape(_split(self.grid, self.group))
        return split.permute(*range(0, 2 * n, 2), *range(1, 2 * n, 2)).reshape(-1, math.prod(self.group))

    def _ungroup(self, rows: Tensor) -> Tensor:
        n = len(self.grid)
        between = [whole // extent for whole, extent in zip(self.grid, self.group, strict=True)]
        split = rows.reshape(*between, *self.group)
        return split.permute(*(axis for pair in zip(range(n), range(n, 2 * n), strict=True) for axis in pair)).reshape(
            self.grid
        )
