"""Named metric protocols, feature extractors, sample grids."""

from __future__ import annotations

from gancompress.evaluation.evaluate import Evaluation, build_metrics, evaluate
from gancompress.evaluation.extractors import Extractor, build_extractor, parse_extractor, resolve_extractor
from gancompress.evaluation.features import Features
from gancompress.evaluation.metrics import Metric, MetricResult
from gancompress.evaluation.protocol import Protocol

__all__ = [
    "Evaluation",
    "Extractor",
    "Features",
    "Metric",
    "MetricResult",
    "Protocol",
    "build_extractor",
    "build_metrics",
    "evaluate",
    "parse_extractor",
    "resolve_extractor",
]
