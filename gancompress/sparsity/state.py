"""The values that sparsity is made of: which weights are kept, how many, and what a method remembers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import torch
from torch import Tensor

from gancompress.errors import InvariantError

if TYPE_CHECKING:
    from gancompress.sparsity.units import Units

__all__ = ["PAIR", "Budget", "Memory", "Name", "Role", "SparseState", "role_of"]

#: the side of the game that a network plays on: what recipes set and methods ask
Role: TypeAlias = Literal["generator", "discriminator"]
#: what one network is called: it begins with the role that the network plays; of a pair, each is called by its role
Name: TypeAlias = str
#: what the networks of a pair are called
PAIR: Final[tuple[Role, Role]] = ("generator", "discriminator")

#: What a method may remember between updates. Tensors are saved beside the masks, scalars in ``state.json``.
Memory: TypeAlias = Mapping[str, Tensor | int | float]


def role_of(name: Name) -> Role:
    """Return the side that a network plays on, which its name begins with: ``generator_ab`` is a generator.

    Raises:
        InvariantError: it begins with neither.
    """
    for role in PAIR:
        if name == role or name.startswith(f"{role}_"):
            return role
    raise InvariantError(f"network {name!r} plays on no side: begin its name with generator or discriminator")


@dataclasses.dataclass(frozen=True)
class Budget:
    """How many weights of one network are kept: an integer per tensor, never a fraction.

    Attributes:
        density: the share asked for, in (0, 1].
        counts: kept weights per prunable tensor, in the network's order. ``sum(counts.values())`` is exact.
        sizes: elements per prunable tensor, same keys.
        allocation: name of the rule that made ``counts`` (``uniform``, ``er``, ``erk``, ``global``).
        floor: least share of every tensor that the rule had to respect.
        dense: names of the tensors that are kept whole.
        units: what is kept or dropped as one, of the tensors that hold the recipe's pattern; the others keep single
            weights.
        pattern: what messages and reports call the pattern.
    """

    density: float
    counts: Mapping[str, int]
    sizes: Mapping[str, int]
    allocation: str
    floor: float = 0.0
    dense: tuple[str, ...] = ()
    units: Mapping[str, Units] = dataclasses.field(default_factory=dict)
    pattern: str = "unstructured"

    @property
    def total(self) -> int:
        """Kept weights of the whole network."""
        return sum(self.counts.values())

    @property
    def exact_density(self) -> float:
        """Kept weights over all prunable weights, as counted, not as asked."""
        return self.total / sum(self.sizes.values())

    @property
    def unstructured(self) -> int:
        """Weights of the tensors that do not hold the pattern."""
        return sum(size for name, size in self.sizes.items() if name not in self.units)

    def step(self, name: str) -> int:
        """Return the weights of one unit of a tensor."""
        return self.units[name].size if name in self.units else 1

    def most(self, name: str) -> int:
        """Return how many weights of a tensor its pattern lets a method keep; all, if the recipe keeps it whole."""
        size = self.sizes[name]
        return size if name not in self.units or self.counts[name] == size else self.units[name].most

    def check_units(self, masks: Mapping[str, Tensor], where: str) -> None:
        """Verify that masks keep whole units and no group more than its limit; waits for each device once.

        Raises:
            InvariantError: naming the tensor and the pattern.
        """
        names = [name for name in masks if name in self.units]
        if not names:
            return
        device = masks[names[0]].device
        wrong = torch.stack([self.units[name].violated(masks[name]).to(device) for name in names]).tolist()
        for name, broken in zip(names, wrong, strict=True):
            if broken:
                raise InvariantError(
                    f"{where}: the mask of {name} does not hold pattern {self.pattern}: it splits a unit of "
                    f"{' x '.join(map(str, self.units[name].box))} weights or exceeds the limit of a group"
                )


@dataclasses.dataclass(frozen=True)
class SparseState:
    """The sparsity of one network at one moment: a value, never changed in place.

    Attributes:
        masks: bool tensor of its weight's shape per prunable tensor; True is kept.
        budgets: kept weights per tensor; ``masks[n].sum() == budgets[n]`` always.
        updates: topology updates so far.
        memory: what the method wants to remember (tensors, integers, floats).
        backward: for tensors that train more weights than they compute with (Top-KAST, Jayakumar et al., 2020): bool
            tensors that are True wherever the mask is. What is True there and masked counts as 0 in forward passes,
            but has a gradient, moments and a value that the optimizer moves. Elsewhere weights are 0.
        start: values, of its weight's shape, that grown weights of a tensor start from; without it, 0. Used once.
    """

    masks: Mapping[str, Tensor]
    budgets: Mapping[str, int]
    updates: int = 0
    memory: Memory = dataclasses.field(default_factory=dict)
    backward: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    start: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def replace(self, **changes: object) -> SparseState:
        """Return a copy with the given fields changed (see :func:`dataclasses.replace`)."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    @property
    def nonzeros(self) -> int:
        """Kept weights of the whole network, from the budgets (no device synchronisation)."""
        return sum(self.budgets.values())

    @property
    def density(self) -> float:
        """Exact share of kept weights."""
        return self.nonzeros / sum(mask.numel() for mask in self.masks.values())

    @property
    def trained(self) -> dict[str, Tensor]:
        """The weights that the optimizer moves: the backward mask where there is one, else the mask."""
        return {**self.masks, **self.backward}

    def check(self) -> None:
        """Verify the state against itself.

        Raises:
            InvariantError: a mask is not bool, names differ, or ``mask.sum() != budget``.
        """
        if self.masks.keys() != self.budgets.keys():
            odd = sorted(set(self.masks) ^ set(self.budgets))
            raise InvariantError(f"masks and budgets name different tensors: {', '.join(odd)}")
        for name, mask in self.masks.items():
            if mask.dtype is not torch.bool:
                raise InvariantError(f"mask of {name} is {mask.dtype}, expected bool")
        kept = {name: int(mask.sum()) for name, mask in self.masks.items()}
        for name, budget in self.budgets.items():
            if kept[name] != budget:
                raise InvariantError(f"mask of {name} keeps {kept[name]} weights, its budget is {budget}")

    def hash(self) -> str:
        """Return a short hash of all masks: equal on every rank, and before and after a checkpoint."""
        digest = hashlib.blake2b(digest_size=8)
        for masks in (self.masks, self.backward):
            for name in sorted(masks):
                digest.update(name.encode())
                digest.update(masks[name].detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
