"""What every feature extractor must do: the same features for an image whatever is beside it, under its own name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gancompress.components.registry import EXTRACTORS
from gancompress.data.shapes import Shapes, ShapesConfig
from gancompress.evaluation.extractors import Extractor
from gancompress.testing.conformance import (
    Check,
    Conformance,
    Once,
    Subject,
    check_documented,
    chosen,
    require,
    run_checks,
    skip_check,
)
from gancompress.testing.datasets import from_two_random_states

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor

    from gancompress.data.base import Dataset

__all__ = ["check_extractor", "extractor_checks"]

_LOOKED_AT = 12


def check_extractor(
    extractor: str | type[Extractor],
    option: str = "",
    *,
    dataset: Dataset[Any] | None = None,
    skip: Collection[str] = (),
    slow: bool = False,
) -> Conformance:
    """Hold a feature extractor to its contract.

    Args:
        extractor: the class, or a registered name.
        option: what follows the colon in ``name:option``.
        dataset: real images to prepare it for; default: 96 drawn shapes of 32 pixels, RGB, in 4 classes.
        skip: names of checks to leave out.
        slow: run the slow checks too (there are none yet).

    Returns:
        The report.

    Raises:
        ConformanceError: at least one check failed; the message lists all that did.
    """
    checks = extractor_checks(extractor, option, dataset=dataset, skip=skip, slow=slow)
    return run_checks(Subject(EXTRACTORS, extractor).label, checks).require()


def extractor_checks(
    extractor: str | type[Extractor],
    option: str = "",
    *,
    dataset: Dataset[Any] | None = None,
    skip: Collection[str] = (),
    slow: bool = False,
) -> list[Check]:
    """Return the checks of :func:`check_extractor`, for ``pytest.mark.parametrize("check", …, ids=str)``.

    Nothing is computed, and an extractor given by name is not even imported, before the first of them is called.
    """
    return chosen(_Suite(Subject(EXTRACTORS, extractor), option, dataset).checks(), skip, slow)


def _drawn() -> Dataset[Any]:
    return Shapes(ShapesConfig(resolution=32, images=96, classes=4))


class _Suite:
    """All checks of one extractor."""

    def __init__(self, subject: Subject, option: str, dataset: Dataset[Any] | None) -> None:
        self.subject, self.option = subject, option
        self.dataset = Once(_drawn if dataset is None else lambda: dataset)
        self.images: Once[Tensor] = Once(lambda: self.dataset.get().read(torch.arange(_LOOKED_AT)).images)
        self.prepared = Once(self._prepare)

    def checks(self) -> list[Check]:
        return [
            Check("documented", "the class says whose features these are", lambda: check_documented(self.subject)),
            Check("prepares", "it is made for a dataset, or says why it cannot be used here", self._prepares),
            Check("shapes", "uint8 images give finite float32 features (B, d) and logits (B, k)", self._shapes),
            Check("named", "label and hash of the weights are words that never change", self._named),
            Check("each-by-itself", "an image's features do not depend on the others in the batch", self._by_itself),
            Check("tells-apart", "images that differ have features that differ", self._tells_apart),
            Check("random-state", "nothing depends on a global random state, and none is moved", self._random),
            Check("untouched", "the images stay as they are", self._untouched),
        ]

    def _prepare(self) -> Extractor:
        reason = self.subject.type.available()
        if reason is not None and not self.option:
            skip_check(f"it cannot be used here: {reason}")
        made = self.subject.type.prepare(self.dataset.get(), option=self.option)
        require(isinstance(made, Extractor), f"prepare() gives a {type(made).__name__}, expected an Extractor")
        found: Extractor = made
        return found

    def _prepares(self) -> None:
        reason = self.subject.type.available()
        require(reason is None or bool(str(reason).strip()), "available() gives an empty reason")
        self.prepared.get()

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        values, logits = self.prepared.need("prepares").features(images)
        return values, logits

    def _shapes(self) -> None:
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

    def _named(self) -> None:
        extractor = self.prepared.need("prepares")
        again = self.subject.type.prepare(self.dataset.get(), option=self.option)
        for name in ("label", "weights_hash"):
            word = getattr(extractor, name)
            require(isinstance(word, str) and word and word == word.strip(), f"{name} is {word!r}, expected a word")
            same = getattr(again, name)
            require(same == word, f"{name} is {word!r}, and {same!r} when it is prepared again")

    def _by_itself(self) -> None:
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

    def _tells_apart(self) -> None:
        values, _ = self._features(self.images.get())
        require(bool((values - values[:1]).abs().amax(1)[1:].max() > 0), "all images have the same features")

    def _random(self) -> None:
        images = self.images.get()
        self.prepared.need("prepares")

        def found() -> tuple[str, Tensor]:
            made = self.subject.type.prepare(self.dataset.get(), option=self.option)
            values, _ = made.features(images)
            return made.weights_hash, values

        one, other = from_two_random_states(found, "use a generator of its own, with a fixed seed")
        same = one[0] == other[0] and torch.allclose(one[1], other[1], rtol=1e-4, atol=1e-5)
        require(same, "its features depend on a global random state")

    def _untouched(self) -> None:
        images = self.images.get()
        before = images.clone()
        self._features(images)
        require(torch.equal(images, before), "it changes the images")
