"""Whole output channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gancompress.components.registry import PATTERNS
from gancompress.sparsity.patterns.base import Pattern, PatternConfig
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from gancompress.sparsity.layers import Layer

__all__ = ["Channels", "ChannelsConfig"]


class ChannelsConfig(PatternConfig):
    """Whole output channels, no settings."""


@PATTERNS.register("channels")
class Channels(Pattern[ChannelsConfig]):
    """Keep whole output channels, but for those of the image and the logits: that layer keeps single weights."""

    Config: ClassVar[type[PatternConfig]] = ChannelsConfig

    def units(self, layer: Layer) -> Units | None:
        """Return the output channels of one layer."""
        box = layer.box(1, layer.inputs, kernel=True)
        return None if box is None or layer.output else Units(layer.shape, box)
