"""Methods compared on images from images: the same rows, and every network of a cycle planned for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from gancompress.api.comparisons import compare
from gancompress.cli.main import app

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("quick_classifier")
def test_methods_are_compared_on_pairs(tmp_path: Path) -> None:
    done = compare(
        "pix2pix_outlines", ["dst"], smoke=True, narrow=False, jobs=0, out=tmp_path / "compare", progress=False
    )
    assert not done.missing
    rows = {row.method: row for row in done.rows}
    assert set(rows) == {"dense", "dst"}
    assert all(row.best.mean is not None for row in rows.values())
    assert (done.directory / "compare.html").is_file()


def test_a_cycle_is_planned_with_its_four_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["compare", "cyclegan_outlines", "--methods", "static,dst", "--smoke", "--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("4 runs in compare/cyclegan_outlines-smoke-")
    assert [line.split()[0] for line in lines[3:7]] == ["dense", "narrow", "static", "dst"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--methods", "dst,adapt"], "sparsity.method: adapt follows how a discriminator answers images of latents"),
        (
            ["--methods", "dst", "--set", "evaluation.metrics=[fd,ppl]"],
            "evaluation.metrics: ppl is of images of latents",
        ),
    ],
)
def test_what_the_task_cannot_serve_is_refused_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["compare", "pix2pix_outlines", "--smoke", *more])
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    assert why in line
    assert not list(tmp_path.iterdir())
