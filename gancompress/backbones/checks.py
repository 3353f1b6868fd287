"""What backbones refuse, each with a message that says how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from gancompress.backbones.base import Backbone, BackboneConfig
from gancompress.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gancompress.data.base import ImageSpec

__all__ = ["SizedBackbone", "conditional_classes", "require_multiple", "require_resolution"]

C = TypeVar("C", bound=BackboneConfig)


def require_resolution(name: str, image: ImageSpec, resolutions: Iterable[int]) -> None:
    """Refuse images that the backbone ``name`` cannot make.

    Raises:
        BackboneError: the resolution is not one of ``resolutions``.
    """
    known = sorted(resolutions)
    if image.resolution in known:
        return
    nearest = min(known, key=lambda size: (abs(size - image.resolution), size))
    raise BackboneError(
        f"{name} makes images of {', '.join(map(str, known))} pixels, these have {image.resolution}: resize the data "
        f"(--set data.resolution={nearest}) or choose another backbone"
    )


def conditional_classes(name: str, image: ImageSpec, conditional: bool) -> int:
    """Return the number of classes to condition on, 0 when ``conditional`` is false.

    Raises:
        BackboneError: conditioning is asked for and the data has fewer than two classes.
    """
    if not conditional:
        return 0
    if image.num_classes < 2:
        found = "no labels" if image.num_classes == 0 else f"one class only ({image.classes[0]!r})"
        raise BackboneError(
            f"a conditional {name} needs at least two classes and the data has {found}: "
            "give labelled data or --set model.conditional=false"
        )
    return image.num_classes


def require_multiple(key: str, channels: int, divisor: int, why: str) -> None:
    """Refuse a width that cannot be split.

    Raises:
        BackboneError: ``channels`` is not a multiple of ``divisor``.
    """
    if channels % divisor == 0:
        return
    nearest = max(divisor, round(channels / divisor) * divisor)
    raise BackboneError(
        f"{key}={channels} cannot be split: {why}, so it must be a multiple of {divisor} (--set model.{key}={nearest})"
    )


class SizedBackbone(Backbone[C]):
    """A backbone for some sizes of images, with classes where its config says ``conditional``."""

    #: what messages call it
    _name: ClassVar[str]
    #: image sizes that it makes
    _sizes: ClassVar[Collection[int]]

    def __init__(self, config: C, image: ImageSpec) -> None:
        super().__init__(config, image)
        settings: Any = config
        require_resolution(self._name, image, self._sizes)
        self._classes = conditional_classes(self._name, image, settings.conditional)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Image sizes that this backbone can make."""
        return tuple(self._sizes)

    @property
    def conditional(self) -> bool:
        """Whether the networks take class labels."""
        return self._classes > 0
