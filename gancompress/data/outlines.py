"""Procedural pairs: outlines of shapes, and the shapes in their colours. Any number, of any size, truth known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch.nn import functional as F

from gancompress.components.registry import DATASETS
from gancompress.data.base import DatasetConfig
from gancompress.data.domains import Domains
from gancompress.data.memory import InMemoryDataset, Stored
from gancompress.data.shapes import SHAPES, colours, ground, silhouettes
from gancompress.seeds import generator

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.data.base import Dataset

__all__ = ["Outlines", "OutlinesConfig"]

_DRAWING_VERSION = 1  # part of the fingerprint: raise it when the drawing changes
#: where the draws of held-out images begin: no training set is as large
_HELD_OUT = 1 << 40


class OutlinesConfig(DatasetConfig):
    """Settings of the outlines."""

    resolution: int = Field(32, ge=12, le=512, description="height and width in pixels")
    images: int = Field(512, ge=1, description="number of pairs, or of images of each domain")
    held_out: int = Field(64, ge=0, description="further ones that are only measured and looked at")
    paired: bool = Field(True, description="false: sources and targets show other shapes in other places")
    channels: int = Field(3, ge=1, le=3, description="3: RGB; 1: grey, where a shape says its brightness")
    seed: int = Field(0, ge=0, description="seed of shapes, positions, sizes, angles and grounds")


class _Drawn(InMemoryDataset[OutlinesConfig]):
    """One side of it."""

    def __init__(self, config: OutlinesConfig, start: int, outlined: bool) -> None:
        self.start, self.outlined = start, outlined
        super().__init__(config)

    def load(self) -> Stored:
        config = self.config
        kind = "pairs" if config.paired or self.outlined else "others"
        rng = generator(config.seed, "outlines", kind, self.start)
        draws = torch.rand(config.images, 9, generator=rng)
        parts = [self._draw(part) for part in torch.split(draws, 512)]
        return Stored(torch.cat(parts), torch.zeros(config.images, dtype=torch.int64), ())

    def identity(self) -> tuple[Any, ...]:
        return _DRAWING_VERSION, self.config.model_dump(), self.start, self.outlined

    def _draw(self, draws: Tensor) -> Tensor:
        size, channels = self.config.resolution, self.config.channels
        shapes = (draws[:, 8] * len(SHAPES)).long().clamp(max=len(SHAPES) - 1)
        radii = size * (0.21 + 0.12 * draws[:, 0])
        margin = 1.1 * radii + 1
        centres = margin[:, None] + draws[:, 1:3] * (size - 2 * margin)[:, None]
        angles = (draws[:, 3] - 0.5) * math.radians(20)
        cover = silhouettes(shapes, centres, radii, angles, size)
        paint = colours(len(SHAPES), channels)[shapes]
        if self.outlined:
            width = max(1, round(size / 32))
            inner = -F.max_pool2d(-cover[:, None], 2 * width + 1, 1, width)[:, 0]
            cover, paint = (cover - inner).clamp(0, 1), torch.ones_like(paint)
        pixels = torch.lerp(ground(draws[:, 5:8], size)[:, None], paint[:, :, None, None], cover[:, None])
        return (pixels * 255).round().clamp(0, 255).to(torch.uint8)


@DATASETS.register("outlines")
class Outlines(Domains[OutlinesConfig]):
    """White outlines on a shaded ground, to be filled in with colour: what a shape is says which.

    Eight shapes, each with a colour of its own; position, size, angle (±10°) and ground vary, and are the same in both
    images of a pair.
    """

    Config = OutlinesConfig

    def __init__(self, config: OutlinesConfig, start: int = 0) -> None:
        self.paired, self._start = config.paired, start
        super().__init__(config)

    def load(self) -> tuple[Dataset[Any], Dataset[Any]]:
        """Draw both sides."""
        return _Drawn(self.config, self._start, True), _Drawn(self.config, self._start, False)

    def other(self) -> Outlines | None:
        """Draw what is held out."""
        if self._start or not self.config.held_out:
            return None
        return Outlines(self.config.model_copy(update={"images": self.config.held_out}), _HELD_OUT)
