"""Published figures beside measured ones: numbers, differences, no verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from report_fake_run import RECIPE, make_run

from gancompress.api.outcomes import RunOutcome
from gancompress.recipe.document import dump_yaml
from gancompress.report.html import render
from gancompress.report.published import Difference, Measured, answers, answers_of_run, selection_words
from gancompress.runs.record import read_run

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.runs.directory import RunDirectory

FIGURE: dict[str, Any] = {
    "metric": "FID",
    "value": 10.11,
    "protocol": {"extractor": "inception", "samples": 50000, "weights": "ema", "selection": "best of 20 by FID"},
    "source": "table <2>",
    "note": "read off a figure",
}
HERE = {"extractor": "inception", "samples": 50000, "weights": "ema", "batch_norm": "running averages"}


def with_figures(run: RunDirectory, **more: Any) -> RunDirectory:
    (run.path / "recipe.yaml").write_text(dump_yaml({**RECIPE, "published": [FIGURE], **more}), encoding="utf-8")
    return run


def test_the_same_protocol_has_no_known_difference() -> None:
    (answer,) = answers({"published": [FIGURE]}, {"fd": Measured("FID", "10.4 ± 0.2")}, HERE, "best of 20 by FID", 3)
    assert answer.differences == ()  # the publication does not tell its batch norm, nor how many seeds
    assert answer.line == "FID: published 10.11, here 10.4 ± 0.2; no known difference of protocol"


def test_what_differs_is_listed_field_by_field() -> None:
    figure = {**FIGURE, "spread": 0.5, "protocol": {**FIGURE["protocol"], "seeds": 3, "reference_count": 50000}}
    changed = [{"key": "training.steps", "published": "125000"}, {"key": "model.channels", "published": "64"}]
    recipe = {"published": [figure], "changed": changed, "training": {"steps": 300}, "model": {"channels": 16}}
    protocol = {**HERE, "extractor": "classifier-1f3a", "samples": 1000}
    (answer,) = answers(recipe, {"fd": Measured("FD[classifier-1f3a]", "99")}, protocol, "last", 1)
    assert answer.differences == (
        Difference("extractor", "inception", "classifier-1f3a"),
        Difference("generated images", "50000", "1000"),
        Difference("real images", "50000", "not recorded"),
        Difference("selection", "best of 20 by FID", "last"),
        Difference("seeds", "3", "1"),
    )
    assert answer.changed == (
        Difference("training.steps", "125000", "300"),
        Difference("model.channels", "64", "16"),
    )
    assert answer.line == (
        "FID: published 10.11 ± 0.50, here FD[classifier-1f3a] 99, which is another metric; "
        "protocol differs in: extractor, generated images, "
        "real images, selection, seeds; settings changed: training.steps, model.channels"
    )


def test_a_metric_that_was_not_measured_and_a_figure_of_another_version() -> None:
    figures = [{**FIGURE, "metric": "IS", "value": 8}, {"metric": "FID", "unknown": 1}, "text"]
    (answer,) = answers({"published": figures}, {"fd": Measured("FID", "1")}, HERE, "last", 1)
    assert answer.line == "IS: published 8, not measured here"


def test_a_smoke_run_answers_to_nothing() -> None:
    assert answers({"published": [FIGURE], "smoke": True}, {"fd": Measured("FID", "1")}, HERE, "last", 1) == []


def test_which_evaluation_it_is() -> None:
    assert selection_words(1, "FID") == "last"
    assert selection_words(16, "FD[classifier-1f3a]") == "best of 16 by FD"


def test_terminal_and_page_show_the_figure_of_a_run(run: RunDirectory) -> None:
    assert answers_of_run(read_run(run.path)) == []
    assert "Beside what was published" not in render(read_run(run.path))
    with_figures(run, changed=[{"key": "training.steps", "published": "100000"}])
    (answer,) = answers_of_run(read_run(run.path))
    assert answer.here == Measured("FD[classifier-1f3a9c2d]", "12.53")
    assert [one.name for one in answer.differences][-1] == "selection"
    assert answer.line in str(RunOutcome.read(run.path))
    page = render(read_run(run.path))
    assert "Beside what was published" in page
    for words in (
        "10.11",
        "12.53",
        "table &lt;2&gt;",
        "read off a figure",
        "<strong>training.steps</strong>: 100000, 2000",
    ):
        assert words in page


def test_a_smoke_run_says_so_wherever_its_numbers_stand(tmp_path: Path) -> None:
    smoke = with_figures(make_run(tmp_path / "quickstart-smoke-0123456789"), smoke=True)
    data = read_run(smoke.path)
    assert data.is_smoke
    assert "smoke run: the numbers mean nothing" in str(RunOutcome.read(smoke.path)).splitlines()[0]
    page = render(data)
    assert "This is a smoke run" in page
    assert "Beside what was published" not in page
