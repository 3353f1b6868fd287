"""Real handwriting that needs no download: the digits that ship with scikit-learn."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from gancompress.components.registry import DATASETS
from gancompress.data.base import DatasetConfig
from gancompress.data.memory import InMemoryDataset, Stored

__all__ = ["Digits", "DigitsConfig"]


class DigitsConfig(DatasetConfig):
    """Settings of the digits."""

    resolution: Literal[8, 16, 32, 64] = Field(
        16, description="height and width in pixels; the originals are 8×8 and are enlarged smoothly"
    )


@DATASETS.register("digits")
class Digits(InMemoryDataset[DigitsConfig]):
    """1797 handwritten digits, grey, ten classes (scikit-learn's ``load_digits``).

    Stored as 8×8 with 17 grey levels; enlarged by bicubic interpolation. Source: E. Alpaydin and C. Kaynak, Optical
    Recognition of Handwritten Digits, UCI repository, 1998.
    """

    Config = DigitsConfig

    def load(self) -> Stored:
        """Read the images from scikit-learn and enlarge them."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        grey = torch.from_numpy(bunch.images).to(torch.float32).unsqueeze(1) * (255 / 16)
        size = self.config.resolution
        if size != 8:
            grey = F.interpolate(grey, size=(size, size), mode="bicubic", align_corners=False)
        images = grey.round().clamp(0, 255).to(torch.uint8)
        labels = torch.from_numpy(bunch.target).to(torch.int64)
        return Stored(images, labels, tuple(str(digit) for digit in range(10)))

    def identity(self) -> tuple[Any, ...]:
        """The smallest form of the images pins the release of scikit-learn's copy; the resolution does the rest."""
        return self.config.resolution, self.stored.images[:, :, :: self.config.resolution // 8].numpy().tobytes()
