"""The conformance kit: what a component of any kind must do, ready for a plugin's own tests.

:func:`check` runs every check of a component and raises :class:`ConformanceError`, which lists all that failed;
:func:`checks` returns them one by one, so that pytest shows each as a test of its own::

    import pytest
    from gancompress.testing import checks
    from my_method import MyMethod

    @pytest.mark.parametrize("check", checks(MyMethod, {"every": 2}), ids=str)
    def test_conformance(check):
        check()

The built-in components are held to the same kit. On the command line it is ``gancompress plugins check NAME``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gancompress.errors import ComponentError
from gancompress.testing.backbones import BackboneSuite
from gancompress.testing.conformance import Check, Conformance, ConformanceError, Outcome, Suite, chosen, run_checks
from gancompress.testing.datasets import DatasetSuite
from gancompress.testing.evaluation import ExtractorSuite, MetricSuite
from gancompress.testing.losses import LossSuite
from gancompress.testing.methods import MethodSuite
from gancompress.testing.patterns import PatternSuite
from gancompress.testing.tasks import TaskSuite
from gancompress.testing.trackers import TrackerSuite

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gancompress.components.registry import Registry

__all__ = [
    "Check",
    "Conformance",
    "ConformanceError",
    "Outcome",
    "backbone_checks",
    "check",
    "check_backbone",
    "check_dataset",
    "check_extractor",
    "check_loss",
    "check_method",
    "check_metric",
    "checks",
    "dataset_checks",
    "extractor_checks",
    "loss_checks",
    "method_checks",
    "metric_checks",
    "run_checks",
]

_SUITES: Final[Mapping[str, type[Suite]]] = {
    made.registry.kind: made
    for made in (
        MethodSuite,
        PatternSuite,
        BackboneSuite,
        DatasetSuite,
        LossSuite,
        MetricSuite,
        ExtractorSuite,
        TaskSuite,
        TrackerSuite,
    )
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
        settings: a mapping, for a kind that has settings; of an extractor or a tracker the text after the colon in
            ``name:option``.
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
    made = _suite(component, *settings, kind=kind, **options)
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
    return chosen(_suite(component, *settings, kind=kind, **options).checks(), skip, slow)


def _suite(component: str | type, *settings: Any, kind: str | None = None, **options: Any) -> Suite:
    """Return all that is checked about a component; the arguments are those of :func:`check`."""
    if kind is None:

        def fits(registry: Registry[Any]) -> bool:
            return issubclass(component, registry.base()) if isinstance(component, type) else component in registry

        found = [one for one, made in _SUITES.items() if fits(made.registry)]
        if len(found) != 1:
            name = component.__name__ if isinstance(component, type) else component
            raise ComponentError(f"{name!r} is {' and '.join(found) or 'no component'}: say of which kind, kind=…")
        kind = found[0]
    return _SUITES[kind](component, *settings, **options)


#: names of before there was one front for all kinds
check_method, method_checks = partial(check, kind="method"), partial(checks, kind="method")
check_backbone, backbone_checks = partial(check, kind="backbone"), partial(checks, kind="backbone")
check_dataset, dataset_checks = partial(check, kind="dataset"), partial(checks, kind="dataset")
check_loss, loss_checks = partial(check, kind="loss"), partial(checks, kind="loss")
check_metric, metric_checks = partial(check, kind="metric"), partial(checks, kind="metric")
check_extractor, extractor_checks = partial(check, kind="extractor"), partial(checks, kind="extractor")
