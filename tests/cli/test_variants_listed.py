"""``ls RECIPE`` and ``cp RECIPE@VARIANT``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gancompress.cli.main import main
from gancompress.recipe.identity import run_id
from gancompress.recipe.load import load_recipe

if TYPE_CHECKING:
    from pathlib import Path


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(str(ended.value.code or 0))


def test_the_rows_of_a_recipe_with_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("ls", "lottery_sngan") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "FID 15.6" in lines["lottery_sngan@ticket-0.3277"]
    assert "imp" in lines["lottery_sngan@ticket-0.3277"]
    assert "FID" not in lines["lottery_sngan@both-0.3277"]


def test_the_recipes_say_that_there_are_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("ls", "--out", str(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "FID below 8.79" in text
    assert "a recipe's variants: gancompress ls RECIPE" in text


def test_a_recipe_without_rows_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("ls", "quickstart") == 2
    assert capsys.readouterr().err == "quickstart has no variants; see it with: gancompress show quickstart\n"


def test_a_copied_row_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("cp", "stugan_sngan@dst-g0.05") == 0
    copied = load_recipe(tmp_path / "stugan_sngan-dst-g0.05.yaml")
    assert run_id(copied.recipe) == run_id(load_recipe("stugan_sngan@dst-g0.05").recipe)
    assert copied.recipe.published == load_recipe("stugan_sngan@dst-g0.05").recipe.published
    assert copied.variants == ()
