"""A dense network with fewer channels that is as big as the sparse one: the baseline that sparsity has to beat."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gancompress.components.registry import METHODS
from gancompress.methods.base import Method, MethodConfig, NetView, Size
from gancompress.methods.pruning import everything

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from gancompress.sparsity.state import Budget, SparseState

__all__ = ["Narrow", "NarrowConfig", "nearest_width"]


def nearest_width(full: int, multiple: int, target: int, measure: Callable[[int], int]) -> int:
    """Return the multiple of ``multiple``, up to ``full``, whose measure is nearest to ``target``.

    Args:
        full: the widest that is considered.
        multiple: what widths must divide by; the narrowest that is considered.
        target: the measure that is wanted.
        measure: grows with the width.

    Returns:
        The nearest width; of two that are equally far, the narrower.
    """
    low, high = 1, max(full // multiple, 1)
    at = functools.cache(lambda units: measure(units * multiple))
    if at(high) <= target or low == high:
        return high * multiple
    # Both measures are nearly quadratic in the width, so a guess by square roots is hardly ever wrong by more than one.
    while high - low > 1:
        left, right, wanted = (math.sqrt(value) for value in (at(low), at(high), target))
        guess = low + round((wanted - left) / (right - left) * (high - low))
        guess = min(max(guess, low + 1), high - 1)
        low, high = (guess, high) if at(guess) <= target else (low, guess)
    return min((low, high), key=lambda units: abs(at(units) - target)) * multiple


class NarrowConfig(MethodConfig):
    """Settings of the narrow baseline."""

    match: Literal["parameters", "macs"] = Field(
        default="parameters", description="what the narrow network has as many of as the sparse one would"
    )


@METHODS.register("narrow")
class Narrow(Method[NarrowConfig]):
    """Train a narrower network densely."""

    Config: ClassVar[type[MethodConfig]] = NarrowConfig
    baseline: ClassVar[bool] = True
    sparsifies: ClassVar[bool] = False

    def width(self, full: int, multiple: int, target: Size, size: Callable[[int], Size]) -> int:
        """Choose the width that comes closest to the sparse network's parameters or MACs."""
        match = self.config.match
        return nearest_width(full, multiple, getattr(target, match), lambda width: int(getattr(size(width), match)))

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Keep everything."""
        return everything(net)
