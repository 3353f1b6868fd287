"""The player in a run's report: there when it was made, said when it could not be, and never in the way of the rest."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from gancompress.report import player
from gancompress.report.html import build_report

if TYPE_CHECKING:
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
