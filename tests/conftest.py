"""Shared by all tests: one thread each, so that parallel workers do not fight over two cores."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# which kernels run is measured, and no measurement decides in a test: those that want sparse kernels say so
os.environ["GANCOMPRESS_SPARSE"] = "never"


@pytest.fixture
def quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the classifier that metrics use for ten steps, where nobody looks at its accuracy."""
    from gancompress.evaluation.classifier import ClassifierSettings

    chosen = ClassifierSettings.for_dataset

    def few_steps(dataset: Any, task: str) -> ClassifierSettings:
        return dataclasses.replace(chosen(dataset, task), steps=10)

    monkeypatch.setattr(ClassifierSettings, "for_dataset", few_steps)
