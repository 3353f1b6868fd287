"""Every weight for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gancompress.components.registry import PATTERNS
from gancompress.sparsity.patterns.base import Pattern, PatternConfig

if TYPE_CHECKING:
    from gancompress.sparsity.layers import Layer
    from gancompress.sparsity.units import Units

__all__ = ["Unstructured", "UnstructuredConfig"]


class UnstructuredConfig(PatternConfig):
    """Single weights, no settings."""


@PATTERNS.register("unstructured")
class Unstructured(Pattern[UnstructuredConfig]):
    """Keep or drop every weight for itself."""

    Config: ClassVar[type[PatternConfig]] = UnstructuredConfig

    def units(self, layer: Layer) -> Units | None:
        """Return nothing: single weights everywhere."""
        return None
