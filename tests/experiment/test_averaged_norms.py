"""A generator with spectral norms: its average is measured, drawn, exported and compressed as one and the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

import gancompress
from gancompress.backbones.spectral import norm_vectors
from gancompress.components.registry import EXTRACTORS
from gancompress.evaluation.extractors import Extractor
from gancompress.evaluation.sampler import open_sampler
from gancompress.experiment.compress import compress, open_source, plan_compression
from gancompress.experiment.finished import OpenedRun, open_run
from gancompress.experiment.run import Experiment
from gancompress.export.packed import export_run
from gancompress.recipe.load import parse_recipe
from gancompress.training.ema import averaged_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

NORMED: dict[str, Any] = {
    "name": "normed",
    "data": {"name": "shapes", "resolution": 32, "images": 48},
    "model": {
        "name": "sngan", "channels": 4, "latent_dim": 8, "conditional": False, "spectral_norm": False,
        "generator_spectral_norm": True,
    },
    "sparsity": {"method": {"name": "dst", "every": 2}, "generator": {"density": 0.3}},
    "training": {
        "steps": 8, "batch_size": 4, "threads": 1, "checkpoint_every": 4, "keep_checkpoints": 9, "ema": {"decay": 0.8},
        "optimizers": {"generator": {"lr": 0.02}},
    },
    "evaluation": {"samples": 20, "batch_size": 20, "metrics": ["fd"], "extractor": "quarters"},
}  # fmt: skip
SAID = "EMA weights, divided by their own spectral norms"


class Quarters(Extractor):
    """The mean of each quarter of the image."""

    label = weights_hash = "quarters"

    @classmethod
    def prepare(cls, dataset: Any, **_: Any) -> Extractor:
        return cls()

    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)
        return values, values


@pytest.fixture(autouse=True, scope="module")
def _extractor() -> Iterator[None]:
    with EXTRACTORS.registered("quarters", Quarters):
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    return open_run(Experiment(parse_recipe(NORMED).recipe, tmp_path_factory.mktemp("runs")).run().path)


def norms(network: nn.Module) -> list[float]:
    """Return the true norm of every weight that a spectrally normed layer computes with."""
    return [
        float(torch.linalg.matrix_norm(matrix / torch.dot(u, matrix @ v), 2)) for matrix, u, v in norm_vectors(network)
    ]


def test_every_norm_of_the_average_is_one_and_what_the_checkpoint_holds_is_not(trained: OpenedRun) -> None:
    average = norms(trained.generator())
    assert len(average) == 11
    assert average == pytest.approx([1] * len(average), abs=1e-5)
    network = trained.generator()
    saved, live = (trained.snapshot().groups[name] for name in ("ema", "generator"))
    network.load_state_dict(averaged_state(saved))
    assert max(norms(network)) > 1.0005  # fifty times the tolerance above; how far it drifts depends on the machine
    vectors = [name for name in live if name.endswith(("._u", "._v"))]
    assert len(vectors) == 2 * len(average)
    assert all(torch.equal(live[name], saved[f"module.{name}"]) for name in vectors)  # and a resume finds it so


def test_the_live_generator_is_looked_at_as_it_trains(trained: OpenedRun) -> None:
    live, saved = trained.generator(weights="live").state_dict(), trained.snapshot().groups["generator"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in live.items())


def test_later_and_twice_gives_the_number_of_the_run_and_the_protocol_says_how(trained: OpenedRun) -> None:
    during = json.loads((trained.directory.path / "metrics.json").read_text())["last"]
    assert SAID in during["protocol"]["text"]
    for _ in range(2):
        _, records = trained.evaluate()
        assert [record["value"] for record in records] == [during["metrics"][0]["value"]]
        assert records[0]["protocol"] == during["metrics"][0]["protocol"]
    live = open_run(trained.directory.path, ["evaluation.weights=live"]).evaluate()[1]
    assert "spectral" not in live[0]["protocol"]


def test_the_grid_of_the_run_is_that_of_its_finished_generator(trained: OpenedRun, tmp_path: Path) -> None:
    during = (trained.directory.path / "samples" / "00000008.png").read_bytes()
    assert trained.sample(tmp_path / "later.png").read_bytes() == during


def test_what_is_exported_is_what_was_measured(trained: OpenedRun, tmp_path: Path) -> None:
    export_run(trained, tmp_path / "generator.safetensors")
    exported = gancompress.load(tmp_path / "generator.safetensors")
    with open_sampler(trained.generator(), seed=0, batch_size=5) as sampler:
        torch.testing.assert_close(exported(5, seed=0), sampler.images(0, 5), rtol=0, atol=1e-4)


def test_looking_or_not_the_next_steps_are_the_same(trained: OpenedRun, tmp_path: Path) -> None:
    recipe = parse_recipe(NORMED).recipe
    blind = open_run(Experiment(recipe, tmp_path, evaluates=False).run().path)
    for group, tensors in trained.snapshot().groups.items():
        other = blind.snapshot().groups[group]
        assert all(torch.equal(tensor, other[name]) for name, tensor in tensors.items()), group


def test_what_is_compressed_is_what_was_measured(trained: OpenedRun, tmp_path: Path) -> None:
    source = open_source(trained.directory.path)
    result = compress(plan_compression(source, "magnitude", 0.2, 2), source, tmp_path)
    during = json.loads((trained.directory.path / "metrics.json").read_text())["last"]["metrics"]
    assert [one["value"] for one in result.before["metrics"]] == [one["value"] for one in during]
    assert SAID in result.before["protocol"]
    assert SAID in result.after["protocol"]
