"""The maximum mean discrepancy of normalised features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gancompress.components.registry import METRICS
from gancompress.evaluation.metrics import Metric, MetricResult, need

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.evaluation.features import Features

__all__ = ["MeanDiscrepancy"]

_ROWS = 1000


@METRICS.register("cmmd")
class MeanDiscrepancy(Metric):
    """CMMD's distance (Jayasumana et al., Rethinking FID, 2024): squared MMD with a Gaussian kernel, times 1,000.

    Features are brought to length 1; the kernel's width is 10. Pairs of an image with itself count, as in the published
    code: the distance is 0 or more, exactly 0 of a set to itself. It assumes no distribution and is little biased by
    the number of images. It is the published CMMD on the embeddings of CLIP's ViT-L/14 at 336 pixels, behind the
    projection: ``CMMD[clip-…]``, of ``evaluation.extractor: clip:download``. On any other features, those in front of
    the projection (``timm:…clip…``) among them, it is the same formula with other numbers, and the name says whose.
    """

    width = 10.0
    scale = 1000.0

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return one result, ``cmmd``."""
        need(min(len(real), len(fake)), self.least, "CMMD")
        a, b = (F.normalize(features.values.double(), dim=1) for features in (real, fake))
        # the kernel hardly leaves 1, so what is averaged is how far it is from it
        apart = 2 * self._mean(a, b) - self._mean(a, a) - self._mean(b, b)
        value = max(self.scale * apart, 0.0)
        settings = f"Gaussian of width {self.width:g}, times {self.scale:,.0f}"
        return [MetricResult("cmmd", f"CMMD[{fake.label}]", value, "lower", settings=settings)]

    def _mean(self, a: Tensor, b: Tensor) -> float:
        """Return the mean of 1 - kernel over all pairs of rows of length 1."""
        total = 0.0
        for rows in torch.split(a, _ROWS):
            total -= float(((rows @ b.T - 1) / self.width**2).expm1().sum())  # |x - y|² = 2 - 2 x·y
        return total / (len(a) * len(b))
