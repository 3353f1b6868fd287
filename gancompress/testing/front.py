"""One way in for components of every kind: :func:`check` and :func:`checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gancompress.errors import ComponentError
from gancompress.testing.backbones import BackboneSuite
from gancompress.testing.conformance import chosen, run_checks
from gancompress.testing.datasets import DatasetSuite
from gancompress.testing.extractors import ExtractorSuite
from gancompress.testing.losses import LossSuite
from gancompress.testing.methods import MethodSuite
from gancompress.testing.metrics import MetricSuite
from gancompress.testing.patterns import PatternSuite

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gancompress.testing.conformance import Check, Conformance, Suite

__all__ = ["check", "checks", "suite"]

_SUITES: Final[Mapping[str, type[Suite]]] = {
    made.registry.kind: made
    for made in (MethodSuite, PatternSuite, BackboneSuite, DatasetSuite, LossSuite, MetricSuite, ExtractorSuite)
}


def check(
    component: str | type,
    *settings: Any,
    kind: str | None = None,
    skip: Collection[str] = (),
    slow: bool = False,
    **options: Any,
) -> Conformance:
    """Hold a component to the contract of its kind.

    Args:
        component: the class, or a registered name.
        settings: a mapping, for a kind that has settings; of an extractor the text after the colon in ``name:option``.
        kind: ``method``, ``backbone``, …; needed where a name alone does not say it.
        skip: names of checks to leave out, such as ``other-seed-other-masks`` for a method whose masks are fixed.
        slow: run the slow checks too.
        options: those of its suite: ``overrides`` of methods, ``every_size`` of backbones, ``identical`` of metrics,
            ``dataset`` of extractors.

    Returns:
        The report.

    Raises:
        ConformanceError: at least one check failed; the message lists all that did.
        ComponentError: its kind cannot be told.
        ValueError: a name in ``skip`` is no check.
    """
    made = suite(component, *settings, kind=kind, **options)
    return run_checks(made.label, chosen(made.checks(), skip, slow)).require()


def checks(
    component: str | type,
    *settings: Any,
    kind: str | None = None,
    skip: Collection[str] = (),
    slow: bool = False,
    **options: Any,
) -> list[Check]:
    """Return the checks of :func:`check`, for ``pytest.mark.parametrize("check", …, ids=str)``.

    Nothing is computed, and a component given by name is not even imported, before the first of them is called.
    """
    return chosen(suite(component, *settings, kind=kind, **options).checks(), skip, slow)


def suite(component: str | type, *settings: Any, kind: str | None = None, **options: Any) -> Suite:
    """Return all that is checked about a component; the arguments are those of :func:`check`."""
    if kind is None:
        found = [
            known
            for known, made in _SUITES.items()
            for registry in [made.registry]
            if (component in registry if isinstance(component, str) else issubclass(component, registry.base()))
        ]
        if len(found) != 1:
            name = component if isinstance(component, str) else component.__name__
            raise ComponentError(f"{name!r} is {' and '.join(found) or 'no component'}: say of which kind, kind=…")
        kind = found[0]
    return _SUITES[kind](component, *settings, **options)
