"""Every weight for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.components.registry import PATTERNS
from gancompress.sparsity.patterns.base import Pattern, PatternConfig

if TYPE_CHECKING:
    from gancompress.sparsity.layers import Layer
    from gancompress.sparsity.units import Units

__all__ = ["Unstructured"]


@PATTERNS.register("unstructured")
class Unstructured(Pattern[PatternConfig]):
    """Keep or drop every weight for itself."""

    def units(self, layer: Layer) -> Units | None:
        """Return nothing: single weights everywhere."""
        return None
