"""What every feature extractor must do: the same features for an image whatever is beside it, under its own name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gancompress.components.registry import EXTRACTORS
from gancompress.data.shapes import Shapes, ShapesConfig
from gancompress.evaluation.extractors import Extractor
from gancompress.testing.conformance import Once, Suite, promise, require, skip_check
from gancompress.testing.datasets import from_two_random_states

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.data.base import Dataset

__all__ = ["ExtractorSuite"]

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
