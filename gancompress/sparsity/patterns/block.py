"""Blocks of neighbouring outputs and inputs at one position of the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gancompress.components.registry import PATTERNS
from gancompress.sparsity.patterns.base import Pattern, PatternConfig
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from gancompress.sparsity.layers import Layer

__all__ = ["Block", "BlockConfig"]


class BlockConfig(PatternConfig):
    """Size of a block. ``1x4`` is short for ``{name: block, outputs: 1, inputs: 4}``."""

    outputs: int = Field(default=1, ge=1, description="consecutive output channels of a block")
    inputs: int = Field(default=4, ge=1, description="consecutive input channels of a block")


@PATTERNS.register("block")
class Block(Pattern[BlockConfig]):
    """Keep blocks of outputs x inputs at one position of the kernel; channels that do not divide stay unstructured."""

    Config: ClassVar[type[PatternConfig]] = BlockConfig

    def __str__(self) -> str:
        return f"{self.config.outputs}x{self.config.inputs}"

    def units(self, layer: Layer) -> Units | None:
        """Return the blocks of one layer."""
        box = layer.box(self.config.outputs, self.config.inputs)
        return None if box is None else Units(layer.shape, box)
