"""Density and coverage: how much of the generated images lies among real ones, and how many real ones are reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress.components.registry import METRICS
from gancompress.evaluation.metrics import Metric, MetricResult, need, some_of

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.evaluation.features import Features

__all__ = ["DensityCoverage"]

#: real images whose distances to all others are held at a time
_ROWS = 1000


@METRICS.register("dc")
class DensityCoverage(Metric):
    """Density and coverage (Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020).

    Unlike precision and recall they hold one outlier's wide neighbourhood for what it is: density counts in how many
    neighbourhoods of real images a generated one lies (1 where both are alike), coverage the share of real images that
    have a generated one in theirs. Both see neighbourhoods of real images only, of 5 neighbours. As many real as
    generated images are used, at most 10,000 of each, drawn with a fixed seed.
    """

    neighbours = 5
    least = neighbours + 1
    most = 10_000

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return two results, ``density`` and ``coverage``."""
        count = min(len(real), len(fake), self.most)
        need(count, self.least, "density and coverage")
        ours, theirs = some_of(fake.values, count).double(), some_of(real.values, count).double()
        inside, covered = 0, 0
        for rows in torch.split(theirs, _ROWS):
            radii = _distances(rows, theirs).kthvalue(self.neighbours + 1, 1, keepdim=True).values  # itself is one
            within = _distances(rows, ours) < radii
            inside += int(within.sum())
            covered += int(within.any(1).sum())
        settings = f"{self.neighbours} neighbours, {count:,} images each"
        return [
            MetricResult(key, fake.name(key, key), value, "higher", settings=settings)
            for key, value in (("density", inside / (self.neighbours * count)), ("coverage", covered / count))
        ]


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Return distances (len(a), len(b)), exactly 0 between equal rows."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
