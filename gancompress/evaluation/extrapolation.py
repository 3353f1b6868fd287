"""The Fréchet distance that infinitely many generated images would have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from gancompress.components.registry import METRICS
from gancompress.evaluation.features import Features
from gancompress.evaluation.metrics import Metric, MetricResult, frechet_distance, need
from gancompress.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ExtrapolatedFrechetDistance", "sizes"]


def sizes(count: int, points: int, smallest: int) -> list[int]:
    """Return sizes of subsets, evenly from ``smallest``, or half of the images where they are few, to all."""
    return [int(size) for size in np.linspace(min(smallest, count // 2), count, points)]


@METRICS.register("fd-infinity")
class ExtrapolatedFrechetDistance(Metric):
    """FID∞ (Chong and Forsyth, Effectively Unbiased FID and Inception Score, 2020), or FD∞ on other features.

    The distance of N generated images is too large by nearly a multiple of 1/N, and by how much depends on the
    generator. It is computed for 15 numbers of images, from 5,000 (or half of them) to all, each drawn anew with a
    fixed seed; the line through them over 1/N is followed to 0. It may fall below 0 by what the line leaves open.
    Against the same real images: their number biases all generators alike. KID needs nothing like it, for it is
    unbiased.
    """

    points = 15
    smallest = 5000
    least = 100

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return one result, ``fd-infinity``; its spread is the standard error of the line at 0."""
        need(min(len(real), len(fake)), self.least, "the extrapolated Fréchet distance")
        counts = sizes(len(fake), self.points, self.smallest)
        found = [self._distance(real, fake, size, index) for index, size in enumerate(counts)]
        value, error = _at_infinity(counts, found)
        settings = f"{self.points} sizes from {counts[0]:,} to {counts[-1]:,}"
        return [MetricResult("fd-infinity", fake.name("FID∞", "FD∞"), value, "lower", error, settings)]

    def _distance(self, real: Features, fake: Features, size: int, index: int) -> float:
        chosen = torch.randperm(len(fake), generator=generator(0, "evaluation", "fd-infinity", index))[:size]
        some = Features(fake.values[chosen], fake.logits[chosen], fake.label)
        return frechet_distance(real.statistics, some.statistics)


def _at_infinity(counts: Sequence[int], distances: Sequence[float]) -> tuple[float, float]:
    """Return where the line of ``distances`` over 1 / ``counts`` meets 0, and the standard error there."""
    inverse = 1 / np.asarray(counts, dtype=np.float64)
    slope, value = np.polyfit(inverse, distances, 1)
    left = np.asarray(distances) - value - slope * inverse
    spread = inverse - inverse.mean()
    variance = (left @ left) / (len(counts) - 2) * (1 / len(counts) + inverse.mean() ** 2 / (spread @ spread))
    return float(value), float(np.sqrt(variance))
