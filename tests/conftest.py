"""Shared by all tests: one thread each, so that parallel workers do not fight over two cores."""

from __future__ import annotations

import dataclasses
import gc
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# which kernels run is measured, and no measurement decides in a test: those that want sparse kernels say so
os.environ["GANCOMPRESS_SPARSE"] = "never"


def pytest_collection_finish() -> None:
    """Look for garbage seldom, and never in torch and thousands of collected tests: it took 7% of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def _a_step_is_played_once() -> Iterator[None]:
    """Play a step without values once for networks that are written alike: every run does, a third of a smoke run.

    Tests of the estimate itself ask for ``played_anew``.
    """
    from gancompress.experiment import memory

    play, known = memory._largest_step, {}

    def once(trainer: Any) -> int | None:
        if not hasattr(trainer.play, "objective"):
            return play(trainer)
        loss = trainer.play.objective.loss
        objective = dataclasses.replace(trainer.play.objective, seed=0, loss=(type(loss), loss.config))
        networks = str(trainer.generator), str(trainer.discriminator), trainer.generator.image
        key = str((*networks, trainer.config, objective, trainer.group.world, trainer.device))
        if key not in known:
            known[key] = play(trainer)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        once.really = play  # type: ignore[attr-defined]
        patch.setattr(memory, "_largest_step", once)
        yield


@pytest.fixture
def played_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play every step through, whatever was played before."""
    from gancompress.experiment import memory

    monkeypatch.setattr(memory, "_largest_step", memory._largest_step.really)  # type: ignore[attr-defined]


@pytest.fixture
def quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the classifier that metrics use for ten steps, where nobody looks at its accuracy."""
    from gancompress.evaluation.classifier import ClassifierSettings

    chosen = ClassifierSettings.for_dataset

    def few_steps(dataset: Any, task: str, seed: int = 0) -> ClassifierSettings:
        return dataclasses.replace(chosen(dataset, task, seed), steps=10)

    monkeypatch.setattr(ClassifierSettings, "for_dataset", few_steps)
