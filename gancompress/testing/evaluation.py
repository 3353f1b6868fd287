"""What every metric and every feature extractor must do.

A metric gives the same number for the same images, worse for worse ones, under an honest name. An extractor gives the
same features for an image whatever is beside it, under its own name.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch

from gancompress.backbones.stylegan2 import StyleGAN2, StyleGAN2Config
from gancompress.components.registry import EXTRACTORS, METRICS
from gancompress.data.base import ImageSpec
from gancompress.data.shapes import Shapes, ShapesConfig
from gancompress.errors import EvaluationError
from gancompress.evaluation.extractors import Extractor
from gancompress.evaluation.features import Features
from gancompress.evaluation.generator_metrics import GeneratorMetric
from gancompress.evaluation.metrics import Metric, MetricResult
from gancompress.evaluation.sampler import open_sampler
from gancompress.evaluation.sandbox import forked_rng
from gancompress.testing.conformance import Once, Suite, promise, require, skip_check
from gancompress.testing.datasets import from_two_random_states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gancompress.backbones.base import Generator
    from gancompress.data.base import Dataset

__all__ = ["ExtractorSuite", "MetricSuite"]

_IMAGES, _DIMENSIONS, _CLASSES = 256, 8, 4
_LABEL = "kit-0000"


def _toy_features(seed: int, *, count: int = _IMAGES, away: float = 0.0) -> Features:
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
        self.real, self.fake = _toy_features(0), _toy_features(1)
        self.measured = Once(lambda: self._compute(self.real, self.fake))

    def _compute(self, real: Features, fake: Features) -> list[MetricResult]:
        if isinstance(self.target, type) and issubclass(self.target, GeneratorMetric):
            skip_check("it is of the generator itself, not of features")
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
        found = self.measured.get()
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
        for result in self.measured.need("results"):
            require(
                _LABEL in result.name,
                f"{result.name!r} does not say that its features are those of {_LABEL}: name it with fake.name(…)",
            )

    @promise
    def deterministic(self) -> None:
        """The same images give the same numbers."""
        before, again = self.measured.need("results"), self._compute(self.real, self.fake)
        require(before == again, f"{_shown(before)}, then {_shown(again)}")

    @promise
    def random_state(self) -> None:
        """No number depends on a global random state, and none is moved."""
        self.measured.need("results")
        instead = "use a generator of its own, with a fixed seed"
        one, other = from_two_random_states(lambda: self._compute(self.real, self.fake), instead)
        require(one == other, f"{_shown(one)}, then {_shown(other)} with another global random state")

    @promise
    def order(self) -> None:
        """The order of the images does not count, up to the spread that it says."""
        before = {result.key: result for result in self.measured.need("results")}
        after = self._values(_shuffled(self.real, 3), _shuffled(self.fake, 4))
        for key, result in before.items():
            # a metric over random subsets says how much they differ
            bound = 3 * (result.std or 0.0) + 1e-4 * max(1.0, abs(result.value))
            off = abs(after[key].value - result.value)
            require(off <= bound, f"{key} is {result.value:.6g}, and {after[key].value:.6g} in another order")

    @promise
    def identical(self) -> None:
        """The same images score as they should, worse images worse."""
        self.measured.need("results")
        same, worse = self._values(self.real, self.real), self._values(self.real, _toy_features(1, away=1.0))
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
        self.measured.need("results")
        for features, what in ((self.real, "real"), (self.fake, "generated")):
            fresh = _toy_features(0 if features is self.real else 1)
            same = torch.equal(features.values, fresh.values) and torch.equal(features.logits, fresh.logits)
            require(same, f"it changes the features of the {what} images")

    @promise
    def too_few(self) -> None:
        """From too few images it refuses with an EvaluationError, or gives a number."""
        self.measured.need("results")
        for count in (1, 2):
            few = _toy_features(1, count=count)
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

    @promise
    def of_a_generator(self) -> None:
        """A metric of generators gives the same finite numbers whatever the batch size, and names its network."""
        if not issubclass(self.target, GeneratorMetric):
            skip_check("it is of features, not of the generator itself")
        if (reason := self.target.available()) is not None:
            skip_check(f"it cannot be used here: {reason}")
        network = _toy_generator()
        if (reason := self.target.refuses(network)) is not None:
            skip_check(f"it {reason}")
        found = {}
        for size in (3, 8):
            metric = self.target()
            with open_sampler(network, seed=1, batch_size=size) as sampler:
                results = metric.measure(sampler, 8, size)
            require(bool(results), "measure() gives no results")
            require(bool(metric.label and metric.weights_hash), "label and weights_hash do not say which network looks")
            found[size] = {result.key: result.value for result in results}
        for key, value in found[3].items():
            require(math.isfinite(value), f"{key} is {value}")
            off = abs(value - found[8][key])
            require(
                off <= 1e-3 * max(1.0, abs(value)), f"{key} is {value:.6g} in batches of 3, {found[8][key]:.6g} of 8"
            )


def _toy_generator() -> Generator:
    with forked_rng(3):
        config = StyleGAN2Config(channels=8, latent_dim=8, style_dim=8, mapping_layers=2)
        return StyleGAN2(config, ImageSpec(3, 16)).generator().eval()


def _shuffled(features: Features, seed: int) -> Features:
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(features, values=features.values[order], logits=features.logits[order])


def _shown(results: list[MetricResult]) -> str:
    return ", ".join(f"{result.key} {result.value!r}" for result in results)


_LOOKED_AT = 12


def _drawn() -> Dataset[Any]:
    return Shapes(ShapesConfig(resolution=32, images=96, classes=4))


class ExtractorSuite(Suite):
    """All checks of one extractor.

    Args:
        component: the class, or a registered name.
        option: what follows the colon in ``name:option``.
        dataset: real images to prepare it for; default: 96 drawn shapes of 32 pixels, RGB, in 4 classes.
    """

    registry = EXTRACTORS

    def __init__(self, component: str | type, option: str = "", *, dataset: Dataset[Any] | None = None) -> None:
        super().__init__(component)
        self.option = option
        self.dataset = Once(_drawn if dataset is None else lambda: dataset)
        self.images: Once[Tensor] = Once(lambda: self.dataset.get().read(torch.arange(_LOOKED_AT)).images)
        self.prepared = Once(self._prepare)

    def _prepare(self) -> Extractor:
        reason = self.target.available()
        if reason is not None and not self.option:
            skip_check(f"it cannot be used here: {reason}")
        made = self.target.prepare(self.dataset.get(), option=self.option)
        require(isinstance(made, Extractor), f"prepare() gives a {type(made).__name__}, expected an Extractor")
        found: Extractor = made
        return found

    @promise
    def prepares(self) -> None:
        """It is made for a dataset, or says why it cannot be used here."""
        reason = self.target.available()
        require(reason is None or bool(str(reason).strip()), "available() gives an empty reason")
        self.prepared.get()

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        values, logits = self.prepared.need("prepares").features(images)
        return values, logits

    @promise
    def shapes(self) -> None:
        """Uint8 images give finite float32 features (B, d) and logits (B, k)."""
        images = self.images.get()
        for found, what in zip(self._features(images), ("features", "logits"), strict=True):
            require(isinstance(found, torch.Tensor), f"{what} are a {type(found).__name__}, expected a tensor")
            good = found.ndim == 2 and len(found) == len(images) and found.shape[1] > 0
            require(good, f"{what} of {len(images)} images have shape {tuple(found.shape)}, expected two axes")
            require(found.dtype is torch.float32, f"{what} are {found.dtype}, expected float32")
            require(bool(found.isfinite().all()), f"{what} are not finite")
            require(not found.requires_grad, f"{what} carry a graph: compute them under torch.no_grad()")
        extractor = self.prepared.need("prepares")
        logits = self._features(images)[1]
        require(
            extractor.classes in (0, logits.shape[1]),
            f"classes is {extractor.classes}, there are {logits.shape[1]} logits: it is 0 unless they are the classes "
            "of the dataset",
        )

    @promise
    def named(self) -> None:
        """Label and hash of the weights are words that never change."""
        extractor = self.prepared.need("prepares")
        again = self.target.prepare(self.dataset.get(), option=self.option)
        for name in ("label", "weights_hash"):
            word = getattr(extractor, name)
            require(isinstance(word, str) and word and word == word.strip(), f"{name} is {word!r}, expected a word")
            same = getattr(again, name)
            require(same == word, f"{name} is {word!r}, and {same!r} when it is prepared again")

    @promise
    def each_by_itself(self) -> None:
        """An image's features do not depend on the others in the batch."""
        images = self.images.get()
        order = torch.arange(len(images)).flip(0)
        for whole, alone, turned, what in zip(
            self._features(images),
            map(torch.cat, zip(*(self._features(image) for image in torch.split(images, 1)), strict=True)),
            self._features(images[order]),
            ("features", "logits"),
            strict=True,
        ):
            bound = 1e-4 * max(1.0, float(whole.abs().max()))
            off = max(float((whole - alone).abs().max()), float((whole[order] - turned).abs().max()))
            require(off <= bound, f"{what} differ by {off:.3g} with the other images in the batch: use eval mode")

    @promise
    def tells_apart(self) -> None:
        """Images that differ have features that differ."""
        values, _ = self._features(self.images.get())
        require(bool((values - values[:1]).abs().amax(1)[1:].max() > 0), "all images have the same features")

    @promise
    def random_state(self) -> None:
        """Nothing depends on a global random state, and none is moved."""
        images = self.images.get()
        self.prepared.need("prepares")

        def found() -> tuple[str, Tensor]:
            made = self.target.prepare(self.dataset.get(), option=self.option)
            values, _ = made.features(images)
            return made.weights_hash, values

        one, other = from_two_random_states(found, "use a generator of its own, with a fixed seed")
        same = one[0] == other[0] and torch.allclose(one[1], other[1], rtol=1e-4, atol=1e-5)
        require(same, "its features depend on a global random state")

    @promise
    def untouched(self) -> None:
        """The images stay as they are."""
        images = self.images.get()
        before = images.clone()
        self._features(images)
        require(torch.equal(images, before), "it changes the images")
