"""Distances and scores of features, under names that say whose features they are."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from gancompress.components.registry import METRICS
from gancompress.errors import EvaluationError
from gancompress.seeds import generator

if TYPE_CHECKING:
    from gancompress.evaluation.features import Features, Statistics
    from gancompress.evaluation.protocol import Protocol

__all__ = [
    "Better",
    "FrechetDistance",
    "InceptionScore",
    "KernelDistance",
    "Metric",
    "MetricResult",
    "ModeCoverage",
    "PrecisionRecall",
    "cubic_discrepancy",
    "frechet_distance",
    "need",
    "some_of",
]

Better = Literal["lower", "higher"]

#: torch-fidelity's own default, fixed here so that it cannot change under us
_SEED = 2020


@dataclasses.dataclass(frozen=True)
class MetricResult:
    """One number.

    Attributes:
        key: stable name for programs: ``fd``, ``kd``, ``is``, ``precision``, ``recall``, ….
        name: name to print: ``FID``, or ``FD[classifier-1f3a9c2d]``.
        value: the number.
        better: whether lower or higher is better.
        std: spread over subsets or splits; None when the metric has none.
        settings: the metric's own part of the protocol.
        protocol: how it was measured; filled in by :func:`~gancompress.evaluation.evaluate.evaluate`.
    """

    key: str
    name: str
    value: float
    better: Better
    std: float | None = None
    settings: str = ""
    protocol: Protocol | None = None

    def is_better_than(self, other: float) -> bool:
        """Whether this value beats ``other``."""
        return self.value < other if self.better == "lower" else self.value > other


class Metric(abc.ABC):
    """A number, or a few, from the features of real and generated images. Subclass it and register it.

    Name results with :meth:`Features.name`, so that no proxy is passed off as the real thing. Random state inside
    ``compute`` is forked, but a metric should rather be deterministic.

    Attributes:
        least: real and generated images that it needs, of each; fewer are refused before training.
        of_classes: it needs an extractor that knows the data's own classes.
        of_predictions: it needs an extractor that predicts classes, whichever.
    """

    least: ClassVar[int] = 2
    of_classes: ClassVar[bool] = False
    of_predictions: ClassVar[bool] = False

    @classmethod
    def available(cls) -> str | None:
        """Return why it cannot be used here, such as weights that are missing; None when it can."""
        return None

    @abc.abstractmethod
    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return the results, the most important first.

        Args:
            real: features of the reference images.
            fake: features of the generated images.

        Raises:
            EvaluationError: it cannot be computed, for instance from so few images.
        """


def frechet_distance(reference: Statistics, other: Statistics) -> float:
    """Return the squared Fréchet distance of two Gaussians (Heusel et al., 2017, eq. 6).

    The trace of (S1 S2)^1/2 is the sum of the roots of the eigenvalues of the symmetric S1^1/2 S2 S1^1/2: the same
    number as a general matrix root, several times faster since S1^1/2 is kept with the reference.
    """
    inner = reference.root @ other.covariance @ reference.root
    roots = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(min=0)).sum()
    difference = reference.mean - other.mean
    squared = difference @ difference + np.trace(reference.covariance) + np.trace(other.covariance) - 2 * roots
    return max(float(squared), 0.0)  # of equal sets rounding makes it negative


@METRICS.register("fd")
class FrechetDistance(Metric):
    """FID (Heusel et al., 2017), or FD on other features."""

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return one result, ``fd``."""
        need(min(len(real), len(fake)), self.least, "the Fréchet distance")
        value = frechet_distance(real.statistics, fake.statistics)
        return [MetricResult("fd", fake.name("FID", "FD"), value, "lower")]


@METRICS.register("kd")
class KernelDistance(Metric):
    """KID (Bińkowski et al., 2018): unbiased squared MMD with the kernel (x·y / d + 1)^3, averaged over subsets.

    The subset size is 1,000 or, with fewer than 2,000 images, half of them. Its mean does not depend on that size: it
    is the distance of infinitely many images, see ``kd-infinity``.
    """

    least = 4
    subsets = 100
    subset_size = 1000

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return one result, ``kd``."""
        smaller = min(len(real), len(fake))
        need(smaller, self.least, "the kernel distance")
        size = min(self.subset_size, smaller // 2)
        # The draws are those of torch-fidelity; the cube is not: a general power takes longer than all the rest.
        rng = np.random.RandomState(_SEED)
        x, y = fake.values.double().numpy(), real.values.double().numpy()
        found = np.empty(self.subsets)
        for index in range(self.subsets):
            a = x[rng.choice(len(x), size, replace=False)]
            b = y[rng.choice(len(y), size, replace=False)]
            found[index] = cubic_discrepancy(a, b)
        name, settings = fake.name("KID", "KD"), f"{self.subsets} subsets of {size}"
        return [MetricResult("kd", name, float(found.mean()), "lower", float(found.std()), settings)]


def cubic_discrepancy(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Return the unbiased squared MMD of KID's kernel between two sets, of as many images each (n, d)."""
    from torch_fidelity.metric_kid import mmd2

    return float(mmd2(_cubic(a, a), _cubic(a, b), _cubic(b, b)))


def _cubic(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    kernel: np.ndarray[Any, Any] = x @ y.T
    kernel /= x.shape[1]
    kernel += 1
    cube: np.ndarray[Any, Any] = kernel * kernel * kernel
    return cube


@METRICS.register("is")
class InceptionScore(Metric):
    """IS (Salimans et al., 2016): exp of the mean KL between class predictions and their mean, averaged over splits.

    Ten splits, fewer when they would hold less than 500 images.
    """

    splits = 10
    of_predictions = True

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return one result, ``is``; the real images are not looked at."""
        from torch_fidelity.metric_isc import isc_features_to_metric

        if not fake.logits.shape[1]:
            raise EvaluationError(f"{fake.label} predicts no classes: leave the metric 'is' out")
        splits = max(1, min(self.splits, len(fake) // 500))
        found = isc_features_to_metric(fake.logits.double(), splits=splits, shuffle=True, rng_seed=_SEED)
        mean, std = found["inception_score_mean"], found["inception_score_std"]
        settings = f"{splits} split{'s' if splits > 1 else ''}"
        return [MetricResult("is", fake.name("IS", "IS"), mean, "higher", std, settings)]


@METRICS.register("pr")
class PrecisionRecall(Metric):
    """Improved precision and recall (Kynkäänniemi et al., 2019) with 3 neighbours.

    As many real as generated images are used, at most 10,000 of each, drawn with a fixed seed: the radii of the
    neighbourhoods depend on how many there are.
    """

    neighbours = 3
    least = neighbours + 1
    most = 10_000

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return two results, ``precision`` and ``recall``."""
        from torch_fidelity.metric_prc import prc_features_to_metric

        count = min(len(real), len(fake), self.most)
        need(count, self.least, "precision and recall")
        found = prc_features_to_metric(
            some_of(fake.values, count),
            some_of(real.values, count),
            prc_neighborhood=self.neighbours,
            prc_batch_size=1000,
            save_cpu_ram=True,
            verbose=False,
        )
        settings = f"{self.neighbours} neighbours, {count:,} images each"
        return [
            MetricResult(key, fake.name(key, key), found[key], "higher", settings=settings)
            for key in ("precision", "recall")
        ]


@METRICS.register("coverage")
class ModeCoverage(Metric):
    """Classes covered, and how unevenly (cf. Lin et al., 2018, section 4.1), as the classifier sees the images.

    A class is covered when it gets at least a tenth of its share of the real images (Lin et al. have classes of equal
    size); one that no real image is seen as does not count. The divergence is the KL of the predicted classes to
    those that the classifier predicts for the real images, in nats: 0 = the same frequencies. Both say most about
    unconditional generators: a conditional one is asked for every class as often as the data have it.
    """

    of_classes = True
    share = 0.1

    def compute(self, real: Features, fake: Features) -> list[MetricResult]:
        """Return two results, ``modes`` and ``mode-kl``."""
        if not fake.classes:
            raise EvaluationError(
                f"mode coverage needs predictions of the data's own classes, {fake.label} has none; "
                "use the extractor 'classifier' on labelled data"
            )
        made = fake.logits.argmax(1).bincount(minlength=fake.classes).double() / len(fake)
        seen = real.logits.argmax(1).bincount(minlength=fake.classes).double()
        wanted = seen.add(1) / (len(real) + fake.classes)
        covered = int(((seen > 0) & (made >= self.share * seen / len(real))).sum().item())
        kl = sum(p * math.log(p / q) for p, q in zip(made.tolist(), wanted.tolist(), strict=True) if p > 0)
        classes = int((seen > 0).sum().item())
        settings = f"of {classes} classes, covered from {self.share:g} of their share of the real images"
        return [
            MetricResult("modes", fake.name("modes", "modes"), float(covered), "higher", settings=settings),
            MetricResult("mode-kl", fake.name("mode KL", "mode KL"), max(kl, 0.0), "lower"),
        ]


def some_of(values: Tensor, count: int) -> Tensor:
    """Return ``count`` rows of features, the same for every set of as many."""
    if count == len(values):
        return values
    chosen = torch.randperm(len(values), generator=generator(0, "evaluation", "precision-recall"))[:count]
    return values[chosen]


def need(count: int, least: int, what: str) -> None:
    """Refuse fewer images than a metric needs.

    Raises:
        EvaluationError: ``count`` is less than ``least``.
    """
    if count < least:
        raise EvaluationError(f"{what} needs at least {least} real and generated images, got {count}")
