"""Orthogonal regularisation from the recipe to the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.objectives.regularisers import filter_matrices, orthogonal_penalty
from gancompress.recipe.identity import run_id
from gancompress.recipe.load import parse_recipe

if TYPE_CHECKING:
    from gancompress.training.loop import Trainer

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "images": 16, "resolution": 32, "classes": 2},
    "model": {"name": "sngan", "channels": 4, "discriminator_channels": 4, "latent_dim": 4},
    "sparsity": {"method": "static", "density": 0.5},
    "training": {"steps": 4, "batch_size": 4, "threads": 1, "kernels": "dense"},
}


def trainer_of(*overrides: str) -> Trainer:
    recipe = parse_recipe(RECIPE, overrides).recipe
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.engine.init(trainer.probe)
    return trainer


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return what the losses of the first step leave in ``.grad``, before any optimizer step."""
    trainer.probe()
    return {
        f"{role}.{name}": parameter.grad.clone()
        for role in ("generator", "discriminator")
        for name, parameter in trainer.network(role).named_parameters()
        if parameter.grad is not None
    }


def penalty_of(trainer: Trainer) -> float:
    return float(orthogonal_penalty(filter_matrices(trainer.generator)).detach())


@pytest.mark.parametrize("networks", ["generator", "discriminator", "both"])
def test_the_gradient_is_that_of_eq_3_on_the_masked_weight(networks: str) -> None:
    beta = 0.01
    trainer = trainer_of(f"objective.orthogonal={{weight: {beta}, networks: {networks}}}")
    plain, regularised = gradients(trainer_of()), gradients(trainer)
    changed = set()
    for role in ("generator", "discriminator"):
        for name, parameter in trainer.network(role).named_parameters():
            key = f"{role}.{name}"
            difference = regularised[key] - plain[key]
            wanted = torch.zeros_like(parameter)
            if networks in (role, "both") and parameter.dim() > 1:
                rows = parameter.detach().flatten(1)
                wanted = (4 * beta * (rows @ rows.t()).fill_diagonal_(0) @ rows).view_as(parameter)
                changed.add(role)
            torch.testing.assert_close(difference, wanted, rtol=1e-4, atol=1e-5)
    assert changed == ({"generator", "discriminator"} if networks == "both" else {networks})
    # half of every convolution is masked, and that half is what the products saw
    first = next(iter(trainer.engine.state("generator").masks.values()))
    assert 0 < int(first.sum()) < first.numel()


def test_it_pulls_filters_apart_while_training_and_stays_on_the_mask() -> None:
    ends = {}
    for weight in (0.0, 1.0):
        trainer = trainer_of(f"objective.orthogonal.weight={weight}", "training.accumulate=2")
        (current,) = declared_rounds(parse_recipe(RECIPE).recipe, trainer)
        for _ in range(current.steps):
            trainer.step(current)
        masks = trainer.engine.state("generator").masks
        weights = {name: p for name, p in trainer.generator.named_parameters() if name in masks}
        assert weights
        assert all(bool((weights[name][~masks[name]] == 0).all()) for name in weights)
        ends[weight] = penalty_of(trainer)
    assert ends[1.0] < ends[0.0]


def test_accumulated_micro_batches_count_it_once() -> None:
    halves = trainer_of("objective.orthogonal.weight=0.5", "training.accumulate=2")
    penalty = penalty_of(halves)
    plain = trainer_of("training.accumulate=2")
    (current,) = declared_rounds(parse_recipe(RECIPE).recipe, halves)
    halves.step(current)
    plain.step(current)
    added = halves.meters.read()["loss_generator"] - plain.meters.read()["loss_generator"]
    assert added == pytest.approx(0.5 * penalty, rel=1e-4)


def test_it_is_off_unless_asked_for() -> None:
    recipe = parse_recipe(RECIPE).recipe
    assert recipe.objective.orthogonal.weight == 0
    assert run_id(recipe) == run_id(parse_recipe(RECIPE, ("objective.orthogonal.weight=0",)).recipe)
    assert run_id(recipe) != run_id(parse_recipe(RECIPE, ("objective.orthogonal.weight=1e-4",)).recipe)
