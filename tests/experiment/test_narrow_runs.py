"""Runs that lose whole channels: what they start from, what is measured, and that everything else takes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized

import gancompress
from gancompress.api.finished import export
from gancompress.architecture.description import Architecture
from gancompress.backbones.base import prunable_weights
from gancompress.errors import ChannelError, RecipeError
from gancompress.experiment.channels import plan_channels
from gancompress.experiment.compress import open_source, starting_generator
from gancompress.experiment.finished import open_run
from gancompress.experiment.run import Experiment
from gancompress.export.compiled import CompiledGenerator
from gancompress.progress import Silent
from gancompress.recipe.load import parse_recipe
from gancompress.storage.checkpoint import load

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from gancompress.api.outcomes import CompressionOutcome

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8, "conditional": True},
    "training": {"steps": 4, "batch_size": 4, "log_every": 2},
    "evaluation": {"samples": 20, "batch_size": 20, "metrics": ["fd"]},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = parse_recipe({**TINY, "sparsity": {"method": "static", "generator": {"density": 0.5}}}).recipe
    return Experiment(recipe, tmp_path_factory.mktemp("runs"), evaluates=False).run().path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(tmp_path_factory.getbasetemp() / "narrow-cache"))


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("narrow")


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def made(trained: Path, out: Path, heard: Heard, tmp_path_factory: pytest.TempPathFactory) -> CompressionOutcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANCOMPRESS_CACHE", str(tmp_path_factory.getbasetemp() / "narrow-cache"))
        return gancompress.compress(trained, 0.5, "channels", steps=3, out=out, progress=heard)  # type: ignore[arg-type]


def test_the_run_starts_from_the_cut_average_and_stays_narrow(
    trained: Path, made: CompressionOutcome, heard: Heard
) -> None:
    run = made.run
    start = load(run.directory / "start" / "00000000")
    kept = start.scalars["channels"]["kept"]
    assert {name: len(own) for name, own in kept.items()} == {"input.linear": 8, "convs.0": 4}
    whole, narrow = open_run(trained).generator().state_dict(), start.groups["ema"]
    rows = torch.tensor(kept["input.linear"])
    own = whole["convs.0.weight"][rows][:, torch.tensor(kept["convs.0"])]
    assert torch.equal(narrow["module.convs.0.weight"], own)
    assert torch.equal(narrow["module.norms.0.gain.weight"], whole["norms.0.gain.weight"][:, rows])
    assert narrow["module.input.linear.weight"].shape == (8 * 16, 8)
    assert Architecture.from_json(start.scalars["architecture"]).narrowed
    end = open_run(run.directory).generator()
    assert {name: tuple(one.shape) for name, one in end.state_dict().items()} == {
        name.removeprefix("module."): tuple(one.shape) for name, one in narrow.items()
    }
    assert any("keeps masks" in one and "dropped" in one for one in heard.said)
    assert "convs.0: 4 of 8 channels kept" in heard.said


def test_before_is_the_whole_generator(trained: Path, made: CompressionOutcome) -> None:
    record = json.loads((made.run.directory / "compress.json").read_text())
    whole, narrow = open_run(trained).generator(), open_run(made.run.directory).generator()
    sizes = [
        sum(one.parameter.numel() for one in prunable_weights(own).values() if one.kind == "convolution")
        for own in (whole, narrow)
    ]
    assert record["before"]["counted_weights"] == sizes[0]
    assert record["after"]["density"] == pytest.approx(sizes[1] / sizes[0])
    assert record["before"]["density"] == pytest.approx(0.5, abs=0.01)
    assert record["measured"]["psnr"]["images"] == 16
    source = starting_generator(open_run(made.run.directory).recipe)
    z, labels = torch.randn(2, 8), torch.tensor([0, 1])
    assert torch.equal(source(z, labels), whole(z, labels))


def test_the_same_call_finds_what_was_cut(trained: Path, made: CompressionOutcome, out: Path) -> None:
    heard = Heard()
    again = gancompress.compress(trained, 0.5, "channels", steps=3, out=out, progress=heard)  # type: ignore[arg-type]
    assert again.run.directory == made.run.directory
    assert any("going on with the channels" in one for one in heard.said)
    assert not any("finding" in one for one in heard.said)


def test_it_is_exported_sampled_and_compressed_again(made: CompressionOutcome, tmp_path: Path) -> None:
    file = tmp_path / "narrow.safetensors"
    export(made.run.directory, file)
    generator = open_run(made.run.directory).generator()
    loaded = gancompress.load(file).network
    z, labels = torch.randn(3, 8), torch.tensor([0, 1, 2])
    torch.testing.assert_close(loaded(z, labels), generator(z, labels), rtol=1e-3, atol=1e-3)
    export(made.run.directory, tmp_path / "bytes.safetensors", values="int8", evaluate=False)
    rounded = gancompress.load(tmp_path / "bytes.safetensors").network(z, labels)
    assert float((rounded - loaded(z, labels)).abs().max()) < 0.3
    source = open_source(made.run.directory)
    recipe = plan_channels(source, 0.5, 2, (), tmp_path)
    smaller = starting_generator(recipe)
    assert smaller.state_dict()["input.linear.weight"].shape == (8 * 16, 8)  # what it is cut from
    assert recipe.training.init_from is not None


def test_a_target_is_met_and_measured_once(trained: Path, tmp_path: Path) -> None:
    source, calls = open_source(trained), 0

    def timer(whole: nn.Module, narrow: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        assert isinstance(narrow, CompiledGenerator)  # what is exported, not what is trained
        assert narrow(*inputs).shape == whole(*inputs).shape
        share = sum(one.numel() for one in narrow.state_dict().values()) / sum(
            one.numel() for one in whole.state_dict().values()
        )
        return 10 * share + calls * 1e-3, share

    recipe = plan_channels(source, 0.1, 2, (), tmp_path, target="ms=5", timer=timer)
    assert recipe.name == "tiny-channels-ms5"
    measured = calls
    assert 0 < measured <= 12
    assert plan_channels(source, 0.1, 2, (), tmp_path, target="ms=5", timer=timer) == recipe
    assert calls == measured
    few = plan_channels(source, 0.1, 2, (), tmp_path, target="macs=40%")
    assert few.training.init_from is not None
    widths = load(tmp_path / few.training.init_from.path).scalars["channels"]["widths"]
    assert all(1 <= count < width for count, width in widths.values())


def test_what_normalises_weights_is_no_part_of_the_time(tmp_path: Path) -> None:
    model = {"name": "biggan", "channels": 4, "latent_dim": 8, "conditional": True}
    document = {**TINY, "data": {**TINY["data"], "resolution": 32}, "model": model}
    recipe = parse_recipe({**document, "training": {"steps": 1, "batch_size": 2}}).recipe
    path = Experiment(recipe, tmp_path, evaluates=False).run().path

    def timer(whole: nn.Module, narrow: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, float]:
        assert not any(is_parametrized(module) for module in whole.modules())
        return 1.0, 1.0

    with pytest.raises(ChannelError, match="is met by the whole network"):
        plan_channels(open_source(path), 0.1, 2, (), tmp_path, target="ms=1000", timer=timer)


@pytest.mark.parametrize(("options", "kind", "match"), [
    ({"target": "parameters=10"}, ChannelError, "out of reach: with one channel in every group it is"),
    ({"target": "soon"}, ChannelError, "give ms, macs, parameters or bytes"),
    ({"importance": "size"}, ChannelError, "known: magnitude"),
    ({"density": 0.0}, ChannelError, "more than 0"),
    ({"overrides": ("training.stepz=3",)}, RecipeError, "stepz"),
])  # fmt: skip
def test_bad_input_writes_nothing(
    trained: Path, tmp_path: Path, options: dict[str, Any], kind: type[Exception], match: str
) -> None:
    place = tmp_path / "out"
    with pytest.raises(kind, match=match):
        gancompress.compress(trained, **{"density": 0.5, **options}, method="channels", out=place, progress=False)
    assert not place.exists()
    with pytest.raises(RecipeError, match="is for method channels, not magnitude"):
        gancompress.compress(trained, 0.5, "magnitude", target="ms=3", out=place, progress=False)
    with pytest.raises(RecipeError, match="leaves no pattern 4x1"):
        gancompress.compress(trained, 0.5, "channels", pattern="4x1", out=place, progress=False)
