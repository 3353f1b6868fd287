"""Which evaluation of a run is the best: known answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from gancompress.cli.evaluate import note_other_protocols
from gancompress.cli.main import app
from gancompress.experiment.history import History
from gancompress.progress import Silent
from gancompress.report.summary import headline
from gancompress.runs.best import best_evaluation, of_other_protocol
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import read_run

if TYPE_CHECKING:
    from pathlib import Path


def look(step: int, value: float, *, density: float = 0.1, protocol: str = "a", higher: bool = False) -> dict[str, Any]:
    metrics = [
        {"name": "fd", "label": "FD", "value": value, "higher_is_better": higher},
        {"name": "is", "label": "IS", "value": -step, "higher_is_better": True},  # only the first one chooses
    ]
    return {"step": step, "metrics": metrics, "density_generator": density, "protocol": {"hash": protocol, "text": ""}}


@pytest.mark.parametrize(
    ("looks", "best"),
    [
        ([look(1, 5.0), look(2, 3.0), look(3, 4.0)], 2),
        ([look(1, 5.0, higher=True), look(2, 3.0, higher=True), look(3, 4.0, higher=True)], 1),
        # denser generators are better and count for nothing
        ([look(1, 1.0, density=1.0), look(2, 2.0, density=0.5), look(3, 6.0), look(4, 7.0)], 3),
        # values under another protocol are on another scale
        ([look(1, 1.0, protocol="b"), look(2, 6.0), look(3, 7.0)], 2),
        ([look(1, 1.0, protocol="b", density=1.0), look(2, 2.0, density=1.0), look(3, 7.0)], 3),
        ([look(1, 5.0), look(2, 5.0), look(3, 6.0)], 1),  # the earliest of equals
        ([look(1, math.nan), look(2, 9.0), look(3, math.inf)], 2),
        ([look(1, 9.0), look(2, 3.0), look(3, None)], 2),  # type: ignore[arg-type]
        ([look(1, math.nan)], None),
        ([], None),
    ],
)
def test_the_best_is_found_among_what_can_be_compared_with_the_last(looks: list[dict[str, Any]], best: int) -> None:
    found = best_evaluation(looks)
    assert (found["step"] if found is not None else None) == best


def test_a_record_says_how_many_evaluations_are_of_another_protocol(tmp_path: Path) -> None:
    looks = [look(1, 1.0, protocol="b"), look(2, 2.0, protocol="c"), look(3, 6.0), look(4, 5.0), look(5, 7.0)]
    run = RunDirectory.claim(tmp_path / "run", {"name": "run"}, "1")
    for one in looks:
        run.log({"kind": "evaluation", **one})
    record = read_run(run.path)
    assert record.best is not None
    assert (record.best[0], record.best[1][0].value, record.of_other_protocol) == (4, 5.0, 2)
    assert of_other_protocol(looks) == 2
    (fact,) = [fact for fact in headline(record) if fact.group == "metric"]
    assert fact.detail == "best, at step 4; last, at step 5: 7; 2 under another protocol left out"
    assert of_other_protocol([]) == 0


def test_whoever_takes_the_best_is_told_of_the_evaluations_that_it_was_not_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = [look(1, 1.0, protocol="b"), look(2, 6.0)]
    run = RunDirectory.claim(tmp_path / "runs" / "run", {"name": "run"}, "1")
    history = History(run, Silent())
    for one in looks:
        history.evaluated({"kind": "evaluation", **one})
    run.write_json("metrics.json", history.metrics())
    note_other_protocols(run.path, "last")
    assert capsys.readouterr() == ("", "")
    note_other_protocols(run.path, "best")
    assert "1 evaluation is under another protocol than the last" in capsys.readouterr().err
    listed = CliRunner().invoke(app, ["ls", str(run.path.parent)], env={"COLUMNS": "200"})
    assert "best leaves out 1 evaluation under another protocol" in listed.output
