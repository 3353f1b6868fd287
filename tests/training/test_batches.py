"""Batches are a pure function of seed and draw, whatever the number of ranks."""

from __future__ import annotations

import dataclasses

import torch

from gancompress.data.shapes import Shapes, ShapesConfig
from gancompress.seeds import generator
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


def test_half_of_the_images_are_mirrored() -> None:
    flipped = source()
    plain = dataclasses.replace(flipped, flip=False)
    moved, oblique = 0, 0
    for draw in range(40):
        before, after = plain.real(64, draw).images, flipped.real(64, draw).images
        for a, b in zip(before, after, strict=True):
            assert b.equal(a) or b.equal(a.flip(-1))
            moved, oblique = moved + (not b.equal(a)), oblique + (not a.equal(a.flip(-1)))
    assert oblique > 1000
    assert 0.47 < moved / oblique < 0.53


def test_classes_are_drawn_as_often_as_the_data_has_them() -> None:
    even = source()
    drawn = even.latents(4000, "generator", 0)
    rng = generator(0, "latent", "generator", 0)
    torch.randn(4000, 5, generator=rng)
    assert drawn.labels is not None
    assert drawn.labels.equal(torch.randint(4, (4000,), generator=rng))  # as ever where all are equally many
    uneven = source()
    uneven.dataset.stored.labels[:] = torch.tensor([1, 1, 1, 3]).repeat(10)  # type: ignore[attr-defined]
    labels = uneven.latents(4000, "generator", 0).labels
    assert labels is not None
    counts = torch.bincount(labels, minlength=4).tolist()
    assert counts[0] == counts[2] == 0
    assert abs(counts[1] - 3000) < 150
    halves = [dataclasses.replace(uneven, rank=rank, world=2).latents(4000, "generator", 0).labels for rank in (0, 1)]
    assert torch.cat([half for half in halves if half is not None]).equal(labels)
