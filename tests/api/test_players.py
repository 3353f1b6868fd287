"""The generator that a run leaves for its report, and the page that a run is exported as."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

import gancompress
from gancompress import api
from gancompress.api import player
from gancompress.cli.main import app

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.api.outcomes import RunOutcome

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8, "conditional": True},
    "sparsity": {"method": {"name": "dst", "every": 2}, "density": 0.5, "weights": "all"},
    "training": {"steps": 4, "batch_size": 4, "log_every": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return gancompress.train(TINY, out=tmp_path_factory.mktemp("runs"), progress=False)


def test_a_run_leaves_its_generator_and_the_report_holds_it(run: RunOutcome) -> None:
    assert json.loads((run.directory / "export" / "player.json").read_text()) == {"step": 4}
    assert (run.directory / "export" / "player.gcw").read_bytes().startswith(b"GCWEB")
    assert "Play with it" in run.report.read_text(encoding="utf-8")


def test_it_can_be_switched_off_and_smoke_runs_have_none(tmp_path: Path) -> None:
    plain = gancompress.train(TINY, out=tmp_path, player=False, progress=False)
    smoke = gancompress.train(TINY, out=tmp_path, smoke=True, progress=False)
    for one in (plain, smoke):
        assert not (one.directory / "export").exists()
        assert "<script" not in one.report.read_text(encoding="utf-8")


def test_it_can_be_switched_off_afterwards_and_on_again(run: RunOutcome, tmp_path: Path) -> None:
    directory = copied(run, tmp_path)
    plain = gancompress.train(TINY, out=tmp_path, player=False, progress=False)
    assert plain.directory == directory
    assert "<script" not in plain.report.read_text(encoding="utf-8")
    assert list((directory / "export").iterdir()) == []
    again = gancompress.train(TINY, out=tmp_path, progress=False)
    assert "Play with it" in again.report.read_text(encoding="utf-8")


def copied(run: RunOutcome, to: Path) -> Path:
    return shutil.copytree(run.directory, to / run.directory.name)


def test_a_generator_that_cannot_be_made_spoils_no_run(
    run: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copied(run, tmp_path)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("of its\nown")

    monkeypatch.setattr(player, "_made", broken)
    player.make_player(directory)
    missing = {"missing": "it could not be made (ZeroDivisionError: of its own)"}
    assert json.loads((directory / "export" / "player.json").read_text()) == missing


def test_a_generator_that_is_too_large_is_not_even_tried(
    run: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copied(run, tmp_path)
    monkeypatch.setattr(player, "MOST_BYTES", 1000)
    player.make_player(directory)
    assert "a report takes 1 kB" in json.loads((directory / "export" / "player.json").read_text())["missing"]


def test_a_run_becomes_a_page_and_a_module_for_sites(run: RunOutcome, tmp_path: Path) -> None:
    directory = copied(run, tmp_path)
    made = CliRunner().invoke(app, ["export", str(directory), "--format", "web"])
    assert made.exit_code == 0, made.output
    names = {path.name for path in (directory / "export").iterdir()}
    assert names >= {"generator.html", "generator.gcw", "generator.js", "generator.d.ts"}
    assert "beside it: generator.gcw" in made.output
    text = (directory / "export" / "generator.html").read_text(encoding="utf-8")
    assert "bf16 weights" in text
    assert "step 4" in text
    other = api.export(directory, tmp_path / "own.html", format="web", values="float32", progress=False)
    assert "float32 weights" in other.file.read_text(encoding="utf-8")
    assert other.step == 4


def test_a_compressed_run_shows_both_generators(run: RunOutcome, tmp_path: Path) -> None:
    made = gancompress.compress(run, 0.2, steps=2, out=tmp_path, progress=False)
    text = made.run.report.read_text(encoding="utf-8")
    assert [part.split('"')[0] for part in text.split('data-name="')[1:]] == ["before", "after"]
    before, after = ((made.run.directory / name).stat().st_size for name in (player.BEFORE, player.FILE))
    assert before > after


@pytest.mark.slow
def test_the_page_of_a_comparison_holds_its_generators_or_leaves_them_out(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"methods": ["static", "dst"], "narrow": False, "jobs": 0, "progress": False}
    recipe = {**TINY, "evaluation": {"samples": 16, "metrics": ["fd"]}}
    made = gancompress.compare(recipe, out=tmp_path, **asked)
    text = made.report.read_text(encoding="utf-8")
    names = [part.split('"')[0] for part in text.split('data-name="')[1:]]
    assert names == ["static 0.5", "dst 0.5", "dense"]
    assert text.count('<script type="module">') == 1
    plain = gancompress.compare(recipe, out=tmp_path, player=False, **asked)
    assert "<script" not in plain.report.read_text(encoding="utf-8")
