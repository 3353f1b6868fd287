"""Checkpoints by the clock, and those of a stopped run: there when they are needed, and without a trace at the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gancompress.experiment import session
from gancompress.experiment.run import Experiment
from gancompress.progress import Silent
from gancompress.recipe.load import parse_recipe
from gancompress.runs.directory import RunDirectory
from gancompress.storage.checkpoint import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 16},
    "model": {"name": "dcgan", "channels": 4, "latent_dim": 8},
    "sparsity": {"method": {"name": "imp", "rate": 0.5}, "density": 0.5},
    "training": {"steps": 6, "batch_size": 4, "log_every": 2, "keep_checkpoints": 2, "threads": 1},
}


class Dies(Silent):
    """An observer that ends the process after a step, as a kill would: nothing after it happens."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, done: int, rate: float) -> None:
        if done == self.at:
            raise SystemExit


def trained(root: Path, dies_at: int = -1, **training: Any) -> Path:
    recipe = parse_recipe({**TINY, "training": {**TINY["training"], **training}}).recipe
    return Experiment(recipe, root, Dies(dies_at), evaluates=False).run().path


def steps(directory: Path) -> list[int]:
    return [int(path.name) for path in checkpoints(directory / "checkpoints")]


def contents(directory: Path) -> dict[str, bytes]:
    kept = [path for name in ("checkpoints", "rounds", "samples") for path in sorted((directory / name).rglob("*"))]
    return {str(path.relative_to(directory)): path.read_bytes() for path in kept if path.is_file()}


def test_without_a_number_of_steps_the_clock_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(tmp_path / "whole")
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(SystemExit):
        trained(tmp_path / "parts", dies_at=5)
    (directory,) = (tmp_path / "parts").iterdir()
    assert steps(directory) == [4]  # one that passes takes the place of the one before
    with pytest.raises(SystemExit):
        trained(tmp_path / "parts", dies_at=9)
    assert steps(directory) == [6, 8]  # the end of a round stays
    assert trained(tmp_path / "parts") == directory
    assert contents(directory) == contents(whole)


def test_a_number_of_steps_keeps_the_clock_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(SystemExit):
        trained(tmp_path, dies_at=5, checkpoint_every=3)
    (directory,) = tmp_path.iterdir()
    assert steps(directory) == [3]


def test_the_log_is_on_the_disk_before_the_checkpoint_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    save, sync_log = session.save, RunDirectory.sync_log
    monkeypatch.setattr(session, "save", lambda *given: order.append("checkpoint") or save(*given))
    monkeypatch.setattr(RunDirectory, "sync_log", lambda run: order.append("log") or sync_log(run))
    directory = trained(tmp_path, checkpoint_every=6)
    assert order[:2] == ["log", "checkpoint"]
    assert order[-1] == "log"
    assert json.loads((directory / "log.jsonl").read_text().splitlines()[-1])["step"] == 12
