"""Whole kernels: every position of one output and one input channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gancompress.components.registry import PATTERNS
from gancompress.sparsity.patterns.base import Pattern, PatternConfig
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from gancompress.sparsity.layers import Layer

__all__ = ["Kernels", "KernelsConfig"]


class KernelsConfig(PatternConfig):
    """Whole kernels, no settings."""


@PATTERNS.register("kernels")
class Kernels(Pattern[KernelsConfig]):
    """Keep the whole kernel between an output and an input channel; 1x1 and linear layers keep single weights."""

    Config: ClassVar[type[PatternConfig]] = KernelsConfig

    def units(self, layer: Layer) -> Units | None:
        """Return the kernels of one layer."""
        box = layer.box(1, 1, kernel=True)
        return None if box is None or layer.taps == 1 else Units(layer.shape, box)
