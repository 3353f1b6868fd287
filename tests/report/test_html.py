"""The page of a run: its numbers and protocols are there, it needs nothing outside itself, and nothing breaks it."""

from __future__ import annotations

import base64
import errno
import os
import re
import shutil
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from report_fake_run import PROTOCOL, RECIPE, layers, metrics_at, png, write_log

from gancompress.api.outcomes import RunOutcome
from gancompress.errors import RunError
from gancompress.recipe.document import dump_yaml
from gancompress.report.html import build_report
from gancompress.report.summary import headline
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import read_run

if TYPE_CHECKING:
    from pathlib import Path

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; notices tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(run: RunDirectory) -> tuple[str, Page]:
    path = build_report(run.path)
    assert path == run.path / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_has_the_numbers(run: RunDirectory) -> None:
    _, page = page_of(run)
    for words in (
        "quickstart done Sparse class-conditional GAN on handwritten digits.",
        "method dst model dcgan data digits steps 2,000 of 2,000 batch 64 seed 0 run ab12cd34-s0",
        "generator density 0.20449 asked 0.2045; 391,208 of 1,913,088 weights",
        "discriminator density 0.46044 asked 0.46; 136,320 of 296,064 weights",
        # 75,776 + 2 × 1,453,312 + 5,813,248 + 2,600,448 + 147,456 of 75,776 + 2 × 9,437,184 + …
        "inference FLOPs against dense 0.1891× 11.54 M of 61.04 M multiply-adds per image",
        "training FLOPs against dense 0.2021× 2.021 T of 10 T FLOPs, whole run",
        "training time, measured 1 min 16 s 26.3 steps per second; on An Imaginary CPU, 2 threads",
        "generator size, packed 1.811 MB computed from the budgets; 7.878 MB when dense",
        "FD[classifier-1f3a9c2d] 12.53 best, at step 1,750; last, at step 2,000: 15.73",
        f"{PROTOCOL} [51bf0c77aa10]",
        # the table says once what all protocols share
        f"All of these: {PROTOCOL}. metric best* last and beyond that",
        "last, step 2,000 10 splits [92cd1a34be77]",
        "8.899 ± 0.081 best*, step 1,750 8.946 ± 0.081 last, step 2,000",
        "best: 12.53 at step 1750",
        "blocks.1.shortcut.weight 256×256×1×1 65,536 40,632 0.62",
        "all layers 1,913,088 391,208 0.20449",
        "12 of 20 grids",
        "An Imaginary CPU",
        "commit e295bca",
        "allocation: erk",
    ):
        assert words in page.text, words
    for chart in ("Losses", "Discriminator output", "Density", "Exploration rate", "Churn", "Drop fraction", "Speed"):
        assert chart in page.text, chart
    assert "Unfinished" not in page.text


def test_every_note_of_a_method_is_charted(run: RunDirectory) -> None:
    for step in (2100, 2200):
        note = {"kind": "update", "step": step, "role": "generator", "swap_gain": -1 / step, "nothing": float("nan")}
        run.log(note)
    text, page = page_of(run)
    assert "Swap gain as the method notes it" in page.text
    assert "Swap gain over training steps" in text
    assert "Nothing" not in page.text  # not a number in any record
    assert "Grown" not in page.text


def test_costs_stay_apart(run: RunDirectory) -> None:
    _, page = page_of(run)
    cost = page.text[page.text.index("Three different things") :]
    theory, time, size = cost.index("Theory"), cost.index("Time measured"), cost.index("Bytes sizes of tensors")
    assert theory < cost.index("whole training 2.021 T 10 T 0.2021×") < time
    assert time < cost.index("generator, median of one pass 1.24 ms") < size
    assert size < cost.index("packed, computed 1.811 MB 577.9 kB")


def test_long_texts_and_settings_of_the_clock_are_sentences_not_rows(run: RunDirectory) -> None:
    text, page = page_of(run)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", text[text.index("<h2>Cost</h2>") : text.index("How to repeat it")])
    assert max(len(cell) for cell in cells) < 40
    assert not any("." in cell and "_" in cell for cell in cells)
    for words in (
        "Counted: MACs of kept weights. Activations are not counted.",
        "A generator pass: 1 image a pass, 11 passes, on cpu, 2 threads, float32, dense kernels.",
        "Packed: one bit for each weight of a masked layer",
        "– middle half of the passes 1.21 ms to 1.31 ms",
        "– dense gradients 1 G",
        "optimizer state 15.76 MB —",
        "peak of training, both, computed 48 MB",
        "Peak of training: weights, average, moments, masks",
    ):
        assert words in page.text, words
    assert "fisher" not in page.text  # nothing was spent on it
    assert not re.search(r"\b(11|1|2) s\b", page.text)


def test_costs_of_the_layers_as_executed_are_said_where_they_differ(run: RunDirectory) -> None:
    cost = run.read_json("cost.json")
    cost["theory"]["training"]["executed"] = {"flops": 3e12, "dense_flops": 12e12}
    run.write_json("cost.json", cost)
    _, page = page_of(run)
    assert "whole training, as executed here 3 T 12 T 0.25×" in page.text


def test_the_density_of_some_weights_is_not_taken_for_that_of_the_network(run: RunDirectory) -> None:
    outside = {"role": "generator", "name": "linear.weight", "shape": [1000, 1000], "numel": 10**6, "nonzeros": 10**6}
    recipe = run.recipe()
    recipe["sparsity"]["weights"] = "convolutions"
    (run.path / "recipe.yaml").write_text(dump_yaml(recipe))
    convolutions = [layer for layer in layers() if len(layer["shape"]) > 2]
    kept = sum(x["nonzeros"] for x in convolutions if x["role"] == "generator")
    all_ = sum(x["numel"] for x in convolutions if x["role"] == "generator")
    run.write_json("cost.json", {"layers": [*convolutions, outside]})
    run.log({"kind": "train", "step": 2000, "density_generator": kept / all_})
    fact = headline(read_run(run.path))[0]
    # 315,432 of 1,837,312, and (315,432 + 1,000,000) / 2,837,312 = 0.4636
    assert (fact.label, fact.value) == ("generator density", "0.17168")
    assert fact.detail == "of convolution weights: 315,432 of 1,837,312; 0.46 of all 2,837,312 weights; asked 0.2045"
    _, page = page_of(run)
    assert "generator density 0.17168 of convolution weights" in page.text


def test_a_distance_from_few_images_is_warned_of(run: RunDirectory) -> None:
    _, page = page_of(run)
    assert "Beware: FD from 1,000 images, fewer than 2,048, is biased upwards and noisy" in page.text


def test_one_split_has_no_spread(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path / "run", RECIPE, "x")
    metric = {"label": "IS", "value": 2.89, "std": 0.0, "higher_is_better": True}
    run.log({"kind": "evaluation", "step": 1, "metrics": [{**metric, "protocol": "seed 0, 1 split [ab12]"}]})
    run.log({"kind": "evaluation", "step": 2, "metrics": [{**metric, "protocol": "seed 0, 11 splits [ab12]"}]})
    assert [found[0].std for _, found in read_run(run.path).evaluations] == [None, 0.0]


def test_the_page_needs_nothing_outside_itself(run: RunDirectory) -> None:
    text, page = page_of(run)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert len(page.links) == 12
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert base64.b64encode(png(80, 200)).decode() in text


def test_it_can_be_made_again_from_a_copy(run: RunDirectory, tmp_path: Path) -> None:
    text, _ = page_of(run)
    shutil.copytree(run.path, tmp_path / "copy" / run.path.name)
    again = build_report(tmp_path / "copy" / run.path.name).read_text()
    stamp = re.compile(r"on \d{4}-\d\d-\d\d \d\d:\d\d UTC")
    assert stamp.sub("", again) == stamp.sub("", text)


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    recipe = {**RECIPE, "name": evil, "description": evil, "model": {"name": evil}, "data": {"name": evil}}
    run = RunDirectory.claim(tmp_path / "run", recipe, evil)
    run.status("failed", evil)
    run.log({"kind": "train", "step": 1, "loss_generator": 1.0, "density_generator": 0.5})
    metric = {"label": evil, "value": 1.0, "higher_is_better": False, "protocol": evil}
    run.log({"kind": "evaluation", "step": 1, "metrics": [metric]})
    run.log({"kind": "update", "step": 1, "role": evil, "churn": evil})
    run.log({"kind": "sample", "step": 1, "file": evil})
    run.write_json("cost.json", {"theory": {evil: evil}, "layers": [{"role": "generator", "name": evil, "shape": [evil],
                   "numel": 4, "nonzeros": 2, "macs_dense": 4, "macs_sparse": 2}]})  # fmt: skip
    run.write_json("environment.json", {evil: evil, "device": evil})
    text, page = page_of(run)
    assert "<script" not in text
    assert "<img" not in text
    assert page.text.count("alert(1)") > 10


@pytest.mark.parametrize(
    "missing", ["log.jsonl", "metrics.json", "cost.json", "environment.json", "status.json", "samples"]
)
def test_a_missing_part_is_left_out_with_a_word(run: RunDirectory, missing: str) -> None:
    target = run.path / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    _, page = page_of(run)
    said = {
        "log.jsonl": "The log has no training line yet.",
        "metrics.json": "best, at step 1,750",  # from the log
        "cost.json": "Cost is counted when the run is done.",
        "environment.json": "The environment was not recorded.",
        "status.json": "Unfinished: this run has not been started",
        "samples": "This run has no sample grids yet.",
    }
    assert said[missing] in page.text


@pytest.mark.parametrize(
    "damaged", ["log.jsonl", "metrics.json", "cost.json", "environment.json", "status.json", "recipe.yaml"]
)
def test_a_damaged_part_is_named_and_the_rest_is_shown(run: RunDirectory, damaged: str) -> None:
    (run.path / damaged).write_bytes(b"{: [\n" + b'{"kind": "train", "step": 1}\n')
    _, page = page_of(run)
    assert f"Left out, because it could not be read: {run.path / damaged}" in page.text
    assert "How to repeat it" in page.text
    assert ("this run is in an unknown state" in page.text) == (damaged == "status.json")


def test_a_compressed_run_shows_before_and_after(run: RunDirectory) -> None:
    _, page = page_of(run)
    assert "Before and after" not in page.text
    metric = {"label": "FD", "value": 10.0, "higher_is_better": False, "protocol": PROTOCOL}
    state = {"metrics": [metric], "density": 1.0, "weights": 1000, "flops": 8e6, "bytes": 4000}
    (run.path / "compress").mkdir()
    for name in ("before", "after"):
        (run.path / "compress" / f"{name}.png").write_bytes(png(6, 6))
    measured = {
        "times": {"torch, dense": {"seconds": 0.04, "faster": 1.0, "quartiles": [1.0, 1.0]},
                  "sparse": {"seconds": 0.01, "faster": 4.0, "quartiles": [3.9, 4.1]}},
        "faster": {"torch, dense": 4.0}, "call": "16 images", "notes": ["onnxruntime is not installed"],
        "machine": {"processor": "An Imaginary CPU", "torch": "2.14"}, "psnr": {"mean": 21.5, "images": 16},
        "pictures": {"before": "compress/before.png", "after": "compress/after.png", "other": "../../secret.png"},
    }  # fmt: skip
    after = {**state, "density": 0.25, "weights": 250, "bytes": 500, "flops": 2e6}
    run.write_json("compress.json", {"source": "<b>big</b>", "before": state, "after": after, "measured": measured})
    text, page = page_of(run)
    for words in (
        "What compressing <b>big</b> came to. 16 images before and after, of the same inputs each: PSNR 21.5 dB",
        "generator density 1 0.25",
        "time, torch, dense 40 ms 10 ms 4.00× as fast",
        "one call on 16 images, median, 1 thread of An Imaginary CPU",
        "before, the same latents",
    ):
        assert words in page.text, words
    assert "<b>big" not in text
    assert len(page.links) == 12 + 2
    for damaged in (
        "[1]",
        '{"before": 7}',
        '{"before": {"weights": 0}, "after": {"weights": 1}, "measured": {"times": 3}}',
    ):
        (run.path / "compress.json").write_text(damaged)
        assert "Before and after" not in page_of(run)[1].text


@pytest.mark.parametrize(
    "content",
    ['{"layers": 7, "theory": [1], "time": null}', '{"layers": [7, {"role": "generator"}], "bytes": {"generator": 3}}',
     '{"layers": [{"role": "generator", "name": null, "shape": null, "numel": 0, "nonzeros": "x"}]}',
     '{"theory": {"training": {"flops": 1, "dense_flops": 0}}, "time": {"training_seconds": "soon"}}'],
)  # fmt: skip
def test_odd_costs_break_nothing(run: RunDirectory, content: str) -> None:
    (run.path / "cost.json").write_text(content)
    page_of(run)


@pytest.mark.parametrize(
    "record",
    [{"kind": "evaluation", "step": 1, "metrics": None}, {"kind": "evaluation", "metrics": [7, {}]},
     {"kind": "train"}, {"kind": "train", "step": None, "seconds": "x"}, {"kind": "sample"}, {"step": 3}, {},
     {"kind": "update", "step": 5, "role": None}, {"kind": "sample", "step": 4, "file": "recipe.yaml"}],
)  # fmt: skip
def test_odd_records_break_nothing(tmp_path: Path, record: dict) -> None:
    run = RunDirectory.claim(tmp_path / "run", RECIPE, "x")
    run.log(record)
    text, _ = page_of(run)
    assert "data:image" not in text


def test_an_unfinished_run_is_marked(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path / "run", RECIPE, "x")
    _, page = page_of(run)
    assert "Unfinished: this run has not been started at step 0" in page.text
    run.status("running")
    write_log(run, last=700)
    with run.lock():
        _, page = page_of(run)
        assert "(running, step 700)" in str(RunOutcome.read(run.path)).splitlines()[0]
    assert "Unfinished: this run was still running when this page was made, at step 700 of 2,000." in page.text
    assert "steps 700 of 2,000" in page.text
    assert "Layers are counted when the run is done." in page.text
    run.status("failed", "InvariantError: loss_generator is nan at step 700")
    _, page = page_of(run)
    assert "this run failed at step 700 of 2,000: loss_generator is nan at step 700" in page.text


def test_a_smoke_run_is_marked(run: RunDirectory) -> None:
    run.write_json("environment.json", {**run.read_json("environment.json"), "smoke": True})
    _, page = page_of(run)
    assert "This is a smoke run" in page.text
    assert "Its numbers mean nothing" in page.text


def test_a_metric_that_was_not_finite_is_said_and_never_best(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path / "run", RECIPE, "x")
    for step, value in ((1, 5.0), (2, float("nan")), (3, 7.0), (4, float("inf"))):
        run.log({"kind": "evaluation", "step": step, "metrics": [{**metrics_at(1)[0], "value": value}]})
    data = read_run(run.path)
    assert data.best is not None
    assert data.best[0] == 1
    _, page = page_of(run)
    assert "last, at step 4: not finite" in page.text


def test_the_best_of_a_metric_that_rises_is_the_highest(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path / "run", RECIPE, "x")
    for step, value in ((1, 5.0), (2, 9.0), (3, 7.0)):
        run.log({"kind": "evaluation", "step": step, "metrics": [{"name": "IS", "value": value, "better": "higher"}]})
    data = read_run(run.path)
    assert data.best is not None
    assert (data.best[0], data.best[1][0].label) == (2, "IS")
    _, page = page_of(run)
    assert "protocol not recorded" in page.text


def test_a_protocol_may_be_an_object_with_its_text(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path / "run", RECIPE, "x")
    run.log(
        {"kind": "evaluation", "step": 1, "metrics": [{"label": "FID", "value": 1.0, "protocol": {"text": "thus"}}]}
    )
    assert read_run(run.path).evaluations[0][1][0].protocol == "thus"


def test_rounds_are_marked_where_they_meet(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path / "run", RECIPE, "x")
    for step in (10, 20, 30, 40):
        run.log({"kind": "train", "step": step, "loss_generator": step / 10})
        if step in (20, 40):
            run.log({"kind": "round", "step": step, "round": step // 20 - 1, "name": "train"})
    text, _ = page_of(run)
    # x runs from 10 to 40 over 56..546: the first round ends at 56 + 490 / 3.
    assert re.findall(r'class="bound" x1="([\d.]+)"', text) == ["219.3"]


def test_samples_outside_the_run_are_not_shown(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(8, 77))
    run.log({"kind": "sample", "step": 99999, "file": "../secret.png"})
    run.log({"kind": "sample", "step": 99998, "file": str(tmp_path / "secret.png")})
    text, _ = page_of(run)
    assert base64.b64encode(png(8, 77)).decode() not in text


@pytest.mark.parametrize(
    ("sparsity", "asked"),
    [
        ({"method": {"name": "dst"}, "density": 0.1}, 0.1),
        ({"method": {"name": "dst"}, "density": 0.1, "generator": {"density": 0.3}}, 0.3),
        ({"method": {"name": "dst"}, "generator": {"density": None}}, 1.0),
        ({"method": {"name": "dense"}, "density": 0.1}, 1.0),
        ({"method": {"name": "dst"}, "total_density": 0.1}, None),
        ({}, 1.0),
    ],
)
def test_the_density_asked_for(tmp_path: Path, sparsity: dict, asked: float | None) -> None:
    run = RunDirectory.claim(tmp_path / "run", {**RECIPE, "sparsity": sparsity}, "x")
    assert read_run(run.path).asked_density("generator") == asked


def test_counts_are_said_only_where_they_are_the_density(run: RunDirectory) -> None:
    outside = {"role": "generator", "name": "embed.weight", "shape": [10, 74], "numel": 740, "nonzeros": 740}
    run.write_json("cost.json", {"layers": [*layers(), outside]})
    _, page = page_of(run)
    assert "generator density 0.20449 asked 0.2045 density" in page.text.lower()


def test_a_page_that_cannot_be_written_is_a_clear_error(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    build_report(run.path)
    before = (run.path / "report.html").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"report\.html: cannot write the report: No space left"):
        build_report(run.path)
    assert (run.path / "report.html").read_bytes() == before


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        build_report(tmp_path)
