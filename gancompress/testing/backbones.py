"""What every pair of networks must do: shapes, determinism, gradients, precision, state, and what it refuses."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gancompress.backbones.base import Backbone
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.testing import networks
from gancompress.testing.conformance import Check, ConfiguredSuite, Once, is_promise, promise, require
from gancompress.testing.networks import CLASSES, Case, build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["BackboneSuite"]

#: image sizes that are tried to find one that a backbone can make
_SIZES: Final = (16, 32, 64, 28, 48, 8, 24, 96, 128, 256, 512, 1024)
#: looked at in every size if that is wanted, all else in the smallest only
_EVERY_SIZE: Final = ("shapes", "gradients", "prunable_weights")


class BackboneSuite(ConfiguredSuite):
    """All checks of one backbone.

    Args:
        component: the class, or a registered name.
        settings: its settings; narrow networks are quick to judge. With a setting ``conditional`` it is judged with
            and without classes.
        every_size: judge shapes and gradients at every resolution that it makes (with classes, if it can), not at the
            smallest alone.
    """

    registry = BACKBONES

    def __init__(
        self, component: str | type, settings: Mapping[str, Any] | None = None, *, every_size: bool = False
    ) -> None:
        super().__init__(component, settings)
        self.cases = Once(self._cases)
        self.every_size = every_size

    def checks(self) -> list[Check]:
        """Return every check, each of which looks at networks with and without classes."""
        looks = filter(is_promise, vars(networks).values())
        return [
            *super().checks(),
            *(dataclasses.replace(self.bound(look), run=partial(self._run, look)) for look in looks),
        ]

    def _run(self, look: Callable[[Case], None]) -> None:
        cases = self.cases.need("builds")
        smallest = min(case.resolution for case in cases)
        every_size = self.every_size and look.__name__ in _EVERY_SIZE
        for case in cases:
            # beyond the smallest, classes make no difference that the smallest did not show
            if case.resolution == smallest or (every_size and case.conditional is cases[-1].conditional):
                try:
                    look(case)
                except AssertionError as error:
                    raise AssertionError(f"{case}: {error}") from error

    @promise
    def builds(self) -> None:
        """It can be built, and lists the resolutions that it makes."""
        for case in self.cases.get():
            backbone = case.backbone()
            require(isinstance(backbone, Backbone), f"{type(backbone).__name__} is no Backbone: subclass it")
            require(
                case.resolution in backbone.resolutions,
                f"{case}: it was built, but its resolutions are {backbone.resolutions}",
            )
            require(backbone.conditional is case.conditional, f"{case}: conditional is {backbone.conditional!r}")

    def _cases(self) -> list[Case]:
        asked = (False, True) if "conditional" in self.target.Config.model_fields else (None,)
        refused = "it makes none of the usual sizes"
        for size in _SIZES:
            # which sizes there are does not depend on classes; whether there are classes may be the backbone's to say
            try:
                first = build(self, ImageSpec(3, size, CLASSES), bool(asked[0]))
            except BackboneError as error:
                refused = str(error)
                continue
            if size not in first.resolutions:
                continue
            kinds = [first.conditional] if asked == (None,) else [False, True]
            # colour with classes, grey without where it makes that, so that both are covered
            channels = {True: 3, False: 1 if self._takes_grey(size) else 3}
            return [Case(self, size, kind, channels[kind]) for size in sorted(first.resolutions) for kind in kinds]
        raise AssertionError(f"no image of {', '.join(map(str, sorted(_SIZES)))} pixels can be made: {refused}")

    def _takes_grey(self, size: int) -> bool:
        try:
            build(self, ImageSpec(1, size, CLASSES), False)
        except BackboneError:
            return False
        return True
