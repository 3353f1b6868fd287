"""What every metric must do: the same number for the same images, worse for worse ones, under an honest name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from gancompress.components.registry import METRICS
from gancompress.errors import EvaluationError
from gancompress.evaluation.features import Features
from gancompress.evaluation.metrics import Metric, MetricResult
from gancompress.testing.conformance import (
    Check,
    Conformance,
    Once,
    Subject,
    check_documented,
    chosen,
    require,
    run_checks,
)
from gancompress.testing.datasets import from_two_random_states

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

__all__ = ["check_metric", "metric_checks", "toy_features"]

_IMAGES, _DIMENSIONS, _CLASSES = 256, 8, 4
_LABEL = "kit-0000"


def check_metric(
    metric: str | type[Metric],
    *,
    identical: Mapping[str, float] | None = None,
    skip: Collection[str] = (),
    slow: bool = False,
) -> Conformance:
    """Hold a metric to its contract.

    Args:
        metric: the class, or a registered name.
        identical: by key, the value for two sets with the same images (0 for a distance).
        skip: names of checks to leave out.
        slow: run the slow checks too (there are none yet).

    Returns:
        The report.

    Raises:
        ConformanceError: at least one check failed; the message lists all that did.
    """
    checks = metric_checks(metric, identical=identical, skip=skip, slow=slow)
    return run_checks(_subject(metric).label, checks).require()


def metric_checks(
    metric: str | type[Metric],
    *,
    identical: Mapping[str, float] | None = None,
    skip: Collection[str] = (),
    slow: bool = False,
) -> list[Check]:
    """Return the checks of :func:`check_metric`, for ``pytest.mark.parametrize("check", …, ids=str)``.

    Nothing is computed, and a metric given by name is not even imported, before the first of them is called.
    """
    return chosen(_Suite(_subject(metric), {} if identical is None else identical).checks(), skip, slow)


def _subject(metric: str | type[Metric]) -> Subject:
    return Subject(METRICS, metric)


def toy_features(seed: int, *, count: int = _IMAGES, away: float = 0.0) -> Features:
    """Return features like those of ``count`` images of four classes.

    Args:
        seed: of the images.
        count: how many.
        away: how far from good images, 0 for good ones: all are of one class and far off from 1 on.
    """
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % _CLASSES
    labels = torch.where(torch.rand(count, generator=rng) < away, 0, labels)
    noise = torch.randn(count, _DIMENSIONS, generator=rng)
    values = noise + 2 * torch.eye(_DIMENSIONS)[labels] + 4 * away
    logits = 4 * torch.eye(_CLASSES)[labels] + 0.1 * torch.randn(count, _CLASSES, generator=rng)
    return Features(values, logits, _LABEL, official=False, classes=_CLASSES)


class _Suite:
    """All checks of one metric."""

    def __init__(self, subject: Subject, identical: Mapping[str, float]) -> None:
        self.subject = subject
        self.identical = identical
        self.real, self.fake = toy_features(0), toy_features(1)
        self.results = Once(lambda: self._compute(self.real, self.fake))

    def checks(self) -> list[Check]:
        return [
            Check("documented", "the class says what it measures", lambda: check_documented(self.subject)),
            Check("results", "it gives finite numbers, each with a key, a name and a direction", self._results),
            Check("honest-names", "on other features than Inception's a name says whose they are", self._names),
            Check("deterministic", "the same images give the same numbers", self._deterministic),
            Check("random-state", "no number depends on a global random state, and none is moved", self._random),
            Check("order", "the order of the images does not count, up to the spread that it says", self._order),
            Check("identical", "the same images score as they should, worse images worse", self._identical),
            Check("untouched", "the features stay as they are", self._untouched),
            Check("too-few", "from too few images it refuses with an EvaluationError, or gives a number", self._few),
        ]

    def _compute(self, real: Features, fake: Features) -> list[MetricResult]:
        metric = self.subject.type()
        require(isinstance(metric, Metric), f"{type(metric).__name__} is no Metric: subclass it")
        with torch.no_grad():
            found = metric.compute(real, fake)
        require(isinstance(found, list) and found, f"compute() gives {found!r}, expected a list of results")
        for result in found:
            require(isinstance(result, MetricResult), f"compute() gives a {type(result).__name__}, no MetricResult")
        return list(found)

    def _values(self, real: Features, fake: Features) -> dict[str, MetricResult]:
        return {result.key: result for result in self._compute(real, fake)}

    def _results(self) -> None:
        found = self.results.get()
        keys = [result.key for result in found]
        require(len(set(keys)) == len(keys), f"two results have one key: {keys}")
        for result in found:
            require(bool(result.key) and result.key == result.key.strip(), f"{result.key!r} is no key")
            require(bool(result.name), f"{result.key} has no name")
            require(result.better in ("lower", "higher"), f"{result.key}: better is {result.better!r}")
            require(
                isinstance(result.value, float), f"{result.key} is a {type(result.value).__name__}, expected a float"
            )
            require(math.isfinite(result.value), f"{result.key} is {result.value}")

    def _names(self) -> None:
        for result in self.results.need("results"):
            require(
                _LABEL in result.name,
                f"{result.name!r} does not say that its features are those of {_LABEL}: name it with fake.name(…)",
            )

    def _deterministic(self) -> None:
        before, again = self.results.need("results"), self._compute(self.real, self.fake)
        require(before == again, f"{_shown(before)}, then {_shown(again)}")

    def _random(self) -> None:
        self.results.need("results")
        instead = "use a generator of its own, with a fixed seed"
        one, other = from_two_random_states(lambda: self._compute(self.real, self.fake), instead)
        require(one == other, f"{_shown(one)}, then {_shown(other)} with another global random state")

    def _order(self) -> None:
        before = {result.key: result for result in self.results.need("results")}
        after = self._values(_shuffled(self.real, 3), _shuffled(self.fake, 4))
        for key, result in before.items():
            # a metric over random subsets says how much they differ
            bound = 3 * (result.std or 0.0) + 1e-4 * max(1.0, abs(result.value))
            off = abs(after[key].value - result.value)
            require(off <= bound, f"{key} is {result.value:.6g}, and {after[key].value:.6g} in another order")

    def _identical(self) -> None:
        self.results.need("results")
        same, worse = self._values(self.real, self.real), self._values(self.real, toy_features(1, away=1.0))
        for key, wanted in self.identical.items():
            require(key in same, f"there is no result {key!r}; there are: {', '.join(same)}")
            bound = 3 * (same[key].std or 0.0) + 1e-4 * max(1.0, abs(wanted))
            off = abs(same[key].value - wanted)
            require(off <= bound, f"{key} of the same images is {same[key].value:.6g}, expected {wanted:g}")
        for key, result in same.items():
            require(
                result.is_better_than(worse[key].value),
                f"{key} of the same images is {result.value:.6g}, of images far off and of one class "
                f"{worse[key].value:.6g}, and {result.better} is better",
            )

    def _untouched(self) -> None:
        self.results.need("results")
        for features, what in ((self.real, "real"), (self.fake, "generated")):
            fresh = toy_features(0 if features is self.real else 1)
            same = torch.equal(features.values, fresh.values) and torch.equal(features.logits, fresh.logits)
            require(same, f"it changes the features of the {what} images")

    def _few(self) -> None:
        self.results.need("results")
        for count in (1, 2):
            few = toy_features(1, count=count)
            try:
                found = self._compute(few, few)
            except EvaluationError:
                continue
            except Exception as error:
                raise AssertionError(
                    f"from {count} image{'s' if count > 1 else ''} it raises {type(error).__name__} ({error}), "
                    "expected EvaluationError or a number"
                ) from error
            bad = [result.key for result in found if not math.isfinite(result.value)]
            require(not bad, f"{', '.join(bad)} of {count} images is not finite: raise an EvaluationError")


def _shuffled(features: Features, seed: int) -> Features:
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))

    def moved(tensor: Tensor) -> Tensor:
        return tensor[order]

    return Features(moved(features.values), moved(features.logits), features.label, features.official, features.classes)


def _shown(results: list[MetricResult]) -> str:
    return ", ".join(f"{result.key} {result.value!r}" for result in results)
