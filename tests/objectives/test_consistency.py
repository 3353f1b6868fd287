"""CR and bCR: what is moved, by hand and by draws, what it costs the discriminator, and what a run pays for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import gancompress
from gancompress.objectives.consistency import flipped_and_shifted, inconsistency
from gancompress.objectives.losses import Hinge
from gancompress.progress import Silent
from gancompress.seeds import generator as seeded
from gancompress.training.batches import RealBatch
from gancompress.training.objective import Consistency, Objective

if TYPE_CHECKING:
    from pathlib import Path


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_are_mirrored_half_of_the_time_and_shifted_both_ways() -> None:
    images = torch.zeros(400, 1, 9, 9)
    images[:, :, 4, 3] = 1  # a point left of the middle
    moved = flipped_and_shifted(images, 2, rng())
    rows, columns = moved[:, 0].flatten(1).argmax(1) // 9, moved[:, 0].flatten(1).argmax(1) % 9
    assert sorted({*rows.tolist()}) == [2, 3, 4, 5, 6]
    # from column 3, or 5 mirrored, by up to 2
    assert sorted({*columns.tolist()}) == [1, 2, 3, 4, 5, 6, 7]
    assert (columns.float().mean() - 4).abs() < 0.25
    still = flipped_and_shifted(images, 0, rng())
    mirrored = (still[:, 0, 4, 5] == 1).float().mean()
    assert 0.4 < float(mirrored) < 0.6
    assert torch.equal(still.sum((1, 2, 3)), torch.ones(400))


def test_what_comes_in_from_outside_is_grey() -> None:
    moved = flipped_and_shifted(torch.ones(64, 3, 8, 8), 3, rng())
    assert {*moved.unique().tolist()} == {0.0, 1.0}


def test_inconsistency_by_hand() -> None:
    logits, moved = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.0, 5.0], requires_grad=True)
    found = inconsistency(logits, moved)
    assert found.item() == (1 + 9) / 2
    pulls = torch.autograd.grad(found, (logits, moved))
    assert [pull.tolist() for pull in pulls] == [[1.0, -3.0], [-1.0, 3.0]]


class Judge(nn.Module):
    """A linear logit of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2 * 6 * 6, generator=rng(3)))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return x.flatten(1) @ self.weight


def terms(consistency: Consistency, rank: int = 0, draw: int = 5) -> Tensor:
    real, fake = torch.rand(4, 2, 6, 6, generator=rng(1)), torch.rand(4, 2, 6, 6, generator=rng(2))
    objective = Objective(loss=Hinge(Hinge.Config()), seed=7, consistency=consistency, rank=rank)
    return objective.discriminator(Judge(), RealBatch(real, None), fake, None, draw).loss.detach()


@pytest.mark.parametrize(("real", "fake"), [(10.0, 0.0), (10.0, 10.0), (0.0, 4.0)])
def test_the_term_is_that_of_the_draws_of_the_step(real: float, fake: float) -> None:
    judge = Judge()
    expected = terms(Consistency())
    for side, seed, weight in (("real", 1, real), ("fake", 2, fake)):
        images = torch.rand(4, 2, 6, 6, generator=rng(seed))
        moved = flipped_and_shifted(images, 2, seeded(7, "consistency", side, 5, 0, 0))
        expected = expected + weight * (judge(images) - judge(moved)).square().mean()
    chosen = Consistency(real, fake, shift=2)
    assert chosen.sides == (real > 0) + (fake > 0)
    torch.testing.assert_close(terms(chosen), expected.detach())
    assert torch.equal(terms(chosen), terms(chosen))
    # of another rank and of another step other draws
    assert len({float(terms(chosen)), float(terms(chosen, rank=1)), float(terms(chosen, draw=6))}) == 3


def test_a_run_with_it_resumes_to_the_byte_and_counts_it(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "name": "consistent",
        "data": {"name": "shapes", "resolution": 16, "images": 48},
        "model": {"name": "dcgan", "channels": 8, "latent_dim": 8},
        "objective": {"consistency": {"real": 10, "fake": 10}},
        "training": {"steps": 6, "batch_size": 4, "log_every": 2, "checkpoint_every": 2},
    }

    class Stops(Silent):
        def step(self, done: int, rate: float) -> None:
            if done == 5:
                raise RuntimeError("the power is gone")

    whole = gancompress.train(recipe, out=tmp_path / "whole", progress=False)
    with pytest.raises(RuntimeError, match="power"):
        gancompress.train(recipe, out=tmp_path / "cut", progress=Stops())
    cut = gancompress.train(recipe, out=tmp_path / "cut", progress=False)
    for left in ("generator", "discriminator"):
        files = [run.directory / "checkpoints" / "00000006" / f"{left}.safetensors" for run in (whole, cut)]
        assert files[0].read_bytes() == files[1].read_bytes()
    parts = whole.record.cost["theory"]["training"]["parts_flops"]
    # two sides of three forward-equivalents each, beside six of the step and one more pass of the generator's images
    assert parts["consistency"] / parts["discriminator"] == pytest.approx(6 / 8)
