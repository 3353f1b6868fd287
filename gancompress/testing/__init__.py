"""The conformance kit: what a component of any kind must do, ready for a plugin's own tests.

Every kind has two functions. ``check_method(MyMethod)`` runs every check and raises :class:`ConformanceError`, which
lists all that failed; ``method_checks(MyMethod)`` returns the checks one by one, so that pytest shows each as a test of
its own::

    import pytest
    from gancompress.testing import method_checks
    from my_method import MyMethod

    @pytest.mark.parametrize("check", method_checks(MyMethod, {"every": 2}), ids=str)
    def test_conformance(check):
        check()

The built-in components are held to the same kit. On the command line it is ``gancompress plugins check NAME``.
"""

from __future__ import annotations

from gancompress.testing.backbones import backbone_checks, check_backbone
from gancompress.testing.conformance import Check, Conformance, ConformanceError, Outcome, run_checks
from gancompress.testing.datasets import check_dataset, dataset_checks
from gancompress.testing.extractors import check_extractor, extractor_checks
from gancompress.testing.losses import check_loss, loss_checks
from gancompress.testing.methods import check_method, method_checks
from gancompress.testing.metrics import check_metric, metric_checks

__all__ = [
    "Check",
    "Conformance",
    "ConformanceError",
    "Outcome",
    "backbone_checks",
    "check_backbone",
    "check_dataset",
    "check_extractor",
    "check_loss",
    "check_method",
    "check_metric",
    "dataset_checks",
    "extractor_checks",
    "loss_checks",
    "method_checks",
    "metric_checks",
    "run_checks",
]
