"""What every sparsity pattern must do: so far, say what it is, and hold on to its settings."""

from __future__ import annotations

from gancompress.components.registry import PATTERNS
from gancompress.testing.conformance import ConfiguredSuite

__all__ = ["PatternSuite"]


class PatternSuite(ConfiguredSuite):
    """All checks of one pattern."""

    registry = PATTERNS
