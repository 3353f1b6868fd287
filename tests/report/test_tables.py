"""The table that ends a run."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from report_fake_run import PROTOCOL, RECIPE

from gancompress.report.tables import print_summary
from gancompress.training.rundir import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_without_a_terminal(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(run.path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "quickstart"
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "generator density 0.20449 asked 0.2045; 391,208 of 1,913,088 weights",
        "discriminator density 0.46044 asked 0.46; 136,320 of 296,064 weights",
        "inference FLOPs against dense 0.1891× 11.54 M of 61.04 M multiply-adds per image",
        "training FLOPs against dense 0.2021× 2.021 T of 10 T FLOPs, whole run",
        "training time, measured 1 min 16 s 26.3 steps per second; on An Imaginary CPU, 2 threads",
        "generator size 1.811 MB 7.878 MB when dense",
        "FD[classifier-1f3a9c2d] 12.53 best, at step 1,750; last, at step 2,000: 15.73",
        f"{PROTOCOL} [51bf0c77aa10]",
    ]
    assert "\x1b" not in "".join(lines)


def test_a_drawn_table_on_a_terminal(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    print_summary(run.path, out)
    text = out.getvalue()
    assert "\x1b[" in text
    for words in ("0.20449", "0.2021×", "FD[classifier-1f3a9c2d]", "51bf0c77aa10"):
        assert words in text


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_a_run_with_nothing_yet(tmp_path: Path, out: type[io.StringIO]) -> None:
    run = RunDirectory.claim(tmp_path / "run", RECIPE, "x")
    stream = out()
    print_summary(run.path, stream)
    assert "quickstart (pending): nothing measured yet" in stream.getvalue()


def test_the_table_and_the_page_need_no_torch() -> None:
    code = (
        "import sys; import gancompress.report.html, gancompress.report.tables;"
        "print([m for m in ('torch', 'numpy', 'jinja2', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
