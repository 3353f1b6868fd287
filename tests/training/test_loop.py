"""The training loop: what it counts, in numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import torch

from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.recipe.load import parse_recipe
from gancompress.training.loop import Position


def test_the_average_counts_its_steps_from_where_it_last_started() -> None:
    """A round began after 4 steps with the average afresh, and averaging is to start with its third step."""
    tiny: dict[str, Any] = {
        "name": "tiny",
        "data": {"name": "shapes", "images": 16, "resolution": 16},
        "model": {"name": "dcgan", "channels": 4, "latent_dim": 4},
        "training": {"steps": 9, "batch_size": 4, "threads": 1, "kernels": "dense", "ema": {"decay": 0.5, "start": 3}},
    }
    recipe = parse_recipe(tiny).recipe
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.engine.init(trainer.probe)
    (current,) = declared_rounds(recipe, trainer)
    trainer.position = Position(round=0, step=0, before=4, averaged_from=4)
    live = dict(trainer.generator.named_parameters())
    for _ in range(2):
        trainer.step(current)
        for name, average in trainer.ema.module.named_parameters():
            assert torch.equal(average, live[name])  # a copy until then
    second = {name: weight.detach().clone() for name, weight in live.items()}
    trainer.step(current)
    for name, average in trainer.ema.module.named_parameters():
        torch.testing.assert_close(average, (second[name] + live[name]) / 2, rtol=1e-6, atol=1e-7)
    assert any(not torch.equal(second[name], weight) for name, weight in live.items())


class Asked:
    """A source of batches that notes what it is asked for."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.noted: list[tuple[Any, ...]] = []

    def real(self, *asked: Any) -> Any:
        self.noted.append(("real", *asked))
        return self.source.real(*asked)

    def latents(self, *asked: Any) -> Any:
        self.noted.append(("latents", *asked))
        return self.source.latents(*asked)


def test_every_step_has_draws_of_its_own_that_go_on_over_rounds() -> None:
    """The second step of a round that began after 5: the seventh of the run, with two discriminator steps each."""
    tiny: dict[str, Any] = {
        "name": "tiny",
        "data": {"name": "shapes", "images": 16, "resolution": 16},
        "model": {"name": "dcgan", "channels": 4, "latent_dim": 4},
        "objective": {"loss": "relativistic"},
        "training": {"steps": 9, "batch_size": 4, "generator_batch_size": 2, "discriminator_steps": 2, "threads": 1},
    }
    recipe = parse_recipe(tiny, ("training.kernels=dense", "training.fold=never")).recipe
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.engine.init(trainer.probe)
    asked = Asked(trainer.play.source)
    trainer.play.source = asked  # type: ignore[assignment]
    trainer.position = Position(round=1, step=1, before=5)
    trainer.step(declared_rounds(recipe, trainer)[0])
    # draws of the discriminator count its steps from 0, latents of the generator training steps from 1
    assert asked.noted == [
        ("real", 4, 12),
        ("latents", 4, "discriminator", 12),
        ("real", 4, 13),
        ("latents", 4, "discriminator", 13),
        ("latents", 2, "generator", 7),
        ("real", 2, 6),
    ]
