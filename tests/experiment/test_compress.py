"""Trained generators made sparse: what they start from, what that is called, and what is refused."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from gancompress.api.outcomes import CompressionOutcome
from gancompress.cli.main import app
from gancompress.errors import BackboneError, RecipeError, RunError
from gancompress.experiment.compress import compress, open_source, plan_compression
from gancompress.experiment.finished import open_run
from gancompress.experiment.initial import load_initial, read_initial
from gancompress.experiment.run import Experiment
from gancompress.progress import Silent
from gancompress.recipe.document import dump_yaml
from gancompress.recipe.identity import run_id
from gancompress.recipe.load import load_recipe, parse_recipe
from gancompress.storage.checkpoint import checkpoints, load

if TYPE_CHECKING:
    from pathlib import Path

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8, "conditional": True},
    "training": {"steps": 6, "batch_size": 4, "log_every": 3},
    "evaluation": {"samples": 20, "batch_size": 20, "metrics": ["fd", "pr"]},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Experiment(parse_recipe(TINY).recipe, tmp_path_factory.mktemp("runs"), evaluates=False).run().path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path_factory.getbasetemp() / "comparison-cache"))


def magnitude_mask(weights: dict[str, torch.Tensor], name: str, kept: int) -> torch.Tensor:
    values = weights[name].abs().flatten()
    mask = torch.zeros_like(values, dtype=torch.bool)
    mask[values.argsort(descending=True, stable=True)[:kept]] = True
    return mask.view_as(weights[name])


def test_the_largest_trained_weights_are_kept_and_no_dense_round_comes_first(trained: Path, tmp_path: Path) -> None:
    source = open_source(trained)
    recipe = plan_compression(
        source, "magnitude", 0.3, 4, ("training.checkpoint_every=1", "training.keep_checkpoints=9")
    )
    result = Experiment(recipe, tmp_path, evaluates=False).run()
    log = open_run(result.path).directory.read_log("round")
    assert [(record["name"], record["step"]) for record in log] == [("finetune", 4)]
    masks = load(checkpoints(result.path / "checkpoints")[0]).groups["sparsity"]
    names = [name for name in masks if name.startswith("generator") and name.endswith(".weight") and "mask" in name]
    before = dict(source.weights.generator)
    assert names
    for name in names:
        weight = name[name.index("mask") :].split(".", 1)[1]
        assert torch.equal(masks[name].bool(), magnitude_mask(before, weight, int(masks[name].sum()))), name


def test_the_discriminator_comes_along(trained: Path) -> None:
    from gancompress.experiment.assemble import build_dataset
    from gancompress.experiment.networks import build_backbone, build_networks

    source = open_source(trained)
    recipe = plan_compression(source, "magnitude", 0.3)
    networks = build_networks(build_backbone(recipe, build_dataset(recipe).spec), 7)
    load_initial(recipe, networks.named)
    assert source.weights.discriminator is not None
    for network, state in (
        (networks.generator, source.weights.generator),
        (networks.discriminator, source.weights.discriminator),
    ):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert recipe.training.steps == 3
    assert recipe.sparsity.discriminator.density is None


def test_a_run_is_its_weights_and_not_where_they_lie(trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    here, there = (plan_compression(open_source(path), "magnitude", 0.3) for path in (trained, moved))
    assert here.training.init_from != there.training.init_from
    assert run_id(here) == run_id(there)
    Experiment(here, tmp_path / "out", evaluates=False).run()
    Experiment(there, tmp_path / "out", evaluates=False).run()  # the same directory takes it
    assert len(list((tmp_path / "out").iterdir())) == 1
    plain = load_recipe(trained).recipe
    assert plain.training.init_from is None


def test_other_weights_under_the_same_path_are_refused(trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    recipe = plan_compression(open_source(moved), "magnitude", 0.3)
    assert recipe.training.init_from is not None
    other = recipe.training.init_from.model_copy(update={"hash": "0" * 16})
    wrong = recipe.model_copy(update={"training": recipe.training.model_copy(update={"init_from": other})})
    with pytest.raises(RecipeError, match="holds other weights"):
        Experiment(wrong, tmp_path / "out", evaluates=False).run()
    assert run_id(wrong) != run_id(recipe)


def test_what_is_made_of_a_smoke_run_is_one(trained: Path, tmp_path: Path) -> None:
    source = open_source(trained)
    found = compress(plan_compression(source, "magnitude", 0.3, 2, ("smoke=true",)), source, tmp_path)
    for name in ("before.json", "compress.json", "metrics.json", "cost.json"):
        assert json.loads((found.directory / name).read_text())["smoke"] is True, name
    outcome = CompressionOutcome.of(source.label, found.before, found.after, found.directory)
    for text in (str(outcome), outcome._repr_html_()):
        assert f"{source.label}, compressed (smoke run: the numbers mean nothing)" in text


def test_before_and_after_under_one_protocol(trained: Path, tmp_path: Path) -> None:
    source = open_source(trained)
    recipe = plan_compression(source, "magnitude", 0.3, 2, ("sparsity.weights=all",))
    found = compress(recipe, source, tmp_path)
    assert found.before["density"] == 1.0
    assert found.after["density"] == pytest.approx(0.3, abs=0.001)
    assert found.before["metrics"][0]["protocol"] == found.after["metrics"][0]["protocol"]
    assert found.after["flops"] < found.before["flops"]
    assert found.after["bytes"] < found.before["bytes"]
    assert json.loads((found.directory / "compress.json").read_text())["hash"] == source.weights.hash
    # an ordinary run: it opens, and compressing it further starts from its sparse weights
    again = plan_compression(open_source(found.directory), "magnitude", 0.2, 2)
    assert again.training.init_from is not None
    with pytest.raises(RecipeError, match=r"keeps .* weights already"):
        plan_compression(open_source(found.directory), "magnitude", 0.5)


def test_a_generator_from_elsewhere(trained: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(dump_yaml(TINY))
    state = dict(read_initial(checkpoints(trained / "checkpoints")[-1]).generator)
    file = tmp_path / "generator.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    with pytest.raises(RecipeError, match="needs a recipe"):
        open_source(file)
    with pytest.raises(RecipeError, match="did you mean 'dcgan'"):
        open_source(file, recipe=str(recipe), backbone="dcgna")
    source = open_source(file, recipe=str(recipe))
    planned = plan_compression(source, "gmp", 0.3, 2)
    assert Experiment(planned, tmp_path / "out", evaluates=False).run().path.is_dir()

    with pytest.raises(BackboneError, match=r"(?s)do not fit.*must be.*and \d+ more"):
        plan_compression(open_source(file, recipe=str(recipe)), "magnitude", 0.3, overrides=("model.channels=16",))
    odd = {("head" + name if name.endswith("weight") else name): tensor for name, tensor in list(state.items())[:2]}
    save_file(odd, file)
    with pytest.raises(BackboneError, match="is missing"):
        plan_compression(open_source(file, recipe=str(recipe)), "magnitude", 0.3)


def test_files_that_could_run_code_are_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "generator.pt"
    file.write_bytes(b"\x80\x04")
    with pytest.raises(RunError, match="other formats can run code"):
        open_source(file, recipe="quickstart")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "magnitud"), "did you mean 'magnitude'"),
        (("--method", "dense"), "makes nothing sparse"),
        (("--density", "1.5"), "must be above 0 and below 1"),
        (("--recipe", "quickstart"), "a run brings its own"),
    ],
)
def test_bad_input_writes_nothing(trained: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["compress", str(trained), "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_finished(trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    status = json.loads((moved / "status.json").read_text())
    (moved / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    result = CliRunner().invoke(app, ["compress", str(moved)])
    assert result.exit_code == 2
    assert "not finished (interrupted)" in result.stderr
    nothing = CliRunner().invoke(app, ["compress", str(tmp_path / "nothing")])
    assert nothing.exit_code == 2


def test_the_command(trained: Path, tmp_path: Path) -> None:
    arguments = ["compress", str(trained), "--density", "0.3", "--steps", "2", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "generator density" in result.stdout
    assert "fine-tuning:" in result.stdout


def _masks(run: Path, step: int, role: str = "generator") -> dict[str, torch.Tensor]:
    tensors = load(run / "checkpoints" / f"{step:08d}").groups["sparsity"]
    prefix = f"{role}.mask."
    return {name.removeprefix(prefix): mask for name, mask in tensors.items() if name.startswith(prefix)}


@pytest.mark.parametrize("masks", ["keep", "draw"])
def test_a_run_that_starts_from_a_sparse_one_keeps_its_masks_unless_told_otherwise(masks: str, tmp_path: Path) -> None:
    sparse = {**TINY, "sparsity": {"method": "static", "density": 0.3}}
    source = Experiment(parse_recipe(sparse).recipe, tmp_path / "a", evaluates=False).run().path
    start = {"path": str(source / "checkpoints" / "00000006"), "masks": masks}
    start["hash"] = read_initial(source / "checkpoints" / "00000006").hash
    again = {**sparse, "seed": 5, "training": {**TINY["training"], "steps": 1, "init_from": start}}
    said = Messages()
    target = Experiment(parse_recipe(again).recipe, tmp_path / "b", said, evaluates=False).run().path
    for role in ("generator", "discriminator"):
        old, new = _masks(source, 6, role), _masks(target, 1, role)
        same = all(torch.equal(old[name], new[name]) for name in old)
        assert same == (masks == "keep")
        assert any(f"the {role} keeps the masks of" in line for line in said.lines) == same
        assert any(f"draws masks of the {role} whatever" in line for line in said.lines) != same


class Messages(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("method", ["rigl", "static", "magnitude", "gmp"])
def test_methods_that_are_not_made_for_trained_networks_say_so(method: str, trained: Path, tmp_path: Path) -> None:
    recipe = plan_compression(open_source(trained), method, 0.3, 4)
    said = Messages()
    Experiment(recipe, tmp_path, said, evaluates=False).run()
    warned = [line for line in said.lines if f"method '{method}' is not made for trained networks" in line]
    assert len(warned) == (method in ("rigl", "static"))
