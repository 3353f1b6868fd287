"""What every pair of networks must do: shapes, determinism, gradients, precision, state, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancompress.backbones.base import Backbone
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.testing import networks
from gancompress.testing.conformance import (
    Check,
    Conformance,
    Once,
    Subject,
    check_documented,
    check_strict,
    chosen,
    require,
    run_checks,
)
from gancompress.testing.networks import CLASSES, Case, build

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["backbone_checks", "check_backbone"]

#: image sizes that are tried to find one that a backbone can make
_SIZES = (16, 32, 64, 28, 48, 8, 24, 96, 128, 256, 512, 1024)


def check_backbone(
    backbone: str | type[Backbone[Any]],
    settings: Mapping[str, Any] | None = None,
    *,
    every_size: bool = False,
    skip: Collection[str] = (),
    slow: bool = False,
) -> Conformance:
    """Hold a backbone to its contract.

    Args:
        backbone: the class, or a registered name.
        settings: its settings; narrow networks are quick to judge. With a setting ``conditional`` it is judged with
            and without classes.
        every_size: judge shapes and gradients at every resolution that it makes, not at the smallest alone.
        skip: names of checks to leave out.
        slow: run the slow checks too (``compiles``).

    Returns:
        The report.

    Raises:
        ConformanceError: at least one check failed; the message lists all that did.
    """
    checks = backbone_checks(backbone, settings, every_size=every_size, skip=skip, slow=slow)
    return run_checks(_subject(backbone, settings).label, checks).require()


def backbone_checks(
    backbone: str | type[Backbone[Any]],
    settings: Mapping[str, Any] | None = None,
    *,
    every_size: bool = False,
    skip: Collection[str] = (),
    slow: bool = False,
) -> list[Check]:
    """Return the checks of :func:`check_backbone`, for ``pytest.mark.parametrize("check", …, ids=str)``.

    Nothing is built, and a backbone given by name is not even imported, before the first of them is called.
    """
    return chosen(_Suite(_subject(backbone, settings), every_size).checks(), skip, slow)


def _subject(backbone: str | type[Backbone[Any]], settings: Mapping[str, Any] | None) -> Subject:
    return Subject(BACKBONES, backbone, {} if settings is None else settings)


class _Suite:
    """All checks of one backbone."""

    def __init__(self, subject: Subject, every_size: bool) -> None:
        self.subject = subject
        self.cases = Once(self._cases)
        self.every_size = every_size

    def checks(self) -> list[Check]:
        return [
            Check(
                "documented", "the class and every setting say what they are", lambda: check_documented(self.subject)
            ),
            Check("strict-settings", "unknown settings are errors, known ones never change", self._strict),
            Check("builds", "it can be built, and lists the resolutions that it makes", self._builds),
            self._all("shapes", "images and logits have the shape, type and range of the contract", networks.shapes),
            self._all("gradients", "gradients reach every weight of both networks", networks.gradients),
            self._all("prunable-weights", "every layer is listed, one of them as the output", networks.listed_weights),
            self._each("seed", "the seed decides every weight, and nothing else does", networks.seeded),
            self._each("samples-differ", "other inputs give other outputs", networks.samples_differ),
            self._each("conditioning", "classes have an effect when asked for, and only then", networks.conditioning),
            self._each("widths", "a narrower network has fewer weights, the other one as many", networks.narrower),
            self._each("stable-names", "names of weights do not depend on spectral norm", networks.stable_names),
            self._each("state-round-trip", "a saved and loaded state gives the same outputs", networks.round_trip),
            self._each("deep-copy", "a copy made after training is equal and apart", networks.deep_copy),
            self._each("channels-last", "the memory format changes nothing", networks.channels_last),
            self._each("bf16", "under bf16 outputs are float32 and close, gradients finite", networks.half_precision),
            self._each("evaluation", "in eval mode nothing changes, no sample sees another", networks.leaves_no_trace),
            self._each("refusals", "what it cannot make is refused with a BackboneError", networks.refuses),
            self._each("compiles", "torch.compile gives the same outputs", networks.compiles, slow=True),
        ]

    def _each(self, name: str, promise: str, look: Callable[[Case], None], *, slow: bool = False) -> Check:
        """Return a check of the smallest networks, with and without classes."""
        return Check(name, promise, lambda: self._run(look, every_size=False), slow)

    def _all(self, name: str, promise: str, look: Callable[[Case], None]) -> Check:
        """Return a check of the networks of every size, if that is wanted."""
        return Check(name, promise, lambda: self._run(look, every_size=self.every_size))

    def _run(self, look: Callable[[Case], None], *, every_size: bool) -> None:
        cases = self.cases.need("builds")
        smallest = min(case.resolution for case in cases)
        for case in cases:
            if every_size or case.resolution == smallest:
                try:
                    look(case)
                except AssertionError as error:
                    raise AssertionError(f"{case}: {error}") from error

    def _strict(self) -> None:
        check_strict(self.subject)

    def _builds(self) -> None:
        for case in self.cases.get():
            backbone = case.backbone()
            require(isinstance(backbone, Backbone), f"{type(backbone).__name__} is no Backbone: subclass it")
            require(
                case.resolution in backbone.resolutions,
                f"{case}: it was built, but its resolutions are {backbone.resolutions}",
            )
            require(backbone.conditional is case.conditional, f"{case}: conditional is {backbone.conditional!r}")

    def _cases(self) -> list[Case]:
        asked = (False, True) if "conditional" in self.subject.type.Config.model_fields else (None,)
        refused = "it makes none of the usual sizes"
        for size in _SIZES:
            # which sizes there are does not depend on classes; whether there are classes may be the backbone's to say
            try:
                first = build(self.subject, ImageSpec(3, size, CLASSES), bool(asked[0]))
            except BackboneError as error:
                refused = str(error)
                continue
            if size not in first.resolutions:
                continue
            kinds = [first.conditional] if asked == (None,) else [False, True]
            return [Case(self.subject, size, kind) for size in sorted(first.resolutions) for kind in kinds]
        raise AssertionError(f"no image of {', '.join(map(str, sorted(_SIZES)))} pixels can be made: {refused}")
