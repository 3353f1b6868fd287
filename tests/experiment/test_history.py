"""What a run has logged so far, taken over when it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gancompress.experiment.history import History
from gancompress.progress import Silent
from gancompress.runs.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Shown(Silent):
    def __init__(self) -> None:
        self.records: list[Mapping[str, object]] = []

    def record(self, record: Mapping[str, object]) -> None:
        self.records.append(record)


def evaluation(step: int, value: float, density: float = 0.1, protocol: str = "a") -> dict[str, Any]:
    metric = {"name": "fd", "label": "FD", "value": value, "higher_is_better": False}
    return {
        "kind": "evaluation",
        "step": step,
        "metrics": [metric],
        "density_generator": density,
        "protocol": {"hash": protocol},
    }


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory.claim(tmp_path / "run", {"name": "run"}, "1")


def test_the_best_of_a_pruned_run_is_none_of_the_denser_ones(directory: RunDirectory) -> None:
    history = History(directory, Silent())
    assert (history.best_step, history.metrics()) == (None, {})
    for step, value, density in ((1, 1.0, 1.0), (2, 2.0, 0.5), (3, 6.0, 0.1), (4, 7.0, 0.1)):
        history.evaluated(evaluation(step, value, density))
    assert history.best_step == 3
    found = history.metrics()
    assert (found["best"]["step"], found["last"]["step"], len(found["evaluations"])) == (3, 4, 4)
    assert "of_other_protocol" not in found


def test_evaluations_of_another_protocol_are_counted_and_never_best(directory: RunDirectory) -> None:
    history = History(directory, Silent())
    for step, value, protocol in ((1, 1.0, "old"), (2, 2.0, "old"), (3, 6.0, "a")):
        history.evaluated(evaluation(step, value, protocol=protocol))
    found = history.metrics()
    assert (found["best"]["step"], found["of_other_protocol"]) == (3, 2)


def test_a_run_goes_on_with_what_its_log_says_up_to_the_checkpoint(directory: RunDirectory) -> None:
    before = History(directory, Silent())
    assert (before.trained(2.0), before.trained(1.5)) == (2.0, 3.5)
    before.log({"kind": "train", "step": 2, "seconds": 3.5})
    before.evaluated(evaluation(2, 5.0))
    before.log({"kind": "sample", "step": 2})
    before.evaluated(evaluation(4, 1.0))
    after = History(directory, Silent())
    after.resume(2)
    assert (after.seconds, after.best_step) == (3.5, 2)
    assert (after.is_evaluated(2), after.is_evaluated(4)) == (True, False)
    assert (after.sampled(2), after.sampled(4), after.sampled(4)) == (True, False, True)
    assert [record["step"] for record in directory.read_log()] == [2, 2, 2]
    after.resume(0)
    assert directory.read_log() == []


def test_only_the_first_process_writes_and_shows(directory: RunDirectory) -> None:
    shown = Shown()
    History(directory, shown, writes=False).log({"kind": "train", "step": 1})
    assert (directory.read_log(), shown.records) == ([], [])
    History(directory, shown).log({"kind": "train", "step": 1})
    assert directory.read_log() == shown.records == [{"kind": "train", "step": 1}]
