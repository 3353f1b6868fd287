"""Networks that draw: dropout and noise are a function of seed, step and rank, as everything else that is drawn is."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import ExportError
from gancompress.evaluation.sampler import Sampler, open_sampler
from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.experiment.finished import open_run
from gancompress.experiment.run import Experiment
from gancompress.export.compiled import compile_generator
from gancompress.export.onnx import export_onnx
from gancompress.progress import Silent
from gancompress.recipe.load import parse_recipe
from gancompress.storage.checkpoint import load
from gancompress.testing.ranks import in_two_processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gancompress.training.groups import Group


class NoisyGenerator(Generator):
    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.image = 4, 0, image
        self.first = nn.Linear(4, 4 * 64)
        self.up = nn.ConvTranspose2d(4, image.channels, 4, stride=2, padding=1)

    def output_layer(self) -> nn.Module:
        return self.up

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.first(z).view(-1, 4, 8, 8)
        images: Tensor = torch.tanh(self.up(x + 0.3 * torch.randn(x.shape[0], 1, 8, 8)))
        return images


class DropoutDiscriminator(Discriminator):
    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.num_classes, self.image = 0, image
        self.conv = nn.Conv2d(image.channels, 8, 4, stride=2, padding=1)
        self.drop = nn.Dropout(0.4)
        self.head = nn.Linear(8, 1)

    def output_layer(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        # what draws from NumPy or from Python is as common in published code
        scale = 1 + 0.1 * float(np.random.rand()) + 0.1 * random.random() if self.training else 1.0
        out: Tensor = self.head(self.drop(torch.relu(self.conv(x))).mean((2, 3))).squeeze(1) * scale
        return out


class Noisy(Backbone[BackboneConfig]):
    Config: ClassVar[type[BackboneConfig]] = BackboneConfig

    @property
    def resolutions(self) -> tuple[int, ...]:
        return (16,)

    @property
    def conditional(self) -> bool:
        return False

    def generator(self) -> Generator:
        return NoisyGenerator(self.image)

    def discriminator(self) -> Discriminator:
        return DropoutDiscriminator(self.image)


TINY: dict[str, Any] = {
    "name": "noisy",
    "data": {"name": "shapes", "resolution": 16, "images": 32},
    "model": {"name": "noisy"},
    "sparsity": {"method": {"name": "dst", "every": 2}, "generator": {"density": 0.5}},
    "training": {"steps": 4, "batch_size": 4, "log_every": 2, "checkpoint_every": 1, "keep_checkpoints": 9},
}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with BACKBONES.registered("noisy", Noisy):
        yield


class Stop(Silent):
    """Ends a run after a step, as Ctrl-C does, and draws numbers of its own on the way."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, done: int, rate: float) -> None:
        torch.rand(3)
        np.random.rand()
        random.random()
        if done == self.at:
            raise KeyboardInterrupt


def weights(path: Path) -> dict[str, Tensor]:
    snapshot = load(path / "checkpoints" / "00000004")
    groups = ("generator", "discriminator", "ema", "optimizer_generator", "optimizer_discriminator")
    return {f"{group}/{name}": tensor for group in groups for name, tensor in snapshot.groups[group].items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_runs_and_one_that_was_stopped_end_with_the_same_numbers(tmp_path: Path) -> None:
    recipe = parse_recipe(TINY).recipe
    torch.manual_seed(1)
    first = Experiment(recipe, tmp_path / "a", evaluates=False).run().path
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    second = Experiment(recipe, tmp_path / "b", evaluates=False).run().path
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()
    assert state[2] == random.getstate()
    with pytest.raises(KeyboardInterrupt):
        Experiment(recipe, tmp_path / "c", Stop(2), evaluates=False).run()
    torch.manual_seed(3)
    third = Experiment(recipe, tmp_path / "c", evaluates=False).run().path
    assert same(weights(first), weights(second))
    assert same(weights(first), weights(third))
    other = parse_recipe({**TINY, "seed": 1}).recipe
    assert not same(weights(first), weights(Experiment(other, tmp_path / "d", evaluates=False).run().path))


def test_ranks_draw_apart_and_each_of_them_the_same_again() -> None:
    recipe = parse_recipe(TINY).recipe

    def work(group: Group, folder: Path) -> list[list[str]]:
        """Say of two trainers, step by step, where the stream stands that noise and dropout are drawn from."""
        found = []
        for scramble in (group.rank, 7):
            torch.manual_seed(scramble)
            trainer = build_trainer(recipe, build_dataset(recipe), group)
            trainer.engine.init(trainer.probe)
            drawn: list[str] = []
            for layer in (trainer.generator, trainer.discriminator.drop):  # type: ignore[union-attr]
                layer.register_forward_pre_hook(lambda *_, seen=drawn: seen.append(state_of_torch()))  # type: ignore[misc]
            for current in declared_rounds(recipe, trainer):
                for _ in range(2):
                    trainer.step(current)
            found.append(drawn)
        return found

    (first, again), (other, other_again) = in_two_processes(work)
    # the discriminator's step has both networks, and the generator's too; noise and dropout draw from one stream
    assert len(first) == 8
    assert len(set(first)) == 8
    assert first == again
    assert other == other_again
    assert not set(first) & set(other)


def state_of_torch() -> str:
    return hashlib.blake2b(torch.get_rng_state().numpy().tobytes(), digest_size=8).hexdigest()


def test_images_of_one_seed_are_the_same_whatever_was_drawn_before(tmp_path: Path) -> None:
    run = open_run(Experiment(parse_recipe(TINY).recipe, tmp_path, evaluates=False).run().path)
    network = run.generator()
    sampler = Sampler(network, seed=0)
    with torch.no_grad():
        first, again, other = sampler.images(0, 4), sampler.images(0, 4), Sampler(network, seed=1).images(0, 4)
        with open_sampler(network, seed=0, batch_size=4) as opened:
            opened.images(4, 8)
            assert torch.equal(opened.images(0, 4), first)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    compiled = compile_generator(network, {}, sparse="never")
    with torch.no_grad():
        made = Sampler(compiled, seed=0).images(0, 4)
    torch.testing.assert_close(made, first, rtol=0, atol=1e-4)


def test_an_onnx_file_of_a_generator_that_draws_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = NoisyGenerator(ImageSpec(3, 16)).eval()
    with pytest.raises(ExportError, match="draws random numbers of its own"):
        export_onnx(network, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()
