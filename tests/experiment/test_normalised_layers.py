"""Layers below torch's normalisations, of any dimension: trained sparse, resumed, exported, loaded and compiled."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gancompress import kernels
from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator, prunable_weights
from gancompress.components.registry import BACKBONES
from gancompress.errors import BackboneError
from gancompress.experiment.finished import open_run
from gancompress.experiment.run import Experiment
from gancompress.export.compiled import compile_generator
from gancompress.export.packed import export_run, load_packed
from gancompress.progress import Silent
from gancompress.recipe.load import parse_recipe
from gancompress.storage.checkpoint import load
from gancompress.testing import check_backbone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gancompress.data.base import ImageSpec


def normalised(kind: str, layer: Any) -> Any:
    if kind == "none":
        return layer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if kind.startswith("hook"):
            return (nn.utils.spectral_norm if "spectral" in kind else nn.utils.weight_norm)(layer)
    return getattr(parametrizations, kind)(layer)


class Make(Generator):
    def __init__(self, image: ImageSpec, kind: str) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.image = 4, 0, image
        self.first = normalised(kind, nn.Linear(4, 4 * 64))
        self.line = normalised(kind, nn.ConvTranspose1d(4, 4, 3, padding=1))
        self.along = normalised(kind, nn.Conv1d(4, 4, 3, padding=1))
        self.body = normalised(kind, nn.Conv2d(4, 6, 3, padding=1))
        self.depth = normalised(kind, nn.Conv3d(1, 1, 3, padding=1))
        self.norm, self.up = nn.BatchNorm2d(6), normalised(kind, nn.ConvTranspose2d(6, image.channels, 4, 2, 1))

    def output_layer(self) -> nn.Module:
        return self.up

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.first(z).reshape(z.shape[0], 4, 64)
        h = F.relu(self.along(self.line(h))).reshape(z.shape[0], 4, 8, 8)
        h = F.relu(self.norm(self.body(h)))
        h = h + self.depth(h[:, None])[:, 0]
        images: Tensor = torch.tanh(self.up(h))
        return images.float()


class Judge(Discriminator):
    def __init__(self, image: ImageSpec, kind: str) -> None:
        super().__init__()
        self.num_classes, self.image = 0, image
        self.conv = normalised(kind, nn.Conv2d(image.channels, 8, 4, stride=2, padding=1))
        self.head = normalised(kind, nn.Linear(8, 1))

    def output_layer(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(F.leaky_relu(self.conv(x), 0.2).mean((2, 3))).squeeze(1)
        return logits.float()


class Config(BackboneConfig):
    """Settings of the networks of this file."""

    kind: str = Field("none", description="how layers are normalised")


class Normalised(Backbone[Config]):
    """Small networks whose layers are all normalised the same way."""

    Config: ClassVar[type[Config]] = Config
    conditional = False

    @property
    def resolutions(self) -> tuple[int, ...]:
        return (16,)

    def generator(self) -> Generator:
        return Make(self.image, self.config.kind)

    def discriminator(self) -> Discriminator:
        return Judge(self.image, self.config.kind)


TINY: dict[str, Any] = {
    "name": "normalised",
    "data": {"name": "shapes", "resolution": 16, "images": 32},
    "sparsity": {
        "method": {"name": "dst", "every": 2, "growth": "gradient", "explore": "both"},
        "weights": "all",
        "generator": {"density": 0.2},
        "discriminator": {"density": 0.3},
    },
    "training": {"steps": 6, "batch_size": 4, "log_every": 2, "checkpoint_every": 3, "keep_checkpoints": 9,
                 "kernels": "sparse", "ema": {"decay": 0.5}},
}  # fmt: skip
KINDS = ["none", "spectral_norm", "weight_norm", "hook spectral", "hook weight"]
LAYERS = {"first.weight", "line.weight", "along.weight", "body.weight", "depth.weight", "up.weight"}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with BACKBONES.registered("normalised", Normalised):
        yield


def recipe(kind: str, **sparsity: Any) -> Any:
    sparsity = {**TINY["sparsity"], **sparsity}
    return parse_recipe({**TINY, "model": {"name": "normalised", "kind": kind}, "sparsity": sparsity}).recipe


class Stop(Silent):
    def step(self, done: int, rate: float) -> None:
        if done == 4:
            raise KeyboardInterrupt


def tensors(path: Path) -> dict[str, Tensor]:
    snapshot = load(path / "checkpoints" / "00000006")
    return {f"{group}/{name}": tensor for group, own in snapshot.groups.items() for name, tensor in own.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_trained_sparse_resumed_and_exported(kind: str, tmp_path: Path) -> None:
    path = Experiment(recipe(kind), tmp_path / "a", evaluates=False).run().path
    whole = tensors(path)
    assert all(bool(tensor.isfinite().all()) for tensor in whole.values() if tensor.is_floating_point())
    with pytest.raises(KeyboardInterrupt):
        Experiment(recipe(kind), tmp_path / "b", Stop(), evaluates=False).run()
    resumed = tensors(Experiment(recipe(kind), tmp_path / "b", evaluates=False).run().path)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []

    run = open_run(path)
    eager = run.generator().eval()
    z = torch.randn(17, 4)
    want = eager(z).detach()
    assert float(want.std()) > 1e-3
    export_run(run, tmp_path / "g.safetensors")
    packed = load_packed(tmp_path / "g.safetensors")
    assert set(packed.masks) == {
        name.removeprefix("sparsity/generator.mask.") for name in whole if name.startswith("sparsity/generator.mask.")
    }
    assert set(packed.masks) >= LAYERS - {"up.weight"}
    for name, mask in packed.masks.items():
        assert int(mask.sum()) == int(whole[f"sparsity/generator.mask.{name}"].sum())
        assert not bool((packed.state[name][~mask] != 0).any())
        assert bool((packed.state[name][mask] != 0).any())
    plain = packed.generator()
    assert set(prunable_weights(plain)) == LAYERS
    torch.testing.assert_close(plain(z), want, rtol=0, atol=1e-5)
    for given, masks in ((plain, packed.masks), (eager, packed.masks), (eager, None)):
        compiled = compile_generator(given, masks, sparse="always")
        torch.testing.assert_close(compiled(z), want, rtol=0, atol=1e-5)
        densities = {f"{layer.name}.weight": layer.density for layer in compiled.layers}
        assert densities.keys() == LAYERS
        if masks is not None:
            assert densities == {
                name: int(masks[name].sum()) / masks[name].numel() if name in masks else 1.0 for name in LAYERS
            }
    if kernels.status().available:
        assert {layer.name for layer in compiled.layers if layer.runs == "sparse"} == {"body", "up"}
        assert compiled.dense["along"] == compiled.dense["line"] == "a 1-d convolution"
        assert compiled.dense["depth"] == "a 3-d convolution"


@pytest.mark.parametrize("kind", ["weight_norm", "hook weight"])
def test_filters_that_lose_their_last_weight_stay_finite(kind: str, tmp_path: Path) -> None:
    few = recipe(kind, method={"name": "dst", "every": 1, "growth": "random", "explore": "both"},
                 generator={"density": 0.03}, discriminator={"density": 0.05})  # fmt: skip
    whole = tensors(Experiment(few, tmp_path, evaluates=False).run().path)
    mask = whole["sparsity/generator.mask.first.weight"]
    assert bool((mask.sum(1) == 0).any()), "a filter is empty"
    assert all(bool(tensor.isfinite().all()) for tensor in whole.values() if tensor.is_floating_point())


def test_what_cannot_be_masked_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"layer first: its weight is not 0 exactly .* parametrization Orthogonal"):
        Experiment(recipe("orthogonal"), tmp_path, evaluates=False).run()


@pytest.mark.parametrize("kind", KINDS)
def test_the_kit_passes_all_of_them(kind: str) -> None:
    report = check_backbone(Normalised, {"kind": kind})
    assert report.passed, str(report)
