"""Runs whose discriminator is another backbone's: frozen parts, weights from elsewhere, and what they are pinned by."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from gancompress.api.commands import resolve
from gancompress.api.finished import export
from gancompress.architecture.description import Architecture
from gancompress.backbones.pairing import Pairing
from gancompress.comparison.price import price
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError, RecipeError
from gancompress.experiment.assemble import build_trainer
from gancompress.experiment.compress import open_source, plan_compression
from gancompress.experiment.networks import build_architecture, build_networks
from gancompress.experiment.pinning import pinned, pins
from gancompress.experiment.ready import open_images
from gancompress.experiment.run import Experiment
from gancompress.export.packed import export_packed, load_packed
from gancompress.recipe.identity import minimal, run_id
from gancompress.recipe.load import parse_recipe
from gancompress.report.costs import cost_cards
from gancompress.report.html import _about
from gancompress.report.words import scaled
from gancompress.runs.record import read_run
from gancompress.storage.checkpoint import load
from gancompress.training.groups import Group

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.recipe.schema import Recipe

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 32, "channels": 1},
    "model": {"name": "dcgan", "channels": 4, "latent_dim": 8},
    "discriminator": {
        "name": "projected",
        "features": "test_efficientnet",
        "weights": "random",
        "discriminator_channels": 4,
        "mixed_channels": 2,
    },
    "objective": {"loss": "hinge", "diffaugment": ["color", "translation"]},
    "sparsity": {
        "method": {"name": "dst", "explore": "both", "every": 2},
        "generator": {"density": 0.5},
        "discriminator": {"density": 0.5},
    },
    "training": {
        "steps": 4,
        "batch_size": 2,
        "checkpoint_every": 2,
        "keep_checkpoints": 9,
        "log_every": 1,
        "threads": 1,
    },
}
IMAGE = ImageSpec(1, 16)


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(TINY, overrides).recipe


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    path: Path = tmp_path_factory.mktemp("weights") / "efficientnet.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), path)
    return path


def files(run: Path, step: int) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "checkpoints" / f"{step:08d}").iterdir()}


# --------------------------------------------------------------------------- whole runs


def test_a_run_resumes_to_the_byte_with_weights_that_moved_and_stores_none_of_them(file: Path, tmp_path: Path) -> None:
    first_place, moved = tmp_path / "first.safetensors", tmp_path / "moved.safetensors"
    shutil.copy(file, first_place)
    placed = f"discriminator.weights={first_place}"
    whole = Experiment(recipe(placed), tmp_path / "whole", evaluates=False).run().path
    held = load_file(whole / "checkpoints" / "00000004" / "discriminator.safetensors")
    assert {name.partition(".")[0] for name in held} == {"heads", "mixing"}
    moments = load_file(whole / "checkpoints" / "00000004" / "optimizer_discriminator.safetensors")
    assert not any("features" in name or "mixing" in name for name in moments)
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert {one["role"] for one in log if one["kind"] == "update"} == {"generator", "discriminator"}

    again = tmp_path / "again" / whole.name
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "00000004")
    first_place.rename(moved)
    resumed = Experiment(recipe(f"discriminator.weights={moved}"), tmp_path / "again", evaluates=False).run().path
    assert resumed == again
    first, second = files(whole, 4), files(again, 4)
    for name in ("discriminator.safetensors", "generator.safetensors", "ema.safetensors", "sparsity.safetensors"):
        assert first[name] == second[name]

    # what leaves the house knows of no discriminator, and of no file of this machine
    exported = export(whole, tmp_path / "generator.safetensors").file
    packed = load_packed(exported)
    assert packed.model["name"] == "dcgan"
    assert str(tmp_path).encode() not in exported.read_bytes()
    assert packed.generator()(torch.zeros(1, 8)).shape == (1, 1, 16, 16)

    cost = json.loads((whole / "cost.json").read_text())
    frozen = cost["theory"]["frozen"]["discriminator"]["macs"]
    assert frozen > cost["theory"]["inference"]["generator"]["dense_macs"]
    assert {layer["name"].partition(".")[0] for layer in cost["layers"] if layer["role"] == "discriminator"} == {
        "heads"
    }
    (row,) = [
        row for row in cost_cards(cost)[0].rows if row[0] == "– of the discriminator, in layers that nothing trains"
    ]
    assert row[1] == scaled(2 * frozen)
    assert ("discriminator", "projected") in _about(read_run(whole))
    told = price(recipe(f"discriminator.weights={moved}"), IMAGE)
    assert told.exact
    assert told.training_flops == cost["theory"]["training"]["flops"]


def test_the_pair_as_a_model_is_exported_without_the_place_of_its_weights(file: Path, tmp_path: Path) -> None:
    model = {**TINY["discriminator"], "weights": str(file), "channels": 8, "latent_dim": 8}
    pair = pinned(parse_recipe({**minimal(recipe("discriminator=null")), "model": model}).recipe)
    described = build_architecture(pair, ImageSpec(3, 64))
    assert described.config["weights"] == str(file)
    path = tmp_path / "generator.safetensors"
    export_packed(build_networks(described, 0).generator, path, model=described.model)
    assert str(file.parent).encode() not in path.read_bytes()
    packed = load_packed(path)
    assert (packed.model["name"], packed.model["hash"]) == ("projected", described.config["hash"])
    assert packed.generator()(torch.zeros(1, 8)).shape == (1, 3, 64, 64)


def test_averages_over_processes_leave_frozen_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipe()
    trainer = build_trainer(wanted, open_images(wanted, evaluates=False).dataset)
    seen: list[int] = []
    monkeypatch.setattr(Group, "mean_", lambda _, tensors: seen.extend(id(tensor) for tensor in tensors))
    trainer.synchronise()
    frozen = {id(buffer) for buffer in trainer.discriminator.features.buffers()}  # type: ignore[union-attr]
    assert seen
    assert not frozen & {*seen}


# --------------------------------------------------------------------------- what a run is


def test_a_run_is_what_the_weights_are_and_not_where_they_lie(file: Path, tmp_path: Path) -> None:
    moved, other = tmp_path / "moved.safetensors", tmp_path / "other.safetensors"
    shutil.copy(file, moved)
    state = load_file(file)
    save_file({**state, "conv_stem.weight": state["conv_stem.weight"] + 1}, other)
    here, there, elsewhere = (pinned(recipe(f"discriminator.weights={path}")) for path in (file, moved, other))
    assert run_id(here) == run_id(there) != run_id(elsewhere)
    assert run_id(here) != run_id(pinned(recipe()))
    assert pinned(here) is here
    assert pins(recipe()) == {
        "discriminator.hash": pinned(recipe()).discriminator.hash,
        "discriminator.weights": "random",
    }
    plain = recipe("discriminator=null")
    assert pinned(plain) is plain
    assert "discriminator" not in minimal(plain)
    # as commands resolve recipes; the place is kept whole
    named = resolve(TINY, {"discriminator.weights": str(file)}).recipe
    assert named.discriminator.hash == here.discriminator.hash
    assert run_id(named) == run_id(here)


def test_another_file_than_the_recipe_means_is_told(file: Path) -> None:
    wanted = pinned(recipe(f"discriminator.weights={file}"))
    other = parse_recipe(minimal(wanted), ("discriminator.weights=random",)).recipe
    with pytest.raises(BackboneError, match="random holds other weights of test_efficientnet"):
        build_trainer(other, open_images(other, evaluates=False).dataset)


def test_networks_of_two_backbones_are_described_and_built_again() -> None:
    described = build_architecture(recipe(), IMAGE)
    assert (described.backbone, described.judge and described.judge.backbone) == ("dcgan", "projected")
    assert "weights" not in described.judge.model
    read = Architecture.from_json(json.loads(json.dumps(described.to_json())))
    assert isinstance(read.make(), Pairing)
    assert read.built_from == described.built_from
    one, other = build_networks(described, 0), build_networks(read, 0)
    for name, network in one.named.items():
        state = other.named[name].state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    own = build_architecture(recipe("discriminator=null"), IMAGE)
    assert "judge" not in own.to_json()
    assert own.built_from != described.built_from


def test_any_two_backbones_play(tmp_path: Path) -> None:
    wanted = recipe("discriminator={name: sngan, channels: 32, discriminator_channels: 4, conditional: false}",
                    "data.resolution=32", "training.steps=2", "sparsity.method=narrow")  # fmt: skip
    run = Experiment(wanted, tmp_path, evaluates=False).run().path
    told = load(run / "checkpoints" / "00000002", groups=()).scalars["architecture"]
    assert (told["backbone"], told["judge"]["backbone"]) == ("dcgan", "sngan")
    # the method chose widths for both, each in its own backbone
    assert told["config"]["channels"] < 4
    assert told["judge"]["config"]["discriminator_channels"] < 4
    assert told["config"]["discriminator_channels"] == 4
    # and what is compressed is the run as it was built
    compressed = plan_compression(open_source(run), "magnitude", 0.5, steps=1)
    assert compressed.model.channels == told["config"]["channels"]
    assert compressed.discriminator.discriminator_channels == told["judge"]["config"]["discriminator_channels"]


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("discriminator=projekted", "unknown backbone 'projekted'; did you mean 'projected'"),
        ("discriminator.weight=random", "discriminator.weight"),
        ("discriminator.hash=abc", "discriminator.hash"),
        ("discriminator=null discriminator.weights=random", "discriminator.name"),
    ],
)
def test_mistakes_in_the_section_have_a_place(override: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        recipe(*override.split())


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("discriminator.weights=nowhere.safetensors", "projected: there is no file nowhere.safetensors"),
        ("discriminator.weights=", "projected: say where its weights come from"),
        ("discriminator.conditional=true", r"two classes .*--set discriminator\.conditional=false"),
        ("model.conditional=true", r"--set model\.conditional=false"),
        ("discriminator={name: r3gan, channels: 8, group_width: 3}", r"--set discriminator\.channels=9"),
    ],
)
def test_what_cannot_play_is_told_before_there_is_a_directory(override: str, says: str, tmp_path: Path) -> None:
    wanted = recipe(override, "data.labelled=false")
    with pytest.raises(BackboneError, match=says) as caught:
        Experiment(wanted, tmp_path, evaluates=False).run()
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()]
