"""The player in a run's report: there when it was made, said when it could not be, and never in the way of the rest."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from gancompress.report import player
from gancompress.report.html import build_report

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.runs.directory import RunDirectory

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def written(run: RunDirectory, note: object, blob: bytes | None = b"GCWEB") -> str:
    (run.path / "export").mkdir(exist_ok=True)
    (run.path / player.NOTE).write_text(json.dumps(note))
    if blob is not None:
        (run.path / player.FILE).write_bytes(blob)
    return build_report(run.path).read_text(encoding="utf-8")


def policy_of(text: str) -> str:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    return found[1].replace("&#39;", "'")


def test_a_report_without_a_player_has_no_script_and_allows_none(run: RunDirectory) -> None:
    text = build_report(run.path).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "Play with it" not in text
    assert "script-src 'none'" in policy_of(text)


def test_a_report_holds_the_player_and_its_tables_still_need_no_script(run: RunDirectory) -> None:
    plain = build_report(run.path).read_text(encoding="utf-8")
    text = written(run, {"step": 2000})
    assert "The generator of step 2,000 itself" in text
    assert text.count('<script type="module">') == 1
    assert text.count("<script") == 2
    assert "'wasm-unsafe-eval'" in policy_of(text)
    tables = [re.findall(r"<table>.*?</table>", page, re.DOTALL) for page in (plain, text)]
    assert tables[0] == tables[1] != []


def test_why_there_is_none_is_said_and_escaped(run: RunDirectory) -> None:
    text = written(run, {"missing": f"pages have nothing for the layer {EVIL}"}, None)
    assert "The generator is not in this page: pages have nothing for the layer &#34;&gt;&lt;script" in text
    assert "<script" not in text
    assert "is not in the run directory any more" in written(run, {"step": 5}, None)


def test_a_generator_that_is_too_large_is_left_out(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "MOST_BYTES", 1000)
    text = written(run, {"step": 5}, bytes(1001))
    assert "it has 1.001 kB, and a report takes 1 kB" in text
    assert "<script" not in text


@pytest.mark.parametrize("note", [[], "text", 3, {"step": "x"}, {"step": None}])
def test_a_damaged_note_breaks_no_report(run: RunDirectory, note: object) -> None:
    assert "Quality" in written(run, note)


def test_the_generator_from_before_stands_beside_it_or_it_is_said_why_not(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.path / "export").mkdir()
    (run.path / player.BEFORE).write_bytes(bytes(1000))
    text = written(run, {"step": 5})
    assert [part.split('"')[0] for part in text.split('data-name="')[1:]] == ["before", "after"]
    monkeypatch.setattr(player, "MOST_BEFORE", 999)
    text = written(run, {"step": 5})
    assert "The generator from before is not beside it: it has 1 kB, and a report takes 999 B." in text
    assert text.count("data-name=") == 1
    (run.path / player.BEFORE).unlink()
    text = written(run, {"step": 5, "before": f"its weights are gone {EVIL}"})
    assert "is not beside it: its weights are gone &#34;&gt;&lt;script" in text


def runs(folder: Path, *sizes: int | None) -> list[tuple[str, Path]]:
    """Runs with generators of so many bytes; None is one that has none, and says why."""
    found = []
    for index, size in enumerate(sizes):
        run = folder / str(index)
        (run / "export").mkdir(parents=True)
        (run / player.NOTE).write_text(json.dumps({"step": 1} if size else {"missing": f"no <{index}>"}))
        (run / player.FILE).write_bytes(b"x" * (size or 0))
        found.append((f"row {index}", run))
    return found


def test_a_comparison_lets_any_two_of_its_generators_be_chosen(tmp_path: Path) -> None:
    three = runs(tmp_path, 10, 10, 10)
    part = player.comparison_part([*three, ("row 1 in int8", three[1][1])])
    names = ["row 0", "row 1, row 1 in int8", "row 2"]
    assert [text.split('"')[0] for text in part.content.split('data-name="')[1:]] == names  # one of every run
    choices = re.findall(r"<select.*?</select>", part.content)
    assert len(choices) == 2
    for choice, chosen in zip(choices, names, strict=False):
        assert re.findall(r"<option[^>]*>(.*?)</option>", choice) == names
        assert re.findall(r"selected>(.*?)<", choice) == [chosen]
    assert part.missing == ""
    two = player.comparison_part(three[:2])
    assert "<select" not in two.content
    assert "'wasm-unsafe-eval'" in part.policy


def test_what_a_comparison_leaves_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "MOST_COMPARED", 30)
    part = player.comparison_part(runs(tmp_path, 20, None, 20, 10))
    assert [text.split('"')[0] for text in part.content.split('data-name="')[1:]] == ["row 0", "row 3"]
    left = "row 1 (no <1>); row 2 (it has 20 B, and all generators of a page 30 B)"
    assert part.missing == f"Not in this page: {left}."
    assert player.comparison_part([]) == player.PlayerPart()
    assert player.comparison_part([("smoke", tmp_path)]) == player.PlayerPart()
