"""Runs that give up channels while they train: what is exported is a narrower dense network with the same images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

import gancompress
from gancompress.comparison.price import price
from gancompress.data.base import ImageSpec
from gancompress.errors import RecipeError
from gancompress.export.packed import load_packed
from gancompress.recipe.load import parse_recipe
from gancompress.report.html import build_report

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"dcgan": 16, "sngan": 32, "biggan": 64}
#: the widths of some layers of the generator after half of its channels went
LEFT = {
    "dcgan": {"input.linear.weight": (8 * 16, 8), "convs.0.weight": (8, 4, 4, 4), "output.weight": (4, 3, 4, 4)},
    "sngan": {"blocks.0.conv1.weight": (4, 4, 3, 3), "blocks.0.norm1.gain.weight": (3, 4)},
    # 32 channels attend, of which queries have an eighth and values a half
    "biggan": {"attention.query.weight": (2, 16, 1, 1), "attention.merge.weight": (16, 8, 1, 1)},
}  # fmt: skip


def recipe(model: str, **method: Any) -> dict[str, Any]:
    latent = {} if model == "biggan" else {"latent_dim": 8}
    return {
        "name": model,
        "data": {"name": "shapes", "images": 32, "resolution": SIZES[model], "classes": 3},
        "model": {"name": model, "channels": 8, "conditional": True, **latent},
        "sparsity": {
            "method": {"name": "channels", "start": 0.25, "end": 0.5, "rounds": 2, **method},
            "weights": "all",
            "generator": {"density": 0.5},
            "discriminator": {"density": 0.75},
        },
        "training": {"steps": 4, "batch_size": 4, "kernels": "dense"},
    }


@pytest.mark.parametrize("model", ["dcgan", "sngan", pytest.param("biggan", marks=pytest.mark.slow)])
def test_a_run_is_exported_narrower_with_the_same_images(model: str, tmp_path: Path) -> None:
    outcome = gancompress.train(recipe(model), out=tmp_path, progress=False)
    made = gancompress.api.export(outcome, progress=False)
    whole = gancompress.api.export(outcome, tmp_path / "whole.safetensors", compact=False, progress=False)
    assert whole.removed is None
    assert made.removed
    assert all(gone == width - int(width * 0.5 + 0.5) for gone, width in made.removed.values())
    packed = load_packed(made.file)
    assert not packed.masks  # what is left is dense
    assert {name: tuple(packed.state[name].shape) for name in LEFT[model]} == LEFT[model]
    images = [gancompress.load(one.file)(6, seed=1) for one in (made, whole)]
    assert float((images[0] - images[1]).abs().max()) <= 1e-4
    assert outcome.export(tmp_path / "again.safetensors").read_bytes() == made.file.read_bytes()
    _is_told(outcome.directory, made.removed)


def _is_told(directory: Path, removed: dict[str, tuple[int, int]]) -> None:
    """The log says how many channels each group kept, and cost.json which."""
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    updates = [line for line in lines if line["kind"] == "update" and line["role"] == "generator"]
    assert [line["step"] for line in updates] == [1, 2]
    cost = json.loads((directory / "cost.json").read_text())
    for name, (gone, width) in removed.items():
        kept = cost["channels"]["generator"][name]
        assert kept["width"] == width
        assert len(kept["kept"]) == width - gone == updates[-1][f"channels {name}"] < updates[0][f"channels {name}"]
    assert {len(one["kept"]) / one["width"] for one in cost["channels"]["discriminator"].values()} == {0.75}
    page = build_report(directory).read_text()
    assert "generator, input.linear" in page
    assert "asked 0.75 of its channels" in page


def test_the_price_is_known_before_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    image = ImageSpec(3, 16, ("a", "b", "c"))
    known = price(parse_recipe(recipe("dcgan")).recipe, image)
    assert known.exact
    assert known.dynamic
    outcome = gancompress.train(recipe("dcgan"), out=tmp_path, progress=False)
    theory = json.loads((outcome.directory / "cost.json").read_text())["theory"]
    assert known.training_flops == theory["training"]["flops"]
    assert known.inference_flops == theory["inference"]["generator"]["flops"]
    with pytest.raises(RecipeError, match=r"leaves convs.0 of the generator.* 8 channels, .* least possible is 0.0625"):
        gancompress.train(recipe("dcgan"), {"sparsity.generator.density": 0.05}, out=tmp_path, progress=False)
    with pytest.raises(RecipeError, match="whole channels leave no pattern"):
        gancompress.train(recipe("dcgan"), {"sparsity.pattern": "2x2"}, out=tmp_path, progress=False)
    assert [*tmp_path.iterdir()] == [outcome.directory]


def test_taylor_trains_too(tmp_path: Path) -> None:
    changed = recipe("dcgan", importance="taylor")
    outcome = gancompress.train(changed, {"training.device": "cpu"}, out=tmp_path, progress=False)
    kept = json.loads((outcome.directory / "cost.json").read_text())["channels"]["generator"]["input.linear"]["kept"]
    assert len(kept) == 8
    assert torch.tensor(kept).unique().tolist() == kept


@pytest.mark.parametrize("density", [0.3, 1.0])
def test_channels_that_die_while_weights_grow_leave_a_narrower_network(density: float, tmp_path: Path) -> None:
    changed = recipe("dcgan")
    changed["sparsity"] |= {"method": {"name": "chase", "every": 1, "end": 0.75}, "generator": {"density": density}}
    outcome = gancompress.train(changed, out=tmp_path, progress=False)
    made = gancompress.api.export(outcome, progress=False)
    whole = gancompress.api.export(outcome, tmp_path / "whole.safetensors", compact=False, progress=False)
    # dead channels, and those that weights left by themselves, which only a sparse network has
    gone = sum(one for one, _ in made.removed.values())
    assert gone == 12 if density == 1 else gone >= 12
    assert (not load_packed(made.file).masks) == (density == 1)
    images = [gancompress.load(one.file)(6, seed=1) for one in (made, whole)]
    assert float((images[0] - images[1]).abs().max()) <= 1e-4
