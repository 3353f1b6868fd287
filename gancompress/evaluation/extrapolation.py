"""Distances that infinitely many images would have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from gancompress.components.registry import METRICS
from gancompress.evaluation.features import Features
from gancompress.evaluation.metrics import (
    KernelDistance,
    Metric,
    MetricResult,
    cubic_discrepancy,
    frechet_distance,
    need,
)
from gancompress.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ExtrapolatedFrechetDistance", "UnbiasedKernelDistance", "sizes"]


def sizes(count: int, points: int, smallest: int) -> list[int]:
    """Return sizes of subsets, evenly from ``smallest``, or half of the images where they are few, to all."""
    return [int(size) for size in np.linspace(min(smallest, count // 2), count, points)]


@METRICS.register("fd-infinity")
class ExtrapolatedFrechetDistance(Metric):
    """FID∞ (Chong and Forsyth, Effectively Unbiased FID and Inception Score, 2020), or FD∞ on other features.

    The distance of N generated images is too large by nearly a multiple of 1/N, and by how much depends on the
    generator. It is computed for 15 numbers of images, from 5,000 (or half of them) to all, each drawn anew with a
    fixed seed; the line through them over 1/N is followed to 0. It may fall below 0 by what the line leaves open.
    Against the same real images: their number biases all generators alike.
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


@METRICS.register("kd-infinity")
class UnbiasedKernelDistance(Metric):
    """KID∞, or KD∞ on other features: the kernel distance of infinitely many images, and how well it is known.

    There is nothing to extrapolate. The estimator of KID is unbiased (Bińkowski et al., 2018, section 4): whatever the
    number of images, its mean is the distance of infinitely many, and a line over 1/N would only add noise to it. So
    this is that estimator over disjoint subsets (Zaremba et al., B-tests, 2013): images are shuffled with a fixed seed
    and count once, as far as both sets reach. The spread of ``kd`` is over subsets that share images; independent ones
    have a standard error. Subsets hold 1,000 images or, with fewer than 10,000, a tenth of them. It may fall below 0 by
    that error.
    """

    subset_size = KernelDistance.subset_size
    fewest = 10
    least = 2 * fewest

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return one result, ``kd-infinity``; its spread is the standard error of the mean over subsets."""
        smaller = min(len(real), len(fake))
        need(smaller, self.least, "the kernel distance of infinitely many images")
        size = min(self.subset_size, smaller // self.fewest)
        subsets = smaller // size
        x, y = (self._parts(features, what, size, subsets) for features, what in ((fake, "fake"), (real, "real")))
        found = np.array([cubic_discrepancy(a, b) for a, b in zip(x, y, strict=True)])
        error = float(found.std(ddof=1) / np.sqrt(subsets))
        settings = f"{subsets} disjoint subsets of {size:,}"
        name = fake.name("KID∞", "KD∞")
        return [MetricResult("kd-infinity", name, float(found.mean()), "lower", error, settings)]

    def _parts(self, features: Features, what: str, size: int, subsets: int) -> list[npt.NDArray[np.float64]]:
        order = torch.randperm(len(features), generator=generator(0, "evaluation", "kd-infinity", what))
        chosen = features.values[order[: size * subsets]].double().numpy()
        return np.split(chosen, subsets)
