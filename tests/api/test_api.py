"""The commands as functions: the same runs, results that print themselves, recipes given in any way."""

from __future__ import annotations

import dataclasses
import io
import json
import pkgutil
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import gancompress
from gancompress import GancompressError
from gancompress.api import commands as api
from gancompress.api.outcomes import RunOutcome
from gancompress.cli.main import app
from gancompress.errors import ComponentError, EvaluationError, ExportError, RecipeError, RunError
from gancompress.experiment.finished import OpenedRun
from gancompress.recipe.document import dump_yaml
from gancompress.recipe.identity import directory_name
from gancompress.recipe.load import load_recipe, parse_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8, "conditional": True},
    "sparsity": {"method": {"name": "dst", "every": 2}, "density": 0.5, "weights": "all"},
    "training": {"steps": 4, "batch_size": 4, "log_every": 2},
    "evaluation": {"samples": 20, "batch_size": 20, "every": 2, "metrics": ["fd", "pr"]},
}


@pytest.fixture(scope="session")
def classifier_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _here(classifier_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One classifier for all tests here, and a directory of its own for each."""
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(classifier_cache))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, classifier_cache: Path) -> RunOutcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANCOMPRESS_CACHE", str(classifier_cache))
        return gancompress.run(TINY, out=tmp_path_factory.mktemp("runs"), progress=False)


def drawn(outcome: Any, width: int = 160) -> str:
    """Return what ``rich.print`` writes on a terminal."""
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=width, color_system=None).print(outcome)
    return out.getvalue()


# --------------------------------------------------------------------------- one front door


#: functions behind every command; an empty one prints the help of those below it
BEHIND = {
    "run": "run",
    "train": "train",
    "compare": "compare",
    "compress": "compress",
    "evaluate": "evaluate",
    "sample": "sample",
    "export": "export",
    "push": "push",
    "validate": "validate",
    "ls": "shipped_recipes variant_recipes list_runs",
    "cp": "copy_recipe",
    "show": "show_recipe recipe_schema",
    "doctor": "doctor",
    "plugins list": "list_components",
    "plugins check": "check_components",
    "plugins new": "new_plugin",
    "data prepare": "prepare_data",
    "bench train": "bench_train",
    "bench infer": "bench_infer bench_network",
}


def test_every_command_is_a_function_of_the_front_door() -> None:
    import typer.main

    from gancompress import api as door

    def leaves(command: Any, name: str) -> list[str]:
        below = getattr(command, "commands", {})
        return [leaf for key, one in below.items() for leaf in leaves(one, f"{name} {key}".strip())] or [name]

    assert set(leaves(typer.main.get_command(app), "")) == set(BEHIND)
    names = {name for functions in BEHIND.values() for name in functions.split()}
    assert names == set(door.__all__)
    for name in names:
        assert callable(getattr(door, name))
        if name != "export":  # a package has this name
            assert getattr(gancompress, name) is getattr(door, name)


def test_a_validation_tells_what_a_run_would_start_with() -> None:
    state = torch.random.get_rng_state()
    found = gancompress.validate(TINY, {"seed": 3})
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (found.files, found.loaded.recipe.seed) == ((), 3)
    assert found.components == {"data": "shapes", "model": "dcgan", "loss": "hinge", "method": "dst"}
    assert (found.images.count, found.images.spec.resolution) == (48, 16)
    assert sum(found.images.of_class) == 48
    assert set(found.run.networks) == {"generator", "discriminator"}
    for network in found.run.networks.values():
        assert network.budget.exact_density == 0.5
        assert network.state.nonzeros == network.budget.total
        assert network.state.density == pytest.approx(0.5, abs=1e-3)
        assert 0 < sum(network.budget.sizes.values()) < network.parameters
    assert not list(Path().iterdir())
    with pytest.raises(EvaluationError, match="classifier: 12 real images are too few"):
        gancompress.validate(TINY, {"data.images": 12})


def test_recipes_are_shown_and_copied_as_the_commands_do() -> None:
    text = gancompress.show_recipe("quickstart", {"seed": 5})
    assert text == CliRunner().invoke(app, ["show", "quickstart", "--set", "seed=5"]).stdout
    copied = gancompress.copy_recipe("quickstart", "mine.yaml")
    assert (copied, gancompress.copy_recipe("quickstart", copied)) == (Path("mine.yaml"), copied)
    (shipped,) = (one for one in gancompress.shipped_recipes() if one.name == "quickstart")
    assert copied.read_bytes() == shipped.path.read_bytes()
    copied.write_text("name: other\n")
    with pytest.raises(RecipeError, match="already there"):
        gancompress.copy_recipe("quickstart", copied)
    assert gancompress.copy_recipe("quickstart", copied, force=True).read_bytes() == shipped.path.read_bytes()
    with pytest.raises(RecipeError, match="no shipped recipe 'quikstart'; did you mean 'quickstart'"):
        gancompress.copy_recipe("quikstart")


def test_runs_are_listed_as_records(finished: RunOutcome) -> None:
    (found,) = gancompress.list_runs(finished.directory.parent)
    assert (found.path, found.status.state, found.last_step) == (finished.directory, "done", 4)
    assert gancompress.list_runs("nowhere") == []


def test_components_are_listed_and_held_to_their_contract() -> None:
    methods = {one.entry.name: one.trouble for one in gancompress.list_components("method")}
    assert methods["rigl"] == ""
    with pytest.raises(ComponentError, match="no components of kind 'methods'; did you mean 'method'"):
        gancompress.list_components("methods")
    outcomes = [outcome for _, outcome in gancompress.check_components("hinge", kind="loss")]
    assert outcomes[0].name == "loads"
    assert len(outcomes) > 3
    assert {outcome.state for outcome in outcomes} <= {"passed", "skipped"}
    with pytest.raises(RecipeError, match="has no setting 'evry'; did you mean 'every'"):
        next(gancompress.check_components("rigl", {"evry": 2}))
    with pytest.raises(ComponentError, match="no template of kind 'extractor'"):
        gancompress.new_plugin("my-thing", "extractor")


def test_a_doctor_returns_its_findings() -> None:
    findings = {one.name: one for one in gancompress.doctor()}
    assert findings["gancompress"].value == gancompress.__version__
    assert {"python", "torch", "device", "sparse kernels", "runs", "cache"} <= set(findings)


# --------------------------------------------------------------------------- run


def test_a_run_tells_what_its_files_hold(finished: RunOutcome) -> None:
    assert finished.directory.name == directory_name(parse_recipe(TINY).recipe)
    assert (finished.name, finished.state, finished.step) == ("tiny", "done", 4)
    assert [evaluation.step for evaluation in finished.evaluations] == [2, 4]
    record = json.loads((finished.directory / "metrics.json").read_text())["best"]
    assert finished.best is not None
    assert finished.best.step == record["step"]
    assert list(finished.metrics) == ["fd", "precision", "recall"]
    fd = finished.metrics["fd"]
    with pytest.raises(KeyError, match="'fid' was not measured; did you mean 'fd'"):
        finished.metrics["fid"]
    assert (fd.value, fd.protocol) == (record["metrics"][0]["value"], record["metrics"][0]["protocol"])
    assert fd.label.startswith("FD[classifier-")
    assert not fd.higher_is_better
    cost = json.loads((finished.directory / "cost.json").read_text())
    assert finished.cost.training_flops == cost["theory"]["training"]["flops"]
    assert finished.cost.inference_flops_dense == cost["theory"]["inference"]["generator"]["dense_flops"]
    assert finished.cost.generator_bytes == cost["bytes"]["generator"]["packed"]
    assert finished.cost.latency_seconds == cost["time"]["generator_latency"]["median_seconds"]
    assert finished.densities == pytest.approx({"generator": 0.5, "discriminator": 0.5}, abs=1e-3)
    assert finished.samples == finished.directory / "samples" / "00000004.png"
    assert finished.report == finished.directory / "report.html"
    assert finished.last == finished.evaluations[-1]


def test_function_and_command_make_the_same_run(finished: RunOutcome, tmp_path: Path) -> None:
    Path("tiny.yaml").write_text(dump_yaml(TINY))
    result = CliRunner().invoke(app, ["run", "tiny.yaml", "--out", "runs"])
    assert result.exit_code == 0, result.output
    other = RunOutcome.read(tmp_path / "runs" / finished.directory.name)
    assert other.metrics == finished.metrics
    name = "checkpoints/00000004/manifest.json"
    assert (other.directory / name).read_bytes() == (finished.directory / name).read_bytes()
    # the table is the command's, but for what a clock said
    timeless = [line for line in str(other).splitlines() if "measured" not in line]
    assert timeless == [line for line in result.stdout.splitlines() if "measured" not in line and "report" not in line]


def test_the_same_call_goes_on_and_a_run_directory_is_a_recipe(finished: RunOutcome) -> None:
    written = finished.directory / "checkpoints" / "00000004" / "manifest.json"
    before = written.stat().st_mtime_ns
    again = gancompress.run(finished.directory, progress=False)
    assert again.directory.resolve() == finished.directory.resolve()
    assert again.metrics == finished.metrics
    assert written.stat().st_mtime_ns == before
    with pytest.raises(RunError, match="the recipe was changed"):
        gancompress.run(finished.directory, {"seed": 5}, progress=False)


def test_a_run_that_is_only_trained_has_no_metrics() -> None:
    outcome = gancompress.run(TINY, evaluate=False, progress=False)
    assert outcome.directory.parent == Path("runs")
    assert (outcome.evaluations, outcome.best, outcome.last, dict(outcome.metrics)) == ((), None, None, {})
    assert "generator density" in str(outcome)
    assert repr(outcome) == f"<RunOutcome tiny: done, generator density 0.5; {outcome.directory}>"


def test_a_smoke_run_ends_in_seconds_whatever_the_recipe_asks_for() -> None:
    Path("tiny.yaml").write_text(dump_yaml(TINY))
    long = {"training.steps": 5000}
    outcome = gancompress.run("tiny.yaml", long, smoke=True, evaluate=False, progress=False)
    assert outcome.name == "tiny-smoke"
    assert outcome.step < 100
    for recipe in (TINY, parse_recipe(TINY), parse_recipe(TINY).recipe):
        loaded = api.resolve(recipe, long, smoke=True)
        assert directory_name(loaded.recipe) == outcome.directory.name
        assert loaded.with_document(loaded.document) == loaded


def test_progress_is_silent_or_told_or_shown(capfd: pytest.CaptureFixture[str]) -> None:
    class Watching:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def start(self, name: str, directory: str, total_steps: int, done: int) -> None:
            self.heard.append(f"start {name} {done}/{total_steps}")

        def step(self, done: int, rate: float) -> None:
            self.heard.append(f"step {done}")

        def record(self, record: Mapping[str, Any]) -> None: ...

        def message(self, text: str) -> None: ...

        def finish(self) -> None:
            self.heard.append("finish")

    quick = {"training.steps": 2, "sparsity.method": "static"}
    gancompress.run(TINY, quick, evaluate=False, progress=False)
    assert capfd.readouterr() == ("", "")
    watching = Watching()
    gancompress.run(TINY, {**quick, "seed": 1}, evaluate=False, progress=watching)
    assert watching.heard == ["start tiny 0/2", "step 1", "step 2", "finish"]
    assert capfd.readouterr() == ("", "")
    gancompress.run(TINY, {**quick, "seed": 2}, evaluate=False)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("running tiny for 2 steps in runs/tiny-")


# --------------------------------------------------------------------------- recipes and overrides


def test_a_recipe_may_be_given_in_any_way() -> None:
    Path("tiny.yaml").write_text(dump_yaml(TINY))
    wanted = parse_recipe(TINY, ["seed=3"]).recipe
    for recipe in ("tiny.yaml", Path("tiny.yaml"), TINY, parse_recipe(TINY), parse_recipe(TINY).recipe):
        assert api.resolve(recipe, {"seed": 3}).recipe == wanted
    assert api.resolve("quickstart").recipe == load_recipe("quickstart").recipe
    with pytest.raises(RecipeError, match="a recipe is a file, a name, a Recipe or a dict, not a int"):
        api.resolve(3)  # type: ignore[arg-type]


def test_overrides_may_be_given_in_any_way() -> None:
    wanted = parse_recipe(
        TINY, ["sparsity.method={name: static}", "training.steps=7", "description=it's a 'no'"]
    ).recipe
    same: list[api.Overrides] = [
        {"sparsity.method": {"name": "static"}, "training.steps": 7, "description": "it's a 'no'"},
        ["sparsity.method=static", "training.steps=7", "description=it's a 'no'"],
    ]
    for overrides in same:
        assert api.resolve(TINY, overrides).recipe == wanted
    assert api.resolve(TINY, "seed=9").recipe.seed == 9
    found = api.expressions({"a": torch.tensor(2.5), "b": None, "c": [1, True], "d": Path("x/y"), "e": 1e-5, "f": "é"})
    assert found == ("a=2.5", "b=null", "c=[1, true]", 'd="x/y"', "e=1e-05", 'f="é"')


def test_words_that_look_like_other_values_stay_words() -> None:
    for word in ("null", "1e3", "true", "a: b", "#x", "[1", "~", ""):
        assert api.resolve(TINY, {"description": word}).recipe.description == word


@pytest.mark.parametrize("wrong", [{"seed": object()}, {"seed": float("nan")}, [("seed", 3)]])
def test_values_that_are_no_plain_ones_are_refused(wrong: Any) -> None:
    with pytest.raises(RecipeError, match=r"no plain value|overrides are"):
        gancompress.run(TINY, wrong)
    assert not Path("runs").exists()


def test_mistakes_are_errors_of_ours_and_leave_nothing_behind() -> None:
    with pytest.raises(GancompressError, match=r"did you mean 'dst'"):
        gancompress.run(TINY, {"sparsity.method": "dts"})
    with pytest.raises(GancompressError, match="no recipe 'quikstart'"):
        gancompress.run("quikstart")
    with pytest.raises(GancompressError, match="unknown method 'dts'"):
        gancompress.compare(TINY, ["dts"])
    with pytest.raises(GancompressError, match="must be in"):
        gancompress.compare(TINY, ["dst"], densities=1.5)
    with pytest.raises(GancompressError, match="'tenth' is no number"):
        gancompress.compare(TINY, ["dst"], densities="tenth")  # type: ignore[arg-type]
    with pytest.raises(GancompressError, match="overrides are"):
        gancompress.run(TINY, 5)  # type: ignore[arg-type]
    with pytest.raises(GancompressError, match="not a run directory"):
        gancompress.compress("nowhere")
    assert list(Path().iterdir()) == []


# --------------------------------------------------------------------------- how outcomes look


def test_a_run_prints_itself_in_four_ways(finished: RunOutcome) -> None:
    fd = finished.metrics["fd"].label
    text = str(finished)
    assert text.splitlines()[0] == "tiny"
    assert fd in text
    assert "protocol: classifier-" in text
    assert repr(finished).startswith(f"<RunOutcome tiny: done, {fd} ")
    assert "\n" not in repr(finished)
    table = drawn(finished)
    assert fd in table
    assert "asked 0.5" in table
    page = finished._repr_html_()
    assert fd in page
    assert page.count("<tr>") == len([line for line in text.splitlines() if line.startswith("  ")]) - len(
        [line for line in text.splitlines() if line.startswith(("  protocol:", "  warning:"))]
    )
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page
    assert "<script" not in page


def test_html_escapes_what_a_recipe_says(tmp_path: Path) -> None:
    from gancompress.report.summary import Fact, shown_facts

    nasty = "<b onload=x>&"
    page = shown_facts(nasty, (Fact("metric", nasty, nasty, nasty),), (nasty,)).html(tmp_path / "missing.png")
    assert nasty not in page
    assert page.count("&lt;b onload=x&gt;&amp;") == 5
    assert "<img" not in page
    assert "nothing measured yet" in shown_facts("new", (), ()).html()


def test_outcomes_cannot_be_changed(finished: RunOutcome) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        finished.name = "other"  # type: ignore[misc]


# --------------------------------------------------------------------------- compare, compress, load


def test_a_comparison(capfd: pytest.CaptureFixture[str]) -> None:
    arguments: dict[str, Any] = {"methods": ["static", "dst:every=1"], "densities": [0.5], "jobs": 0, "narrow": False}
    outcome = gancompress.compare(TINY, **arguments, progress=False)
    assert capfd.readouterr() == ("", "")
    assert [row.label for row in outcome.rows] == ["dense", "static 0.5", "dst 0.5"]
    assert [row.density for row in outcome.rows] == [None, 0.5, 0.5]
    assert outcome.missing == []
    assert outcome.report == outcome.directory / "compare.html"
    assert outcome.report.is_file()
    runs = outcome.runs
    assert set(runs) == {"dense-s0", "static-d0.5-s0", "dst-every-1-d0.5-s0"}
    assert all(run.state == "done" for run in runs.values())
    assert runs["static-d0.5-s0"].last is not None
    assert outcome.rows[1].last[outcome.results.primary].mean == runs["static-d0.5-s0"].last.metrics["fd"].value  # type: ignore[union-attr]
    for shown in (str(outcome), drawn(outcome), outcome._repr_html_()):
        assert "Held equal: 4 training steps" in shown
        assert "dst:every=1" in shown
        assert "One seed: an anecdote" in shown
    assert repr(outcome) == f"<ComparisonOutcome 3 of 3 runs; {outcome.directory}>"

    gancompress.compare(TINY, **arguments)
    told = capfd.readouterr()
    assert told.out == ""
    assert "done in" not in told.err  # nothing was run again
    assert "Evaluation noise" not in shown
    assert "of one run of static varies by" in str(gancompress.compare(TINY, **arguments, noise=2, progress=False))


def test_a_comparison_counts_what_ended_and_names_what_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from gancompress.experiment.run import Experiment

    real = Experiment.run

    def fails_when_static(self: Experiment) -> Any:
        if self.recipe.sparsity.method.name == "static":
            raise RunError("no luck")
        return real(self)

    monkeypatch.setattr(Experiment, "run", fails_when_static)
    arguments: dict[str, Any] = {"jobs": 0, "narrow": False, "progress": False}
    outcome = gancompress.compare(TINY, ["static"], {"seed": 4}, **arguments)
    assert [cell.name for cell in outcome.missing] == ["static-d0.5-s4"]
    assert "missing: static-d0.5-s4" in str(outcome)
    assert "1 of 2 runs" in repr(outcome)
    monkeypatch.setattr(Experiment, "run", lambda self: (_ for _ in ()).throw(RunError("no luck")))
    with pytest.raises(GancompressError, match="no run of this comparison ended: dense-s5 failed: no luck"):
        gancompress.compare(TINY, ["static"], {"seed": 5}, **arguments)


def test_a_compression(finished: RunOutcome, tmp_path: Path) -> None:
    outcome = gancompress.compress(finished, 0.25, steps=2, out=tmp_path / "small", progress=False)
    assert outcome.directory.parent == tmp_path / "small"
    assert outcome.before.density == pytest.approx(0.5, abs=0.01)  # some grown weights are still 0
    assert outcome.after.density == pytest.approx(0.25, abs=1e-3)
    assert outcome.after.bytes < outcome.before.bytes
    assert outcome.after.metrics["fd"].protocol == outcome.before.metrics["fd"].protocol
    assert outcome.after.metrics["fd"].value == outcome.run.last.metrics["fd"].value  # type: ignore[union-attr]
    assert outcome.run.report is not None
    assert "after, the same latents" in outcome.run.report.read_text()
    measured = json.loads((outcome.directory / "compress.json").read_text())["measured"]
    assert {"torch, dense", "sparse"} <= set(measured["times"])
    assert measured["psnr"]["images"] == 16
    assert "time, torch, dense" in str(outcome)
    for shown in (str(outcome), drawn(outcome), outcome._repr_html_()):
        assert "before" in shown
        assert "fine-tuning:" in shown
    assert repr(outcome).startswith(f"<CompressionOutcome {finished.directory.name}: density 0.49")


def test_a_run_is_exported_and_loaded(finished: RunOutcome, tmp_path: Path) -> None:
    file = finished.export(tmp_path / "g.safetensors")
    images = gancompress.load(file)(n=3, seed=1)
    assert images.shape == (3, 3, 16, 16)
    whole = finished.export()
    assert finished.export(values="bf16") == finished.directory / "export" / "generator-bf16.safetensors"
    assert whole.stat().st_size > finished.export(values="bf16").stat().st_size  # and was not replaced
    with pytest.raises(RunError, match="no checkpoint of step 77"):
        finished.export(step="77")
    with pytest.raises(ExportError):
        finished.export(tmp_path / "h.safetensors", values="int3")  # type: ignore[arg-type]


def test_a_run_takes_no_calibration_and_has_to_be_there_first(finished: RunOutcome, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such directory"):
        gancompress.api.export(tmp_path / "nowhere", values="int8", calibration=[torch.zeros(1, 3, 16, 16)])
    with pytest.raises(ExportError, match="a run is calibrated on its own latents: leave calibration out"):
        gancompress.api.export(finished.directory, values="int8", calibration=[torch.zeros(1, 3, 16, 16)])


def test_a_finished_run_is_measured_sampled_and_exported(finished: RunOutcome, tmp_path: Path) -> None:
    measured = gancompress.evaluate(finished, {"samples": 30}, progress=False)
    assert [metric.key for metric in measured.metrics] == list(finished.metrics)
    assert str(measured).splitlines()[-2].startswith("protocol: ")
    assert "30 generated" in measured.metrics[0].protocol
    assert json.loads(measured.file.read_text())["step"] == 4
    assert gancompress.sample(finished, tmp_path / "grid.png", count=10, step=2).is_file()
    made = gancompress.api.export(finished.directory, tmp_path / "g.safetensors", values="bf16")
    assert made.size == made.file.stat().st_size
    assert sum(size.packed for size in made.tensors.values()) < made.size
    assert made.difference is None
    with pytest.raises(ExportError, match="holds float32"):
        gancompress.api.export(finished, format="onnx", values="bf16")
    with pytest.raises(ExportError, match=r"g\.onnx: ends in \.onnx and would be no ONNX file"):
        gancompress.api.export(finished, tmp_path / "g.onnx")


def test_what_is_for_networks_from_elsewhere_is_refused_of_runs_and_patterns_are_for_both(
    finished: RunOutcome, tmp_path: Path
) -> None:
    for name, given in {"pixels": (-1.0, 1.0), "seed": 3}.items():
        with pytest.raises(RecipeError, match=f"^{name} is for networks from elsewhere"):
            gancompress.compress(finished, out=tmp_path, **{name: given})  # type: ignore[call-overload]
    with pytest.raises(RecipeError, match="pattern"):
        gancompress.compress(finished, pattern="0x4", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_status_keeps_no_whole_checkpoint_back(finished: RunOutcome, tmp_path: Path) -> None:
    copy = shutil.copytree(finished.directory, tmp_path / finished.directory.name)
    (copy / "status.json").write_text("[]")
    made = gancompress.api.export(copy)
    assert (made.state, made.step) == ("unknown", 4)
    assert made.file.read_bytes() == finished.export().read_bytes()


def test_pixels_that_are_no_numbers_name_the_run(
    finished: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenedRun.generator

    def overflown(self: OpenedRun, *arguments: Any, **options: Any) -> Any:
        network = opened(self, *arguments, **options)
        for parameter in network.parameters():
            parameter.data.fill_(torch.nan)
        return network

    monkeypatch.setattr(OpenedRun, "generator", overflown)
    for make in (
        lambda: gancompress.sample(finished, tmp_path / "grid.png", count=10),
        lambda: gancompress.sample(finished, tmp_path / "images.zip", count=10),
        lambda: gancompress.evaluate(finished, {"samples": 30}, progress=False),
    ):
        with pytest.raises(EvaluationError, match=f"^{re.escape(str(finished.directory))}/checkpoints/00000004: .*NaN"):
            make()


def test_every_command_has_its_function() -> None:
    for name in gancompress.api.__all__:
        assert callable(getattr(gancompress.api, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gancompress.api.nothing  # noqa: B018


def test_no_public_name_is_also_a_module() -> None:
    """Importing such a module would silently put it in the function's place."""
    modules = {module.name for module in pkgutil.iter_modules(gancompress.__path__)}
    assert not modules & set(gancompress.__all__)


# --------------------------------------------------------------------------- notebooks


class _Display:
    """Stands in for IPython where there is none: remembers what a cell shows."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, thing: Any, display_id: bool = False) -> _Display:
        assert display_id
        self.shown.append(repr(thing))
        return self

    def update(self, thing: Any) -> None:
        self.shown[-1] = repr(thing)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> _Display:
    import sys
    import types

    cell = _Display()
    ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setattr(ipython, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(display, "display", cell.display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return cell


def test_a_notebook_gets_one_line_that_changes(
    notebook: _Display, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gancompress.comparison.shipping.ship", lambda *_, **__: None)  # which may say more
    gancompress.run(TINY, {"seed": 8})
    assert len(notebook.shown) == 1
    assert notebook.shown[0].startswith("tiny: step 4/4  ended  FD[classifier-")
    gancompress.compare(TINY, ["static"], jobs=0, narrow=False)
    assert len(notebook.shown) == 2
    assert notebook.shown[1].startswith("static-d0.5-s0: done in ")
    assert capfd.readouterr() == ("", "")


def test_a_line_of_a_notebook_is_escaped() -> None:
    from gancompress.progress import NotebookLine

    line = NotebookLine()
    line._text = "<b>"
    assert "&lt;b&gt;" in line._repr_html_()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: gancompress.run("quickstart", {"training.stepz": 5}), "training.stepz=5: unknown key"),
        (
            lambda: gancompress.validate("quickstart", {"training.steps": "many"}),
            'training.steps="many": must be a whole',
        ),
        (lambda: gancompress.compare("quickstart", methods="no-such"), "methods: unknown method"),
        (lambda: gancompress.compare("quickstart", densities=2), "density: must be in"),
        (lambda: gancompress.compare("quickstart", budget="hours"), "budget: expected steps"),
        (lambda: gancompress.compress("weights.safetensors", density=0.1), "needs a recipe; to be pruned"),
    ],
)
def test_errors_in_python_speak_of_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, said: str
) -> None:
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    save_file({"a": torch.zeros(1)}, "weights.safetensors")
    with pytest.raises(GancompressError) as caught:
        call()
    assert said in str(caught.value)
    assert "--" not in str(caught.value)
