"""Quantities that change over training, and the steps on which something happens. Pure functions of progress."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from gancompress.sparsity.rounding import ceil_share

__all__ = ["Constant", "Cosine", "Cubic", "Linear", "Schedule", "cosine", "cubic", "is_due", "update_steps"]


def cubic(start: float, end: float, progress: float) -> float:
    """Return ``end + (start - end) * (1 - p)**3`` with ``p`` clamped to [0, 1] (Zhu and Gupta, 2017, equation 1)."""
    return end + (start - end) * (1 - min(max(progress, 0.0), 1.0)) ** 3


def cosine(start: float, end: float, progress: float) -> float:
    """Return a value on the way from ``start`` to ``end`` along half a period, with ``progress`` clamped to [0, 1]."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


Fraction = Annotated[float, Field(ge=0, le=1)]


class _ScheduleConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Constant(_ScheduleConfig):
    """The same value throughout."""

    name: Literal["constant"] = "constant"
    value: Fraction = Field(default=0.3, description="the value")

    def at(self, progress: float) -> float:
        """Return the value at ``progress`` (0 = first step, 1 = end)."""
        return self.value


class _FromTo(_ScheduleConfig):
    start: Fraction = Field(default=0.5, description="value at the first step")
    end: Fraction = Field(default=0.005, description="value at the end")


class Linear(_FromTo):
    """A straight line."""

    name: Literal["linear"] = "linear"

    def at(self, progress: float) -> float:
        """Return the value at ``progress`` (0 = first step, 1 = end)."""
        return self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)


class Cosine(_FromTo):
    """Half a period of a cosine (RigL, section 3): slow, fast, slow."""

    name: Literal["cosine"] = "cosine"

    def at(self, progress: float) -> float:
        """Return the value at ``progress`` (0 = first step, 1 = end)."""
        return cosine(self.start, self.end, progress)


class Cubic(_FromTo):
    """Fast first, then slower: the schedule of gradual magnitude pruning."""

    name: Literal["cubic"] = "cubic"

    def at(self, progress: float) -> float:
        """Return the value at ``progress`` (0 = first step, 1 = end)."""
        return cubic(self.start, self.end, progress)


#: A schedule in a recipe: ``{name: cosine, start: 0.5, end: 0.005}``.
Schedule: TypeAlias = Annotated[Constant | Linear | Cosine | Cubic, Field(discriminator="name")]


def update_steps(total_steps: int, every: int, start: float = 0.0, stop: float | None = None) -> range:
    """Return the steps of a round on which an update is due: multiples of ``every`` inside the window.

    Args:
        total_steps: steps of the round; the first is 1.
        every: interval in steps, at least 1.
        start: share of the round before which nothing is due (``step >= start * total_steps``).
        stop: share of the round from which nothing is due any more (``step < stop * total_steps``, as ``t < T_end``
            in RigL, algorithm 1); ``None`` goes on to the last step, that one included.
    """
    first = max(1, ceil_share(start, total_steps))
    last = total_steps if stop is None else min(total_steps, ceil_share(stop, total_steps) - 1)
    return range(-(-first // every) * every, last + 1, every)


def is_due(step: int, total_steps: int, every: int, start: float = 0.0, stop: float | None = None) -> bool:
    """Return whether ``step`` is one of :func:`update_steps`, in constant time."""
    return step in update_steps(total_steps, every, start, stop)
