"""What the benchmarks compare must mean the same; what they print must be arithmetic of what they timed."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from typer.testing import CliRunner

from gancompress import kernels
from gancompress.bench import timing
from gancompress.bench.engines import installed
from gancompress.bench.infer import REFERENCE, bench_infer
from gancompress.bench.styles import fold, publish
from gancompress.bench.timing import alternate, ratios
from gancompress.bench.train import parse_densities
from gancompress.cli.bench import numbers
from gancompress.cli.main import app
from gancompress.errors import RecipeError
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.networks import build_backbone, build_networks
from gancompress.recipe.load import load_recipe

TINY = """
name: tiny
data: {name: shapes, resolution: 32, images: 16}
model: {name: sngan, channels: 4, discriminator_channels: 4, latent_dim: 3}
sparsity: {method: {name: dst, every: 2}, density: 0.5}
training: {steps: 3, batch_size: 2, discriminator_steps: 2}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture(scope="module")
def recipe(path):
    return load_recipe(str(path)).recipe


@pytest.mark.parametrize("rewrite", [publish, lambda n: fold(n, frozen=True)])
def test_rewritten_networks_give_the_same_results(rewrite, recipe):
    networks = build_networks(build_backbone(recipe, build_dataset(recipe).spec), 0)
    for network, x in ((networks.generator, torch.randn(3, 3)), (networks.discriminator, torch.randn(3, 3, 32, 32))):
        network.eval()
        other = copy.deepcopy(network)
        assert rewrite(other) >= 2
        torch.testing.assert_close(other(x), network(x), rtol=1e-4, atol=1e-5)


def test_ratios_are_paired_in_rounds():
    times = {"slow": [(4.0, 5.0), (8.0, 9.0), (6.0, 7.0)], "fast": [(1.0, 2.0), (4.0, 3.0), (3.0, 1.0)]}
    found = ratios(times, "slow")["fast"]
    assert found.faster == 2.0  # of 4, 2 and 2
    assert found.quartiles == (2.0, 3.0)
    assert found.seconds == 3.0
    assert found.wall == 5.0
    assert ratios(times, "slow")["slow"].quartiles == (1.0, 1.0)


def test_turns_alternate(monkeypatch):
    seen = []
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, "process_time", lambda: float(next(clock)))
    times = alternate({name: lambda name=name: seen.append(name) for name in "abc"}, 2, warm=0)
    assert "".join(seen) == "abccba"
    assert {name: [cpu for cpu, _ in own] for name, own in times.items()} == {name: [1.0, 1.0] for name in "abc"}


def test_densities_are_read_or_refused():
    assert parse_densities("0.05, 0.1/0.3") == [(0.05, 0.05), (0.1, 0.3)]
    for bad in ("", "0", "1.5", "0.1/0.2/0.3", "few"):
        with pytest.raises(RecipeError, match="density"):
            parse_densities(bad)
    assert numbers("1,16", "--batch", int, 100) == [1, 16]
    with pytest.raises(RecipeError, match=r"--batch: 'x'"):
        numbers("1,x", "--batch", int, 100)


@pytest.mark.skipif(not kernels.status().available, reason="native kernels are not built")
def test_generators_are_timed_and_agree(recipe):
    result = bench_infer(recipe, (0.2, 0.5), (1, 3), rounds=2)
    assert list(result.batches) == [1, 3]
    for rows in result.batches.values():
        assert rows[REFERENCE].faster == 1.0
        assert {"sparse 0.2", "sparse 0.5"} <= set(rows)
    assert result.macs["sparse 0.2"] < result.macs["sparse 0.5"]
    assert max(result.error.values()) < 1e-4
    row = result.batches[3]["sparse 0.2"]
    assert result.gflops(3, "sparse 0.2") == pytest.approx(2e-9 * 3 * result.macs["sparse 0.2"] / row.seconds)
    json.dumps(result.to_dict())


def test_the_command_says_what_is_wrong(path):
    result = CliRunner().invoke(app, ["bench", "train", str(path), "--density", "2"])
    assert result.exit_code != 0
    assert "is no density" in result.output


@pytest.mark.skipif(not kernels.status().available, reason="native kernels are not built")
def test_the_command_prints_tables_and_writes_files(path, tmp_path):
    arguments = ["--density", "0.5", "--batch", "2", "--rounds", "2"]
    files = ["--json", str(tmp_path / "a.json")]
    result = CliRunner().invoke(app, ["bench", "infer", str(path), *arguments, *files])
    assert "{" not in result.output  # settings are words, not a dictionary
    assert result.exit_code == 0, result.output
    assert "batch 2" in result.output
    assert "sparse 0.5" in result.output
    assert ("than onnxruntime" in result.output) == installed("onnxruntime")
    assert json.loads((tmp_path / "a.json").read_text())["batches"]["2"]["sparse 0.5"]["gflops"] > 0


def test_without_kernels_the_command_says_that_nothing_ran_sparse(path, monkeypatch):
    monkeypatch.setenv("GANCOMPRESS_KERNELS", "off")
    arguments = ["--density", "0.5", "--batch", "1", "--rounds", "2"]
    result = CliRunner().invoke(app, ["bench", "infer", str(path), *arguments])
    assert result.exit_code == 0, result.output
    assert "the sparse rows ran dense: no native kernels, switched off by GANCOMPRESS_KERNELS=off" in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["infer", "--json", "nowhere/a.json"], "--json: there is no folder nowhere"),
        (["train", "--json", "nowhere/a.json"], "--json: there is no folder nowhere"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_measured(arguments, says, path, monkeypatch):
    monkeypatch.setattr("gancompress.bench.infer.alternate", None)
    monkeypatch.setattr("gancompress.bench.train.alternate", None)
    result = CliRunner().invoke(app, ["bench", arguments[0], str(path), *arguments[1:]])
    assert result.exit_code != 0
    assert says in result.output
