"""Which classes a generator makes at all: for data whose classes are known, such as the procedural shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gancompress.components.registry import METRICS
from gancompress.errors import EvaluationError
from gancompress.evaluation.metrics import Metric, MetricResult

if TYPE_CHECKING:
    from gancompress.evaluation.features import Features

__all__ = ["ModeCoverage"]


@METRICS.register("coverage")
class ModeCoverage(Metric):
    """Classes covered, and how unevenly (cf. Lin et al., 2018, section 4.1), as the classifier sees the images.

    A class is covered when it gets at least a tenth of an even share. The divergence is the KL of the predicted
    classes to those that the classifier predicts for the real images, in nats: 0 = the same frequencies. Both say
    most about unconditional generators: a conditional one is asked for every class in turn.
    """

    share = 0.1

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return two results, ``modes`` and ``mode-kl``."""
        if not fake.classes:
            raise EvaluationError(
                f"mode coverage needs predictions of the data's own classes, {fake.label} has none; "
                "use the extractor 'classifier' on labelled data"
            )
        made = fake.logits.argmax(1).bincount(minlength=fake.classes).double() / len(fake)
        wanted = real.logits.argmax(1).bincount(minlength=fake.classes).double().add(1) / (len(real) + fake.classes)
        covered = int((made >= self.share / fake.classes).sum().item())
        kl = sum(p * math.log(p / q) for p, q in zip(made.tolist(), wanted.tolist(), strict=True) if p > 0)
        settings = f"of {fake.classes} classes, covered from {self.share:g} of an even share"
        return [
            MetricResult("modes", fake.name("modes", "modes"), float(covered), "higher", settings=settings),
            MetricResult("mode-kl", fake.name("mode KL", "mode KL"), max(kl, 0.0), "lower"),
        ]
