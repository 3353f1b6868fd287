"""Batches are a pure function of seed and draw, whatever the number of ranks."""

from __future__ import annotations

import torch

from gancompress.data.shapes import Shapes, ShapesConfig
from gancompress.training.batches import BatchSource


def source(rank: int = 0, world: int = 1, seed: int = 0) -> BatchSource:
    dataset = Shapes(ShapesConfig(resolution=16, images=40, classes=4))
    return BatchSource(dataset, latent_dim=5, num_classes=4, seed=seed, flip=True, rank=rank, world=world)


def test_two_ranks_together_see_what_one_sees() -> None:
    whole = source().real(8, 3)
    parts = [source(rank, 2).real(8, 3) for rank in (0, 1)]
    assert torch.cat([part.images for part in parts]).equal(whole.images)
    assert torch.cat([part.labels for part in parts if part.labels is not None]).equal(whole.labels)
    latents = source().latents(8, "generator", 3)
    halves = [source(rank, 2).latents(8, "generator", 3) for rank in (0, 1)]
    assert torch.cat([half.z for half in halves]).equal(latents.z)


def test_the_same_draw_is_the_same_and_another_is_not() -> None:
    assert source().real(8, 3).images.equal(source().real(8, 3).images)
    assert not source().real(8, 3).images.equal(source().real(8, 4).images)
    assert not source().latents(8, "generator", 3).z.equal(source(seed=1).latents(8, "generator", 3).z)


def test_about_half_of_the_images_are_mirrored() -> None:
    plain, flipped = source(), source()
    object.__setattr__(plain, "flip", False)
    same = moved = 0
    for draw in range(40):
        before, after = plain.real(8, draw).images, flipped.real(8, draw).images
        for a, b in zip(before, after, strict=True):
            assert b.equal(a) or b.equal(a.flip(-1))
            same, moved = same + b.equal(a), moved + (not b.equal(a))
    assert 90 < moved < 200
