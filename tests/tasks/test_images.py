"""From image to image: losses by hand, four networks that train, pools, and runs that resume to the byte."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from task_toys import CYCLE, PAIRS, trainer_of
from torch import nn
from torch.nn import functional as F

from gancompress.errors import GancompressError
from gancompress.experiment.run import Experiment
from gancompress.methods.base import Round
from gancompress.recipe.load import parse_recipe
from gancompress.storage.checkpoint import checkpoints
from gancompress.training.cycle import ImagePool

if TYPE_CHECKING:
    from pathlib import Path


NETWORKS = {
    "pairs": ("generator", "discriminator"),
    "cycle": ("generator", "discriminator", "generator_back", "discriminator_back"),
}
BOTH = pytest.mark.parametrize("recipe", [PAIRS, CYCLE], ids=["pix2pix", "cyclegan"])


def gradients(network: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def test_the_losses_of_pix2pix_by_hand() -> None:
    """BCE of pairs with labels 1 and 0, halved for the discriminator; BCE with label 1 and 100 times L1."""
    trainer = trainer_of(PAIRS)
    play: Any = trainer.play
    batch = play.source.both(2, 0)
    play.compute(trainer.networks, batch)
    found = {name: gradients(network) for name, network in trainer.networks.items()}
    generator, judge = trainer.generator, trainer.discriminator
    trainer.generator.zero_grad()
    judge.zero_grad()
    made = generator(batch.source)
    real, fake = (judge(torch.cat((batch.source, x), 1)) for x in (batch.target, made.detach()))
    bce = F.binary_cross_entropy_with_logits
    (0.5 * (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake)))).backward()
    for one, other in zip(found["discriminator"], gradients(judge), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    logits = judge(torch.cat((batch.source, made), 1))
    (bce(logits, torch.ones_like(logits)) + 100 * (made - batch.target).abs().mean()).backward()
    for one, other in zip(found["generator"], gradients(generator), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_losses_of_cyclegan_by_hand() -> None:
    """Least squares as published, 10 times both cycles, 5 times both identities; half of the squares for D."""
    trainer = trainer_of(CYCLE)
    play: Any = trainer.play
    batch = play.source.both(2, 0)
    play.compute(trainer.networks, batch)
    found = {name: gradients(network) for name, network in trainer.networks.items()}
    g, f = trainer.network("generator"), trainer.network("generator_back")
    d_b, d_a = trainer.network("discriminator"), trainer.network("discriminator_back")
    for network in trainer.networks.values():
        network.zero_grad()
    a, b = batch
    fake_b, fake_a = g(a), f(b)
    loss = (d_b(fake_b) - 1).square().mean() + (d_a(fake_a) - 1).square().mean()
    loss = loss + 10 * ((f(fake_b) - a).abs().mean() + (g(fake_a) - b).abs().mean())
    loss = loss + 5 * ((g(b) - b).abs().mean() + (f(a) - a).abs().mean())
    loss.backward()
    for name in ("generator", "generator_back"):
        for one, other in zip(found[name], gradients(trainer.network(name)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for name, real, fake in (("discriminator", b, fake_b), ("discriminator_back", a, fake_a)):
        judge = trainer.network(name)
        judge.zero_grad()
        (0.5 * ((judge(real) - 1).square().mean() + judge(fake.detach()).square().mean())).backward()
        for one, other in zip(found[name], gradients(judge), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@BOTH
def test_every_network_trains_within_its_own_masks_and_generators_are_averaged(recipe: dict[str, Any]) -> None:
    trainer = trainer_of(recipe)
    names = NETWORKS[recipe["name"]]
    assert tuple(trainer.networks) == trainer.engine.roles == names
    before = {name: [p.detach().clone() for p in network.parameters()] for name, network in trainer.networks.items()}
    masks = {name: trainer.engine.state(name).hash() for name in names}
    updated = [report.role for _ in range(3) for report in trainer.step(Round("only", 6))]
    assert updated == list(names)
    for name, network in trainer.networks.items():
        moved = [not torch.equal(p, old) for p, old in zip(network.parameters(), before[name], strict=True)]
        assert all(moved), name
        assert trainer.engine.state(name).hash() != masks[name]
        density = 0.4 if name.startswith("generator") else 0.6
        assert trainer.engine.state(name).density == pytest.approx(density, abs=0.01)
    assert set(trainer.all_averages) == {name for name in names if name.startswith("generator")}
    trainer.engine.check()


@BOTH
def test_what_a_step_computes_is_counted(recipe: dict[str, Any]) -> None:
    """By hand for batches of 2: pix2pix makes images once (3 of each), and judges 4 in one step and 2 in the other."""
    trainer = trainer_of(recipe)
    for _ in range(3):
        trainer.step(Round("only", 6))
    trainer.engine.count_steps()
    counter = trainer.counter
    assert {name: count.amount for name, count in counter.steps.items()} == dict.fromkeys(trainer.networks, 3)
    generator = 6 if recipe is PAIRS else 18
    wanted = {name: generator if name.startswith("generator") else 16 for name in trainer.networks}
    assert {name: counter.forward_equivalents(name) for name in trainer.networks} == wanted


def test_a_pool_by_hand() -> None:
    pool = ImagePool(2, (1, 1, 1))
    rng = torch.Generator().manual_seed(0)
    images = [torch.full((1, 1, 1, 1), float(value)) for value in range(200)]
    assert [float(pool.query(image, rng)) for image in images[:2]] == [0.0, 1.0]
    shown = [float(pool.query(image, rng)) for image in images[2:]]
    older = [value for value, image in zip(shown, images[2:], strict=True) if value != float(image)]
    assert 70 < len(older) < 128  # half the time
    assert len(set(older)) == len(older)  # what was shown has left the pool
    assert set(map(float, pool.scalars["images"].flatten())).isdisjoint(shown[:-1]) or len(older) < len(shown)
    assert float(pool.scalars["kept"]) == 2


def bytes_of(run: Path, step: int) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"{step:08d}"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".safetensors"}


def ran(recipe: dict[str, Any], out: Path, *overrides: str) -> Path:
    return Experiment(parse_recipe(recipe, overrides).recipe, out, evaluates=False).run().path


@BOTH
def test_a_run_resumes_to_the_byte(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Dropout, jitter, mirrors, masks, pools: all of it is drawn by seed, step and rank, or is in the checkpoint."""
    overrides = ("model.dropout=0.5", "data.resolution=64") if recipe is PAIRS else ()
    whole = ran(recipe, tmp_path / "whole", *overrides)
    again = tmp_path / "again" / whole.name
    shutil.copytree(whole, again)
    for step in checkpoints(again / "checkpoints")[1:]:
        shutil.rmtree(step)
    for name in ("cost.json", "metrics.json", "environment.json"):
        (again / name).unlink(missing_ok=True)
    assert ran(recipe, tmp_path / "again", *overrides) == again
    wanted, found = bytes_of(whole, 6), bytes_of(again, 6)
    assert wanted.keys() == found.keys()
    assert [name for name in wanted if wanted[name] != found[name]] == []
    if recipe is CYCLE:
        assert {"pool_discriminator.safetensors", "ema_generator_back.safetensors"} <= wanted.keys()


def test_dropout_is_drawn_by_the_step_and_the_seed() -> None:
    overrides = ("data.resolution=64", "task.jitter=0", "training.flip=false")
    losses = []
    for _ in range(2):
        trainer = trainer_of(PAIRS, *overrides)
        trainer.step(Round("only", 6))
        losses.append(trainer.meters.read()["l1"])
    assert losses[0] == losses[1]
    trainer = trainer_of(PAIRS, *overrides, "model.dropout=0")
    trainer.step(Round("only", 6))
    assert trainer.meters.read()["l1"] != losses[0]


def _places(stored: torch.Tensor, images: torch.Tensor) -> list[int]:
    """Return which stored image each of ``images`` is."""
    known = stored.float() / 127.5 - 1
    return [int((known - image).abs().flatten(1).sum(1).argmin()) for image in images]


def test_pairs_stay_together_and_domains_do_not() -> None:
    for recipe, together in ((PAIRS, True), (CYCLE, False)):
        source: Any = trainer_of(recipe, "task.jitter=0", "training.flip=false").play
        drawn = source.source.both(12, 0)
        sides = source.source.dataset.source, source.source.dataset.target
        where = [_places(side.read(torch.arange(12)).images, images) for side, images in zip(sides, drawn, strict=True)]
        assert sorted(where[0]) == sorted(where[1]) == list(range(12))
        assert (where[0] == where[1]) is together


def test_the_rate_stays_until_schedules_begin() -> None:
    trainer = trainer_of(PAIRS, "training.schedule_from=0.5", *(
        f"training.optimizers.{role}.schedule=linear" for role in ("generator", "discriminator")
    ))  # fmt: skip
    rates = []
    for _ in range(6):
        trainer.step(Round("only", 6))
        rates.append(trainer.optimizers["generator"].param_groups[0]["lr"] / 1e-3)
    assert rates == pytest.approx([1, 1, 1, 1, 2 / 3, 1 / 3])


@BOTH
def test_a_method_that_starts_from_gradients_gets_them_of_every_network(recipe: dict[str, Any]) -> None:
    trainer = trainer_of(recipe, "sparsity.method=snip")
    for name in trainer.networks:
        assert all(count for count in trainer.engine.state(name).budgets.values())
        assert trainer.counter.extra["probe"][name].amount == trainer.counter.forward_equivalents(name)


@pytest.mark.parametrize(
    ("recipe", "override", "told"),
    [
        (PAIRS, "objective.r1.weight=1", r"objective.r1.weight: the task 'pix2pix' cannot serve it; use --set"),
        (PAIRS, "training.accumulate=2", r"training.accumulate: the task 'pix2pix' cannot serve it"),
        (PAIRS, "objective.loss=wgan-gp", r"objective.loss: wgan-gp looks between real and made images"),
        (PAIRS, "objective.loss=relativistic", r"objective.loss: relativistic compares with real images"),
        (PAIRS, "sparsity.method=adapt", r"sparsity.method: adapt .* the task 'pix2pix' cannot serve"),
        (CYCLE, "sparsity.method=adapt", r"sparsity.method: adapt .* the task 'cyclegan' cannot serve"),
        (PAIRS, "evaluation.metrics=[fd, ppl]", r"evaluation.metrics: ppl is of images of latents, which the task"),
        (PAIRS, "model=dcgan", r"generator makes images of latents, and the task .pix2pix. makes them of images"),
        (CYCLE, "model.pairs=true", r"sees 6 channels, and the task .cyclegan. shows it 3: use --set model.pairs"),
        (PAIRS, "data=shapes", r"the task .pix2pix. needs pairs of images, .* set data.name to paired, or outlines"),
        (PAIRS, "data.paired=false", r"the task .pix2pix. needs pairs of images"),
        (PAIRS, "evaluation.samples=25", r"evaluation.samples: 25 images were asked for, and there are 24 inputs"),
    ],
)  # fmt: skip
def test_what_a_task_cannot_serve_is_one_line_and_nothing_is_written(
    recipe: dict[str, Any], override: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(GancompressError, match=told) as error:
        Experiment(parse_recipe(recipe, (override,)).recipe, tmp_path / "runs").run()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_generator_that_eats_images_is_refused_by_latents(tmp_path: Path) -> None:
    overrides = ("task=latent", "data.images=24", "sparsity.method=dense")
    with pytest.raises(GancompressError, match="generator eats images, and the task 'latent' gives it latents"):
        Experiment(parse_recipe(PAIRS, overrides).recipe, tmp_path / "runs").run()
    assert not (tmp_path / "runs").exists()
