"""Exports without empty channels: the same images from fewer numbers, in every format, and how many went is said."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import gancompress
from gancompress.architecture.description import Architecture
from gancompress.backbones.base import Generator, prunable_weights
from gancompress.cli.main import app
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import ExportError
from gancompress.export.compact import compact
from gancompress.export.packed import load_packed

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.api.commands import RunOutcome

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "images": 32, "resolution": 16, "classes": 3},
    "model": {"name": "dcgan", "channels": 8, "latent_dim": 8, "conditional": True},
    "sparsity": {"method": "static", "generator": {"density": 0.02, "allocation": "uniform"}},
    "training": {"steps": 2, "batch_size": 8, "kernels": "dense"},
}


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return gancompress.train(RECIPE, out=tmp_path_factory.mktemp("runs"), progress=False)


def images(path: Path) -> torch.Tensor:
    packed = load_packed(path)
    z = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return packed.generator()(z, torch.arange(6) % 3)


def test_a_run_loses_its_empty_channels_and_keeps_its_images(sparse: RunOutcome, tmp_path: Path) -> None:
    whole = gancompress.api.export(sparse, tmp_path / "whole.safetensors", progress=False)
    made = gancompress.api.export(sparse, tmp_path / "compact.safetensors", compact=True, progress=False)
    assert whole.removed is None
    assert made.removed is not None
    assert {name: width for name, (_, width) in made.removed.items()} == {"input.linear": 16, "convs.0": 8}
    assert sum(gone for gone, _ in made.removed.values()) > 0
    assert made.size < whole.size
    packed = load_packed(made.file)
    assert packed.narrowed
    assert packed.source["removed"] == [[name, *own] for name, own in made.removed.items()]
    # by hand: an output channel of the first convolution is empty where the next layer has no weight for it
    left = 8 - made.removed["convs.0"][0]
    dense = load_packed(whole.file)
    read = dense.masks["output.weight"].flatten(1).any(1)
    assert left <= int(read.sum()) < 8
    assert packed.state["output.weight"].shape[0] == packed.state["convs.0.weight"].shape[1] == left
    assert {name: int(mask.sum()) for name, mask in packed.masks.items()}.keys() == dense.masks.keys()
    assert float((images(made.file) - images(whole.file)).abs().max()) <= 1e-5
    loaded = gancompress.load(made.file)
    assert torch.isfinite(loaded(4)).all()


def test_the_text_says_how_many_went_and_every_format_takes_it(sparse: RunOutcome, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    import onnx

    told = []
    for number, more in enumerate(([], ["--values", "bf16"], ["--format", "onnx"])):
        file = tmp_path / f"{number}.{'onnx' if 'onnx' in more else 'safetensors'}"
        done = CliRunner().invoke(app, ["export", str(sparse.directory), "--compact", "--out", str(file), *more])
        assert done.exit_code == 0, done.output
        told.append(next(line for line in done.output.splitlines() if "channels were empty and are left out" in line))
    assert len({*told}) == 1
    widths = {one.name: list(one.dims) for one in onnx.load(file).graph.initializer}
    left = load_packed(tmp_path / "0.safetensors").state["output.weight"].shape[0]
    assert widths["output.weight"][0] == left < 8


def test_int8_takes_a_compact_generator(sparse: RunOutcome, tmp_path: Path) -> None:
    made = gancompress.api.export(
        sparse, tmp_path / "int8.safetensors", values="int8", compact=True, evaluate=False, progress=False
    )
    packed = load_packed(made.file)
    assert packed.ranges
    assert packed.narrowed
    whole = gancompress.api.export(sparse, tmp_path / "whole.safetensors", progress=False)
    assert float((images(made.file) - images(whole.file)).abs().mean()) < 0.02


def test_nothing_to_remove_is_said_in_words(sparse: RunOutcome, tmp_path: Path) -> None:
    changed = {**RECIPE, "name": "dense", "sparsity": {"method": "dense"}}
    outcome = gancompress.train(changed, out=tmp_path, progress=False)
    done = CliRunner().invoke(app, ["export", str(outcome.directory), "--compact"])
    assert done.exit_code == 0, done.output
    assert "nothing to remove: the images depend on all of its 24 channels\n" in done.output
    file = outcome.directory / "export" / "generator.safetensors"
    assert not load_packed(file).narrowed
    done = CliRunner().invoke(app, ["export", str(file), "--compact", "--format", "onnx"])
    assert done.exit_code == 2
    assert "give the run" in done.output


class Counted(Generator):
    """A generator whose code says how many channels it has."""

    latent_dim, num_classes, image = 4, 0, ImageSpec(3, 4, ())

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 8 * 16), nn.Conv2d(8, 3, 3, padding=1)

    def output_layer(self) -> nn.Module:
        return self.out

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return torch.tanh(self.out(self.first(z).view(-1, 8, 4, 4)))


@torch.no_grad()
def test_code_that_counts_channels_cannot_lose_them() -> None:
    generator = Counted().eval()
    generator.out.weight[:, 3] = 0
    described: Any = SimpleNamespace(generator=Counted, backbone="counted")
    with pytest.raises(ExportError, match=r"does not run without its 1 empty channels .* export it without compacting"):
        compact(generator, described, {})


@torch.no_grad()
def test_a_spectrally_normed_generator_keeps_its_images() -> None:
    kind: Any = BACKBONES.get("sngan")
    torch.manual_seed(0)
    made = kind(kind.Config(channels=8, generator_spectral_norm=True), ImageSpec(3, 32, ()))
    architecture = Architecture.of("sngan", made)
    generator = made.generator().eval()
    weights = prunable_weights(generator)
    weights["output.weight"].parameter[:, [1, 4]] = 0
    weights["blocks.0.conv2.weight"].parameter[:, 3] = 0
    masks = {name: weight.parameter != 0 for name, weight in weights.items()}
    found = compact(generator, dataclasses.replace(architecture, shapes={}), masks)
    assert {name: gone for name, (gone, _) in found.removed.items() if gone} == {
        "blocks.0.conv1": 1, "blocks.2.conv2": 2,
    }  # fmt: skip
    assert not found.masks  # all that is left is kept
    assert found.generator.output.weight.shape[1] == 6
    z = torch.randn(5, 128)
    assert float((found.generator(z) - generator(z)).abs().max()) <= 1e-5
