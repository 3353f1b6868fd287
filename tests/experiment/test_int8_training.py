"""Runs that are trained with the rounding of int8: when it begins, that it is resumed, what it does not go with."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gancompress.errors import RecipeError
from gancompress.experiment.compress import open_source, plan_compression
from gancompress.experiment.run import Experiment
from gancompress.export.in_bytes import ranges_from_json
from gancompress.quantization import rounding as rounding_module
from gancompress.recipe.load import parse_recipe
from gancompress.storage.checkpoint import checkpoints, load

if TYPE_CHECKING:
    from pathlib import Path

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 32, "images": 48},
    "model": {"name": "sngan", "channels": 8, "latent_dim": 8},
    "sparsity": {"method": "static", "density": 0.5},
    "training": {"steps": 6, "batch_size": 4, "checkpoint_every": 1, "keep_checkpoints": 9, "kernels": "dense",
                 "fold": "never"},
}  # fmt: skip


def trained(root: Path, values: str) -> Path:
    recipe = {**RECIPE, "training": {**RECIPE["training"], "values": values}}
    return Experiment(parse_recipe(recipe).recipe, root, evaluates=False).run().path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {values: trained(tmp_path_factory.mktemp(values), values) for values in ("float32", "int8")}


def state(run: Path, step: int) -> tuple[dict[str, torch.Tensor], Any]:
    snapshot = load(run / "checkpoints" / f"{step:08d}")
    return dict(snapshot.groups["generator"]), snapshot.scalars.get("int8")


def test_rounding_begins_in_the_middle(runs: dict[str, Path]) -> None:
    for step, same in ((3, True), (4, False), (6, False)):
        (plain, none), (coded, ranges) = (state(runs[values], step) for values in ("float32", "int8"))
        assert all(torch.equal(plain[name], coded[name]) for name in plain) == same
        assert none is None
        assert (ranges is None) == same
    found = ranges_from_json(ranges)
    assert {"blocks.0.conv1.weight", "blocks.0.conv2.weight"} <= found.keys()


def test_a_resumed_run_goes_on_with_its_ranges_and_ends_alike(runs: dict[str, Path], tmp_path: Path) -> None:
    for last in (3, 4):
        root = tmp_path / str(last)
        shutil.copytree(runs["int8"], root / runs["int8"].name)
        for path in checkpoints(root / runs["int8"].name / "checkpoints"):
            if int(path.name) > last:
                shutil.rmtree(path)
        again = trained(root, "int8")
        (one, ranges), (other, known) = state(runs["int8"], 6), state(again, 6)
        assert ranges == known
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_generator_alone_is_rounded_and_is_itself_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    real = rounding_module._Rounded.__call__

    def counted(self: Any, layer: Any, x: torch.Tensor) -> Any:
        calls.append(layer)
        return real(self, layer, x)

    monkeypatch.setattr(rounding_module._Rounded, "__call__", counted)
    run = trained(tmp_path, "int8")
    _, ranges = state(run, 6)
    assert len({*calls}) == len(ranges)
    assert len(calls) == 3 * 2 * len(ranges)  # three steps, both players' images
    assert not any("forward" in vars(layer) for layer in calls)


@pytest.mark.parametrize(
    ("setting", "value"), [("kernels", "sparse"), ("fold", "always"), ("precision", "bf16"), ("compile", True)]
)
def test_what_it_does_not_go_with_is_refused(tmp_path: Path, setting: str, value: Any) -> None:
    recipe = {**RECIPE, "training": {**RECIPE["training"], "values": "int8", setting: value}}
    with pytest.raises(RecipeError, match=rf"training\.{setting}: training with the rounding of int8"):
        Experiment(parse_recipe(recipe).recipe, tmp_path, evaluates=False).run()
    assert not any(tmp_path.iterdir())


def test_a_compression_for_int8_is_such_a_run(runs: dict[str, Path]) -> None:
    recipe = plan_compression(open_source(runs["float32"]), "magnitude", 0.2, 4, ("training.values=int8",))
    assert recipe.training.values == "int8"
