"""What every metric must do: the same number for the same images, worse for worse ones, under an honest name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from gancompress.components.registry import METRICS
from gancompress.errors import EvaluationError
from gancompress.evaluation.features import Features
from gancompress.evaluation.metrics import Metric, MetricResult
from gancompress.testing.conformance import Once, Suite, promise, require
from gancompress.testing.datasets import from_two_random_states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["MetricSuite", "toy_features"]

_IMAGES, _DIMENSIONS, _CLASSES = 256, 8, 4
_LABEL = "kit-0000"


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


class MetricSuite(Suite):
    """All checks of one metric.

    Args:
        component: the class, or a registered name.
        identical: by key, the value for two sets with the same images (0 for a distance).
    """

    registry = METRICS

    def __init__(self, component: str | type, *, identical: Mapping[str, float] | None = None) -> None:
        super().__init__(component)
        self.wanted = identical or {}
        self.real, self.fake = toy_features(0), toy_features(1)
        self.results = Once(lambda: self._compute(self.real, self.fake))

    def _compute(self, real: Features, fake: Features) -> list[MetricResult]:
        metric = self.target()
        require(isinstance(metric, Metric), f"{type(metric).__name__} is no Metric: subclass it")
        with torch.no_grad():
            found = metric.compute(real, fake)
        require(isinstance(found, list) and found, f"compute() gives {found!r}, expected a list of results")
        for result in found:
            require(isinstance(result, MetricResult), f"compute() gives a {type(result).__name__}, no MetricResult")
        return list(found)

    def _values(self, real: Features, fake: Features) -> dict[str, MetricResult]:
        return {result.key: result for result in self._compute(real, fake)}

    @promise
    def results(self) -> None:
        """It gives finite numbers, each with a key, a name and a direction."""
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

    @promise
    def honest_names(self) -> None:
        """On other features than Inception's a name says whose they are."""
        for result in self.results.need("results"):
            require(
                _LABEL in result.name,
                f"{result.name!r} does not say that its features are those of {_LABEL}: name it with fake.name(…)",
            )

    @promise
    def deterministic(self) -> None:
        """The same images give the same numbers."""
        before, again = self.results.need("results"), self._compute(self.real, self.fake)
        require(before == again, f"{_shown(before)}, then {_shown(again)}")

    @promise
    def random_state(self) -> None:
        """No number depends on a global random state, and none is moved."""
        self.results.need("results")
        instead = "use a generator of its own, with a fixed seed"
        one, other = from_two_random_states(lambda: self._compute(self.real, self.fake), instead)
        require(one == other, f"{_shown(one)}, then {_shown(other)} with another global random state")

    @promise
    def order(self) -> None:
        """The order of the images does not count, up to the spread that it says."""
        before = {result.key: result for result in self.results.need("results")}
        after = self._values(_shuffled(self.real, 3), _shuffled(self.fake, 4))
        for key, result in before.items():
            # a metric over random subsets says how much they differ
            bound = 3 * (result.std or 0.0) + 1e-4 * max(1.0, abs(result.value))
            off = abs(after[key].value - result.value)
            require(off <= bound, f"{key} is {result.value:.6g}, and {after[key].value:.6g} in another order")

    @promise
    def identical(self) -> None:
        """The same images score as they should, worse images worse."""
        self.results.need("results")
        same, worse = self._values(self.real, self.real), self._values(self.real, toy_features(1, away=1.0))
        for key, wanted in self.wanted.items():
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

    @promise
    def untouched(self) -> None:
        """The features stay as they are."""
        self.results.need("results")
        for features, what in ((self.real, "real"), (self.fake, "generated")):
            fresh = toy_features(0 if features is self.real else 1)
            same = torch.equal(features.values, fresh.values) and torch.equal(features.logits, fresh.logits)
            require(same, f"it changes the features of the {what} images")

    @promise
    def too_few(self) -> None:
        """From too few images it refuses with an EvaluationError, or gives a number."""
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
