"""The table that ends a run."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from report_fake_run import PROTOCOL, RECIPE, metrics_at

from gancompress.api.outcomes import RunOutcome, print_outcome
from gancompress.report.protocols import few_images, shared_protocol
from gancompress.report.summary import plain_metrics
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import Metric, metrics_of

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_without_a_terminal(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome(RunOutcome.read(run.path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "quickstart"
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "generator density 0.20449 asked 0.2045; 391,208 of 1,913,088 weights",
        "discriminator density 0.46044 asked 0.46; 136,320 of 296,064 weights",
        "inference FLOPs against dense 0.1891× 11.54 M of 61.04 M multiply-adds per image",
        "training FLOPs against dense 0.2021× 2.021 T of 10 T FLOPs, whole run",
        "training time, measured 1 min 16 s 26.3 steps per second; on An Imaginary CPU, 2 threads",
        "generator size, packed 1.811 MB computed from the budgets; 7.878 MB when dense",
        "FD[classifier-1f3a9c2d] 12.53 best, at step 1,750; last, at step 2,000: 15.73; [51bf0c77aa10]",
        "IS[classifier-1f3a9c2d] 8.899 ± 0.081 10 splits [92cd1a34be77]",
        "precision[classifier-1f3a9c2d] 0.8728 3 neighbours [0b7c6d5e4f32]",
        f"protocol: {PROTOCOL}",
        "warning: FD from 1,000 images, fewer than 2,048, is biased upwards and noisy: "
        "compare it only with numbers of the same protocol",
    ]
    assert "\x1b" not in "".join(lines)


def test_a_drawn_table_on_a_terminal(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    print_outcome(RunOutcome.read(run.path), out)
    text = out.getvalue()
    assert "\x1b[" in text
    for words in ("0.20449", "0.2021×", "FD[classifier-1f3a9c2d]", "51bf0c77aa10", "precision", "protocol: classifier"):
        assert words in text


def test_an_evaluation_says_its_protocol_once() -> None:
    lines = plain_metrics(metrics_of({"metrics": metrics_at(2000)}))
    assert [line.split("  ")[0] for line in lines[:3]] == [metric["label"] for metric in metrics_at(1)]
    assert lines[3] == f"protocol: {PROTOCOL}"
    assert lines[4].startswith("warning: FD from 1,000 images")
    assert len(lines) == 5


def test_a_metric_that_is_not_finite_is_printed() -> None:
    lines = plain_metrics(metrics_of({"metrics": [{**metrics_at(1)[0], "value": None}]}))
    assert lines[0] == "FD[classifier-1f3a9c2d]  not finite"
    assert lines[1] == f"protocol: {PROTOCOL} [51bf0c77aa10]"


@pytest.mark.parametrize(
    ("protocols", "shared", "own"),
    [
        ([], "", []),
        (["a, b [12]"], "a, b [12]", [""]),
        (["a, b [12]", "a, b [12]"], "a, b [12]", ["", ""]),
        (["a, b [12]", "a, b, c, d [34]"], "a, b", ["[12]", "c, d [34]"]),
        (["a, b", "c, b [34]"], "", ["a, b", "c, b [34]"]),
        (["", "a [1]"], "", ["", "a [1]"]),
    ],
)
def test_what_protocols_share(protocols: list[str], shared: str, own: list[str]) -> None:
    assert shared_protocol(protocols) == (shared, own)


@pytest.mark.parametrize(
    ("label", "protocol", "warned"),
    [
        ("FID", "inception, 50,000 generated against 50,000 real [1]", False),
        ("FID", "inception, 2,047 generated against 50,000 real [1]", True),
        ("FD[x-1]", "x-1, 50,000 generated against 1,797 real [1]", True),
        ("FD[x-1]", "x-1, 2,048 generated against 2,048 real [1]", False),
        ("KID", "inception, 100 generated against 100 real [1]", False),
        ("FID", "", False),
    ],
)
def test_few_images_are_warned_of_where_they_mislead(label: str, protocol: str, warned: bool) -> None:
    assert bool(few_images([Metric(label, 1.0, None, False, protocol)])) == warned


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_a_run_with_nothing_yet(tmp_path: Path, out: type[io.StringIO]) -> None:
    run = RunDirectory.claim(tmp_path / "run", RECIPE, "x")
    stream = out()
    print_outcome(RunOutcome.read(run.path), stream)
    assert "quickstart (pending): nothing measured yet" in stream.getvalue()


def test_the_table_and_the_page_need_no_torch() -> None:
    code = (
        "import sys; import gancompress.report.html, gancompress.report.summary;"
        "print([m for m in ('torch', 'numpy', 'jinja2', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
