"""What every pair of networks must do: shapes, determinism, gradients, precision, state, and what it refuses."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gancompress.backbones.base import Backbone
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.testing import networks
from gancompress.testing.conformance import Check, ConfiguredSuite, Once, promise, promised, require
from gancompress.testing.networks import CLASSES, Case, build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["BackboneSuite"]

#: image sizes that are tried to find one that a backbone can make
_SIZES: Final = (16, 32, 64, 28, 48, 8, 24, 96, 128, 256, 512, 1024)
#: what is looked at; the first three at every size if that is wanted, the others at the smallest
_LOOKS: Final[Mapping[str, Callable[[Case], None]]] = {
    "shapes": networks.shapes,
    "gradients": networks.gradients,
    "prunable-weights": networks.listed_weights,
    "seed": networks.seeded,
    "samples-differ": networks.samples_differ,
    "conditioning": networks.conditioning,
    "widths": networks.narrower,
    "stable-names": networks.stable_names,
    "state-round-trip": networks.round_trip,
    "deep-copy": networks.deep_copy,
    "channels-last": networks.channels_last,
    "bf16": networks.half_precision,
    "evaluation": networks.leaves_no_trace,
    "refusals": networks.refuses,
    "compiles": networks.compiles,
}
_EVERY_SIZE: Final = ("shapes", "gradients", "prunable-weights")
_SLOW: Final = ("compiles",)


class BackboneSuite(ConfiguredSuite):
    """All checks of one backbone.

    Args:
        component: the class, or a registered name.
        settings: its settings; narrow networks are quick to judge. With a setting ``conditional`` it is judged with
            and without classes.
        every_size: judge shapes and gradients at every resolution that it makes, not at the smallest alone.
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
        looks = [
            Check(
                name,
                promised(look),
                partial(self._run, look, every_size=self.every_size and name in _EVERY_SIZE),
                name in _SLOW,
            )
            for name, look in _LOOKS.items()
        ]
        return [*super().checks(), *looks]

    def _run(self, look: Callable[[Case], None], *, every_size: bool) -> None:
        cases = self.cases.need("builds")
        smallest = min(case.resolution for case in cases)
        for case in cases:
            if every_size or case.resolution == smallest:
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
            return [Case(self, size, kind) for size in sorted(first.resolutions) for kind in kinds]
        raise AssertionError(f"no image of {', '.join(map(str, sorted(_SIZES)))} pixels can be made: {refused}")
