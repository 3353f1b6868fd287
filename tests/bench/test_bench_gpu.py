"""The script for GPU machines, on a CPU with settings that make it short."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from gancompress.bench import generators, train
from gancompress.kernels.semi_structured import semi_structured
from gancompress.training import folding

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
TINY = [
    "data={name: shapes, resolution: 32, images: 20}",
    "model.channels=4",
    "model.discriminator_channels=4",
    "model.latent_dim=4",
    "training.batch_size=2",
    "training.generator_batch_size=2",
    "training.discriminator_steps=1",
    "sparsity.method.every=4",
]


@pytest.fixture
def script(monkeypatch, tmp_path):
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("gpu_bench", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))])  # fmt: skip
def test_it_measures_every_way_and_runs_both(script, tmp_path, device, monkeypatch):
    few = dict(list(train.ALONE.items())[-3:])  # tests of the bench itself time them all
    monkeypatch.setattr(train, "ALONE", few)
    monkeypatch.setattr(folding, "folded_above", lambda *_, **__: 0.0)  # no measurement of its own
    monkeypatch.setenv("GANCOMPRESS_SPARSE", "never")
    if device == "cpu":  # whose matrices torch stores in no other way
        monkeypatch.setattr(generators, "semi_structured", lambda network: semi_structured(network, torch.clone))
    out = tmp_path / "gpu.json"
    arguments = ["--device", device, "--rounds", "2", "--steps", "5", "--no-evaluation", "--json", str(out)]
    arguments += ["--generators", "2", "--narrower", "model.channels=64"]
    found = script.main([*arguments, *(part for key in TINY for part in ("--set", key))])
    assert json.loads(out.read_text()) == json.loads(json.dumps(found))
    assert found["fastest"] in script.FASTEST
    assert set(found["generators"]) == {"sngan_cifar10", "stgan_biggan"}
    for one in found["generators"].values():
        assert set(one["rows"]) == {generators.DENSE, generators.CHANNELS, generators.TWO_OF_FOUR}
        assert one["rows"][generators.DENSE]["faster"] == 1
        assert one["missing"] == {}
        assert not any("conv" in name for name in one["dense_layers"])
    rows = found["bench"]["against_plain"]
    assert {name for name in few if name != "compiled"} <= set(rows)
    assert all(row["images_per_second"] > 0 for row in rows.values())
    assert found["minutes_for_the_whole_recipe"] == pytest.approx(50000 / 60 * rows[found["fastest"]]["seconds"])
    assert {name: one["steps"] for name, one in found["runs"].items()} == {"dense": 5, "recipe": 5}
    assert found["runs"]["dense"]["last"]["density_generator"] == 1
    assert found["runs"]["recipe"]["last"]["density_generator"] == pytest.approx(0.1, abs=0.01)
