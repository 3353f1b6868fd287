"""What a feature extractor is, and how the one that a recipe names is found."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gancompress.components.registry import EXTRACTORS
from gancompress.errors import EvaluationError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gancompress.data.base import Dataset

__all__ = ["Extractor", "Progress", "build_extractor", "parse_extractor", "resolve_extractor"]

#: ``progress(what, done, total)``, called now and then while something long is computed.
Progress = Callable[[str, int, int], None]


class Extractor(abc.ABC):
    """Images to features and logits, with fixed weights. Subclass it in one file and register it.

    A registered extractor is a class; :meth:`prepare` makes the instance for one dataset, training or loading
    weights where it must. It may never touch global random state.
    """

    #: Inception as FID defines it. Only its numbers may be called FID, KID and IS.
    official: bool = False
    #: number of the dataset's own classes that the logits stand for, 0 when they stand for something else
    classes: int = 0
    #: how images are brought to the extractor's size, for the protocol
    resize: str = "none"

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """Name that is put in brackets behind the name of a metric; two extractors that differ differ in it."""

    @property
    @abc.abstractmethod
    def weights_hash(self) -> str:
        """Hash of the weights."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts to show with the protocol, such as a held-out accuracy."""
        return ()

    @abc.abstractmethod
    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits of images, each image's independent of the others in the batch.

        Args:
            images: uint8, (B, C, H, W), on any device.

        Returns:
            Features (B, d) and logits (B, k), float32, on the extractor's device; k is 0 where it predicts no classes.
        """

    @classmethod
    def available(cls) -> str | None:
        """Return why this extractor cannot be used on this machine, None when it can."""
        return None

    @classmethod
    def knows_classes(cls, option: str = "") -> bool:
        """Whether its logits are of the data's own classes, which some metrics need."""
        return True

    @classmethod
    def classifies(cls, option: str = "") -> bool:
        """Whether it has logits at all, which some metrics need."""
        return True

    @classmethod
    def refuses(cls, dataset: Dataset[Any], option: str = "") -> str | None:
        """Return why this extractor cannot be prepared for these images, None when it can; asked before training."""
        return None

    @classmethod
    @abc.abstractmethod
    def prepare(
        cls,
        dataset: Dataset[Any],
        *,
        option: str = "",
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Extractor:
        """Return the extractor for images like those of ``dataset``.

        Args:
            dataset: the real images of the run.
            option: what follows the colon in ``name:option``.
            device: where features are computed.
            progress: told about anything long.

        Raises:
            EvaluationError: it cannot be used here; the message says what to do.
        """


def parse_extractor(text: str) -> tuple[str, str]:
    """Split ``name`` or ``name:option`` (``inception:download``) into name and option."""
    name, _, option = text.partition(":")
    return name, option


def resolve_extractor(text: str, dataset: Dataset[Any]) -> str:
    """Return the extractor that ``auto`` stands for: Inception if its weights are at hand and fit, else classifier.

    Inception sees the images at 299 pixels, in colour: for grey or very small images its features mean little.
    """
    if text != "auto":
        return text
    fits = dataset.spec.channels == 3 and dataset.spec.resolution >= 32
    return "inception" if fits and EXTRACTORS.get("inception").available() is None else "classifier"


def build_extractor(
    text: str,
    dataset: Dataset[Any],
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Extractor:
    """Return the extractor that a recipe names, ready to be used.

    Args:
        text: ``auto``, a registered name, or ``name:option``.
        dataset: the real images of the run.
        device: where features are computed.
        progress: told about anything long.

    Raises:
        ComponentError: nothing is registered under this name.
        EvaluationError: it cannot be used here.
    """
    name, option = parse_extractor(resolve_extractor(text, dataset))
    found = EXTRACTORS.get(name)
    if not (isinstance(found, type) and issubclass(found, Extractor)):
        raise EvaluationError(f"extractor {name!r} is registered but is no Extractor: subclass it")
    return found.prepare(dataset, option=option, device=device, progress=progress)
