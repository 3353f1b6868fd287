"""Smoke runs: whole, short, and never taken for anything else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from recipe_rows import RECIPES, ROWS, loaded
from typer.testing import CliRunner

from gancompress.api.commands import run
from gancompress.cli.main import app, main
from gancompress.components.registry import DATASETS
from gancompress.errors import RecipeError, RunError
from gancompress.experiment import memory
from gancompress.recipe.identity import directory_name, run_id
from gancompress.recipe.load import component_config, load_recipe, parse_recipe, smoke_test

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.api.outcomes import RunOutcome
    from gancompress.recipe.schema import Recipe

#: every backbone and task that a recipe has, and methods that update masks, go through rounds and balance networks; the
#: images of smoke runs are drawn whatever the data are, and the dry runs go through every recipe and row
FAST: dict[str, tuple[str, ...]] = {
    "adapt_sngan_cifar10@strict-adapt-d0.1": (),
    "compare_digits": (),
    "cyclegan_outlines": (),
    "fastgan_256": ("data.resolution=64",),  # at 256 pixels it takes a quarter of a minute
    "lottery_sngan@ticket-0.8": (),
    "pix2pix_outlines": (),
    "projected_church256": ("data.resolution=64",),
    "quickstart": (),
    "r3gan_cifar10": (),
    "stgan_biggan": (),
    "stugan_sngan": (),
    "stylegan2_cifar10": (),
}
#: whose step is not played without values beforehand, which is most of such a run: tests of the estimate do that
UNPLAYED = ("cyclegan_outlines", "fastgan_256", "projected_church256", "r3gan_cifar10", "stylegan2_cifar10")


@pytest.fixture(autouse=True)
def _own_cache(
    quick_classifier: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One classifier per shape for all tests here, away from the user's cache."""
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path_factory.getbasetemp() / "smoke-cache"))


def smoked(address: str, out: Path, *overrides: str) -> tuple[RunOutcome, list[dict[str, Any]]]:
    outcome = run(address, overrides, out=out, smoke=True, progress=False)
    log = [json.loads(line) for line in (outcome.directory / "log.jsonl").read_text().splitlines()]
    return outcome, log


def check(address: str, out: Path, *overrides: str) -> None:
    """Run one row and look at everything that it leaves."""
    outcome, log = smoked(address, out, *overrides)
    recipe = load_recipe(address, overrides, smoke=True).recipe
    if getattr(recipe.model, "takes_weights", False):  # what these are is known when they are read or drawn
        recipe = load_recipe(str(outcome.directory)).recipe
    assert outcome.state == "done"
    assert "smoke run: the numbers mean nothing" in str(outcome).splitlines()[0]
    assert outcome.directory.name == directory_name(recipe)
    assert outcome.directory.name.startswith(f"{load_recipe(address).recipe.name}-smoke-")
    for name in ("metrics.json", "cost.json", "environment.json"):
        assert json.loads((outcome.directory / name).read_text())["smoke"] is True
    assert "This is a smoke run" in (outcome.directory / "report.html").read_text()
    kinds = [record["kind"] for record in log]
    assert kinds.count("evaluation") >= 2
    assert "sample" in kinds
    updates = {record["step"] for record in log if record["kind"] == "update"}
    if getattr(recipe.sparsity.method, "every", None) is not None:
        assert len(updates) >= 2


@pytest.mark.parametrize("address", FAST)
def test_every_recipe_smokes(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if address in UNPLAYED:
        monkeypatch.setattr(memory, "_largest_step", lambda _: None)
    check(address, tmp_path, *FAST[address])


def test_no_backbone_and_no_task_is_left_to_the_slow_ones() -> None:
    def networks(addresses: list[str]) -> set[tuple[str, str]]:
        recipes = [loaded(address).recipe for address in addresses]
        return {(recipe.task.name, recipe.model.name) for recipe in recipes}

    assert networks([*FAST]) == networks(RECIPES)


@pytest.mark.slow
@pytest.mark.parametrize("address", [row for row in ROWS if FAST.get(row) != ()])
def test_every_row_smokes(address: str, tmp_path: Path) -> None:
    check(address, tmp_path)


# --------------------------------------------------------------------------- what it keeps, and what it shrinks


def test_the_headline_keeps_what_makes_it_what_it_is() -> None:
    full, small = loaded("stgan_biggan").recipe, load_recipe("stgan_biggan", smoke=True).recipe
    assert small.smoke
    assert (small.sparsity.generator, small.sparsity.discriminator) == (
        full.sparsity.generator,
        full.sparsity.discriminator,
    )
    assert small.objective.model_dump() == full.objective.model_dump()
    assert (small.training.discriminator_steps, small.training.ema.decay) == (4, 0.9999)
    assert small.training.optimizers == full.training.optimizers
    assert small.sparsity.method.model_dump() == {**full.sparsity.method.model_dump(), "every": 3}
    assert small.data.model_dump() | {"seed": 0} == {
        "name": "shapes",
        "resolution": 32,
        "channels": 3,
        "classes": 10,
        "labelled": True,
        "images": 24,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("address", "resolution", "classes"),
    [("adapt_sngan_stl10", 48, 0), ("adapt_biggan_tiny_imagenet", 64, 24), ("quickstart", 16, 10)],
)
def test_images_have_the_shape_of_the_real_ones(address: str, resolution: int, classes: int) -> None:
    config = component_config(load_recipe(address, smoke=True).recipe.data)
    spec = DATASETS.get("shapes")(config).spec
    assert (spec.resolution, spec.num_classes) == (resolution, classes)


def test_files_that_are_at_hand_say_their_shape(tmp_path: Path) -> None:
    from PIL import Image

    for label in range(3):
        (tmp_path / f"class {label}").mkdir()
        Image.new("L", (32, 32)).save(tmp_path / f"class {label}" / "0.png")
    data = {"name": "folder", "path": str(tmp_path)}
    whole = parse_recipe({"name": "a", "data": data, "model": "dcgan", "training": {"steps": 10**6}})
    small = smoke_test(whole).recipe
    spec = DATASETS.get("shapes")(component_config(small.data)).spec
    assert (spec.channels, spec.resolution, spec.num_classes) == (1, 32, 3)


def test_overrides_come_before_the_shrinking_and_a_smoke_run_is_not_shrunk_twice() -> None:
    small = load_recipe("stgan_biggan", ("training.discriminator_steps=2", "training.steps=9"), smoke=True)
    assert small.recipe.training.discriminator_steps == 2
    again = smoke_test(small)
    assert again is small


# --------------------------------------------------------------------------- never confused with a real run


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return run("compare_digits", out=tmp_path / "runs", smoke=True, progress=False).directory


def test_its_id_is_its_own_even_with_the_same_settings() -> None:
    small = load_recipe("compare_digits", smoke=True).recipe
    real: Recipe = small.model_copy(update={"smoke": False})
    assert run_id(real) != run_id(small)


def test_it_resumes_as_itself_and_as_nothing_else(finished: Path) -> None:
    before = (finished / "log.jsonl").read_bytes()
    for smoke in (False, True):
        assert run(finished, smoke=smoke, progress=False).directory.resolve() == finished.resolve()
    assert (finished / "log.jsonl").read_bytes() == before
    assert [path.name for path in finished.parent.iterdir()] == [finished.name]
    with pytest.raises(RunError, match=r"the recipe was changed"):
        run(finished, {"smoke": False}, progress=False)


def test_a_real_run_directory_can_be_smoked_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("extends: compare_digits\n", encoding="utf-8")
    outcome = run(tmp_path, out=tmp_path / "runs", smoke=True, progress=False)
    assert outcome.directory.parent == tmp_path / "runs"


def test_lists_and_evaluations_say_that_it_is_one(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["ls", "--out", str(finished.parent)], ["evaluate", str(finished)]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "done, smoke" in text
    assert "smoke run: the numbers mean nothing" in text
    (written,) = (finished / "evaluations").glob("*.json")
    assert json.loads(written.read_text())["smoke"] is True


def test_validate_and_show_take_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["validate", "stugan_biggan@gmp-g0.05", "--smoke"], ["show", "stgan_biggan", "--smoke"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "ready: gancompress run stugan_biggan@gmp-g0.05 --smoke" in text
    assert "smoke: true" in text


def test_a_smoke_run_says_that_it_draws_its_images_and_refuses_a_path_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no '.*gone\.zip' here; a smoke run draws its own images: leave it out"):
        load_recipe("sngan_cifar10", (f"data.path={tmp_path}/gone.zip",), smoke=True)
    (tmp_path / "here.zip").write_bytes(b"")
    assert load_recipe("sngan_cifar10", (f"data.path={tmp_path}/here.zip",), smoke=True).recipe.data.name == "shapes"
    assert load_recipe("sngan_cifar10", smoke=True).recipe.data.name == "shapes"  # its own path may be elsewhere
    validated = CliRunner().invoke(app, ["validate", "quickstart", "--smoke"])
    assert "drawn for the smoke run, which reads none of the recipe's" in validated.output
