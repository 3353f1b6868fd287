"""Running means of scalars that live on the device: read, and so synchronised, only when a line is logged."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Meters"]


class Meters:
    """Sums and counts of named scalars since the last reading.

    The sums are part of a checkpoint: a log line written after a resume must equal the one of an uninterrupted run.

    Args:
        names: what is averaged, in a fixed order.
        device: where the scalars are made.
    """

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self.names = names
        self._sums = torch.zeros(len(names), dtype=torch.float64, device=device)
        self._counts = [0] * len(names)

    def add(self, name: str, value: Tensor) -> None:
        """Add one scalar without waiting for the device."""
        index = self.names.index(name)
        self._sums[index] += value.detach()
        self._counts[index] += 1

    def read(self) -> dict[str, float]:
        """Return the means since the last call and start again; a name without values is left out."""
        sums: list[float] = self._sums.tolist()
        means = {
            name: total / count for name, total, count in zip(self.names, sums, self._counts, strict=True) if count
        }
        self._sums.zero_()
        self._counts = [0] * len(self.names)
        return means

    def state(self) -> tuple[Tensor, list[int]]:
        """Return what a checkpoint keeps."""
        return self._sums, list(self._counts)

    def load(self, sums: Tensor, counts: list[int]) -> None:
        """Restore what :meth:`state` returned."""
        self._sums.copy_(sums)
        self._counts = list(counts)
