"""What stays or goes as one: sets of elements that are joined while a network is read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["FIXED", "Atoms", "narrowed"]

#: the atom of all that always stays
FIXED = 0


def narrowed(labels: Tensor) -> Tensor:
    """Return labels without the axes along which they are expanded: those have size 1."""
    for axis, stride in enumerate(labels.stride()):
        if stride == 0:
            labels = labels.narrow(axis, 0, min(1, labels.shape[axis]))
    return labels


class Atoms:
    """Numbers in disjoint sets. A set is known by its smallest number; that of :data:`FIXED` always stays."""

    def __init__(self) -> None:
        self._parents = [FIXED]
        self._table: Tensor | None = None

    @property
    def count(self) -> int:
        """How many atoms there are."""
        return len(self._parents)

    def fresh(self, count: int) -> Tensor:
        """Return new atoms (count,), each alone."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        self._table = None
        return torch.arange(first, first + count)

    def roots(self, labels: Tensor) -> Tensor:
        """Return the smallest number of every label's set, expanded where the labels are."""
        if self._table is None:
            table = np.asarray(self._parents)
            while not np.array_equal(further := table[table], table):
                table = further
            self._parents = table.tolist()
            self._table = torch.from_numpy(table.copy())
        return self._table[narrowed(labels)].expand(labels.shape)

    def varies(self, labels: Tensor, axis: int) -> bool:
        """Whether sets differ along an axis."""
        own = narrowed(self.roots(labels))
        return own.shape[axis] > 1 and bool((own != own.narrow(axis, 0, 1)).any())

    def alike(self, labels: Tensor) -> bool:
        """Whether all labels are of one set."""
        own = narrowed(self.roots(labels)).flatten()
        return not bool((own != own[:1]).any())

    def join(self, one: Tensor, other: Tensor) -> None:
        """Make one set of every element's two, element by element; shapes are equal."""
        for axis in range(one.dim()):
            if one.stride(axis) == other.stride(axis) == 0:
                one, other = (x.narrow(axis, 0, min(1, x.shape[axis])) for x in (one, other))
        pairs = torch.stack([self.roots(one).flatten(), self.roots(other).flatten()])
        pairs = pairs[:, pairs[0] != pairs[1]]
        if not pairs.numel():
            return
        for a, b in torch.unique(pairs, dim=1).T.tolist():
            first, second = self._root(a), self._root(b)
            self._parents[max(first, second)] = min(first, second)
        self._table = None

    def fix(self, labels: Tensor) -> None:
        """Let these always stay."""
        self.join(labels, torch.full((), FIXED).expand(labels.shape))

    def _root(self, atom: int) -> int:
        while self._parents[atom] != atom:
            atom = self._parents[atom]
        return atom
