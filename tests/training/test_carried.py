"""Path lengths, ADA's probability and LeCam's means: by hand, in a run, and through a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from gancompress.backbones.stylegan2 import StyleGAN2, StyleGAN2Config
from gancompress.data.base import ImageSpec
from gancompress.errors import RecipeError
from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.objectives.regularisers import path_lengths
from gancompress.recipe.load import parse_recipe
from gancompress.recipe.schema import EMAConfig
from gancompress.training.carried import AdaptiveAugmentation, LeCam, PathLength
from gancompress.training.ema import decay_at
from gancompress.training.groups import Group

if TYPE_CHECKING:
    from gancompress.training.loop import Trainer

TINY: dict[str, Any] = {
    "name": "tiny-style",
    "data": {"name": "shapes", "resolution": 16, "images": 48},
    "model": {"name": "stylegan2", "channels": 8, "latent_dim": 6, "style_dim": 6, "mapping_layers": 2},
    "objective": {
        "loss": "non-saturating",
        "r1": {"weight": 1.0, "every": 2},
        "path_length": {"weight": 2.0, "every": 2},
        "ada": {"every": 2, "kimg": 0.1, "probability": 0.3},
        "lecam": {"weight": 0.1},
    },
    "sparsity": {"method": {"name": "dst", "every": 2}, "density": 0.5},
    "training": {"steps": 8, "batch_size": 4, "ema": {"half_life": 0.01, "ramp_up": 0.05}},
}


def trainer_of(**objective: Any) -> Trainer:
    recipe = parse_recipe({**TINY, "objective": {**TINY["objective"], **objective}}).recipe
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.engine.init(trainer.probe)
    return trainer


def take(trainer: Trainer, steps: int) -> None:
    recipe = parse_recipe(TINY).recipe
    (current,) = declared_rounds(recipe, trainer)
    for _ in range(steps):
        trainer.step(current)


class Linear(nn.Module):
    """Styles of two layers, and images that are linear in them."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(3.0))

    def styles(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z[:, None].expand(-1, 2, -1) + 0 * self.gain

    def synthesise(self, styles: Tensor) -> Tensor:
        return (self.gain * styles[:, 0, :1] + 4 * styles[:, 1, 1:2])[:, :, None, None].expand(-1, 1, 2, 2)


def test_path_lengths_by_hand() -> None:
    network = Linear()
    rng = torch.Generator().manual_seed(0)
    found = path_lengths(network, torch.zeros(5, 2), None, rng)
    noise = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    # every pixel moves by 3 with one number of the first style, by 4 with one of the second: (9 + 16) / 2 of the square
    want = (noise.sum((1, 2, 3)) / 2).abs() * (25 / 2) ** 0.5
    torch.testing.assert_close(found, want)
    (pull,) = torch.autograd.grad(found.sum(), network.gain)
    torch.testing.assert_close(pull, ((noise.sum((1, 2, 3)) / 2).abs() * 3 / 2 / (25 / 2) ** 0.5).sum())


def test_the_running_mean_follows_and_the_weight_is_scaled_up() -> None:
    paths = PathLength(weight=2.0, every=4, decay=0.5, share=2)
    network: Any = Linear()
    drawn = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    lengths = path_lengths(network, torch.zeros(3, 2), None, drawn()).detach()
    penalty = paths.penalty(network, torch.zeros(6, 2), None, drawn())
    mean = lengths.mean() / 2
    torch.testing.assert_close(paths.scalars["length"], mean)
    torch.testing.assert_close(penalty, 8 * (lengths - mean).square().mean())
    assert [paths.due(step) for step in range(1, 6)] == [True, False, False, False, True]


def test_paths_reach_every_weight_of_the_generator_but_colour_biases() -> None:
    torch.manual_seed(0)
    made = StyleGAN2(StyleGAN2Config(channels=8, style_dim=6, latent_dim=6, mixing=0), ImageSpec(3, 16)).generator()
    path_lengths(made, torch.randn(3, 6), None, torch.Generator().manual_seed(0)).sum().backward()
    silent = {name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {f"colours.{i}.conv.bias" for i in range(3)}


def test_the_probability_goes_up_while_real_images_are_told() -> None:
    ada = AdaptiveAugmentation(target=0.6, every=2, images=80)
    for draw, logits in enumerate(([2.0, 1.0, 3.0, 1.0], [1.0, 1.0, 1.0, -1.0], [1.0, -1.0, 1.0, -1.0], [-1.0] * 4)):
        ada.see(torch.tensor(logits))
        ada.adjust(draw, 4, Group())
        if draw == 1:  # 7 of 8 positive: r = 0.75
            assert float(ada.scalars["probability"]) == pytest.approx(4 * 2 / 80)
            assert float(ada.scalars["logits"]) == 0
    assert float(ada.scalars["probability"]) == 0  # r = -0.5: down again, and no lower than 0
    fixed = AdaptiveAugmentation(target=None, probability=0.4)
    fixed.adjust(3, 4, Group())
    assert float(fixed.scalars["probability"]) == pytest.approx(0.4)


SCHEDULED: dict[str, Any] = {
    "pipe": ["blit", "geometry", "colour", "cutout"],
    "colours": 0.5,
    "target": None,
    "probability": 0.1,
    "final": 0.5,
}


def probabilities(trainer: Trainer, steps: int, **training: Any) -> list[float]:
    recipe = parse_recipe({**TINY, "training": {**TINY["training"], **training}}).recipe
    (current,) = declared_rounds(recipe, trainer)
    found = []
    for _ in range(steps):
        trainer.step(current)
        found.append(float(trainer.play.objective.adaptive.scalars["probability"]))  # type: ignore[attr-defined]
    return found


def test_the_probability_follows_a_schedule() -> None:
    whole = trainer_of(ada=SCHEDULED)
    # eight steps, from 0.1 to 0.5 along half a cosine: 0.3 in the middle
    want = [0.1, 0.1 + 0.4 * 0.0380602, 0.1 + 0.4 * 0.1464466, 0.1 + 0.4 * 0.3086583, 0.3]
    assert probabilities(whole, 5) == pytest.approx(want, abs=1e-6)
    # the end of schedules is the end of this one too, and what it ends at stays
    ends = parse_recipe({**TINY, "training": {**TINY["training"], "schedule_until": 0.5}}).recipe.training
    short = trainer_of(ada=SCHEDULED)
    short.config = ends
    assert probabilities(short, 6, schedule_until=0.5)[1::2] == pytest.approx([0.1585786, 0.4414214, 0.5], abs=1e-6)
    assert AdaptiveAugmentation(target=None, probability=0.2).final is None
    with pytest.raises(RecipeError, match="give target: null with final"):
        parse_recipe({**TINY, "objective": {**TINY["objective"], "ada": {"final": 0.5}}})


def test_a_scheduled_run_is_resumed_to_the_byte() -> None:
    whole, first, second = (trainer_of(ada=SCHEDULED) for _ in range(3))
    take(whole, 6)
    take(first, 3)
    groups, scalars = first.snapshot()
    second.restore({name: {k: v.clone() for k, v in group.items()} for name, group in groups.items()}, scalars)
    take(second, 3)
    want, got = whole.snapshot()[0], second.snapshot()[0]
    assert all(torch.equal(value, got[name][key]) for name, group in want.items() for key, value in group.items())


def test_what_is_augmented_is_a_function_of_seed_and_step() -> None:
    def seen(rate: float, seed: int = 0) -> list[Tensor]:
        """The images that the discriminator was shown as real, step by step."""
        optimizers = {role: {"lr": rate} for role in ("generator", "discriminator")}
        recipe = parse_recipe(
            {
                **TINY,
                "seed": seed,
                "objective": {**TINY["objective"], "ada": SCHEDULED, "r1": {"weight": 0}, "path_length": {"weight": 0}},
                "training": {**TINY["training"], "optimizers": optimizers},
            }
        ).recipe
        trainer = build_trainer(recipe, build_dataset(recipe))
        trainer.engine.init(trainer.probe)
        shown: list[Tensor] = []
        trainer.discriminator.register_forward_pre_hook(lambda _, given: shown.append(given[0].detach().clone()))
        take(trainer, 3)
        assert len(shown) == 9
        return shown[::3]  # then come generated ones, and those of the generator's step

    one, other, seeded = seen(1e-4), seen(1e-2), seen(1e-4, seed=1)
    # the discriminators are others by now, and the draws are not
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, seeded, strict=True))


def test_lecam_by_hand() -> None:
    lecam = LeCam(weight=0.5, decay=0.75)
    found = lecam.penalty(torch.tensor([4.0, 0.0]), torch.tensor([-4.0, -8.0]))
    # running means 0.5 and -1.5
    want = 0.5 * ((5.5**2 + 1.5**2) / 2 + (4.5**2 + 8.5**2) / 2)
    assert float(found) == pytest.approx(want)
    assert {name: float(value) for name, value in lecam.scalars.items()} == {"real": 0.5, "fake": -1.5}


def test_a_half_life_in_images() -> None:
    config = EMAConfig(half_life=10, ramp_up=0.05)
    # 500 images after 100 steps of 100: 5 % of 10,000
    assert decay_at(config, 1.0, 100, 100) ** 5 == pytest.approx(0.5)
    # later 10,000 images are 100 steps
    assert decay_at(config, 1.0, 10**6, 100) ** 100 == pytest.approx(0.5)
    with pytest.raises(ValueError, match="contradict"):
        EMAConfig(half_life=10, decay=0.9)
    assert EMAConfig(**config.model_dump()) == config  # as a run's own recipe has it
    with pytest.raises(ValueError, match="give half_life too"):
        EMAConfig(ramp_up=0.05)


def test_a_run_is_resumed_to_the_byte() -> None:
    whole, first, second = trainer_of(), trainer_of(), trainer_of()
    take(whole, 6)
    take(first, 3)
    groups, scalars = first.snapshot()
    assert {*groups["ada"]} == {"probability", "signs", "logits"}
    second.restore({name: {k: v.clone() for k, v in group.items()} for name, group in groups.items()}, scalars)
    take(second, 3)
    want, got = whole.snapshot()[0], second.snapshot()[0]
    for name, group in want.items():
        for key, value in group.items():
            assert torch.equal(value, got[name][key]), (name, key)
    assert float(want["path_length"]["length"]) > 0
    assert float(want["ada"]["probability"]) != pytest.approx(0.3)
    assert whole.counter.to_dict() == second.counter.to_dict()
    # of steps 1, 3 and 5, half of 4 images each
    paths = whole.counter.extra["path_length"]["generator"].amount
    assert paths == 3 * 6 * 2
    assert "ada_probability" in whole.meters.read()


def test_a_look_before_the_first_step_carries_nothing() -> None:
    trainer = trainer_of()
    before = {
        name: {k: v.clone() for k, v in one.scalars.items()} for name, one in trainer.play.objective.carried.items()
    }
    trainer.probe()
    for name, one in trainer.play.objective.carried.items():
        assert all(torch.equal(value, before[name][key]) for key, value in one.scalars.items())


def test_what_has_no_styles_has_no_paths() -> None:
    recipe = parse_recipe({**TINY, "model": {"name": "dcgan", "channels": 8, "latent_dim": 8}}).recipe
    with pytest.raises(RecipeError, match=r"objective.path_length: dcgan has no styles .*weight=0"):
        build_trainer(recipe, build_dataset(recipe))
    both = {**TINY, "objective": {**TINY["objective"], "diffaugment": ["color"]}}
    with pytest.raises(RecipeError, match="give one of them"):
        parse_recipe(both)
