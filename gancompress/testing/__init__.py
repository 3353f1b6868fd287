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

from gancompress.testing.conformance import Check, Conformance, ConformanceError, Outcome, run_checks
from gancompress.testing.front import check, checks

#: names of before there was one front for all kinds
check_method, method_checks = partial(check, kind="method"), partial(checks, kind="method")
check_backbone, backbone_checks = partial(check, kind="backbone"), partial(checks, kind="backbone")
check_dataset, dataset_checks = partial(check, kind="dataset"), partial(checks, kind="dataset")
check_loss, loss_checks = partial(check, kind="loss"), partial(checks, kind="loss")
check_metric, metric_checks = partial(check, kind="metric"), partial(checks, kind="metric")
check_extractor, extractor_checks = partial(check, kind="extractor"), partial(checks, kind="extractor")

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
