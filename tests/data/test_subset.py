"""Training on some of the images: which, how many, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gancompress.data.classes import class_counts
from gancompress.data.shapes import Shapes, ShapesConfig
from gancompress.data.subset import Subset, draw_subset
from gancompress.errors import DataError
from gancompress.experiment.assemble import build_dataset, build_trainer
from gancompress.recipe.load import parse_recipe, smoke_test


def shapes() -> Shapes:
    return Shapes(ShapesConfig(resolution=16, images=40, classes=4))


TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "images": 40, "resolution": 16, "classes": 4},
    "model": {"name": "dcgan", "channels": 4, "latent_dim": 4, "conditional": True},
    "sparsity": {"method": "static", "density": 0.5},
    "training": {"steps": 2, "batch_size": 8, "threads": 1, "kernels": "dense", "images": 20},
}


def test_it_reads_the_images_that_it_keeps() -> None:
    whole = shapes()
    few = Subset(whole, torch.tensor([7, 3, 31]))
    assert len(few) == 3
    images, labels = few.read(torch.tensor([2, 0]))
    wanted = whole.read(torch.tensor([31, 7]))
    assert images.equal(wanted.images)
    assert labels.equal(wanted.labels)
    assert few.labels().equal(whole.labels()[[7, 3, 31]])
    assert few.spec == whole.spec


def test_the_seed_draws_and_more_hold_fewer() -> None:
    whole = shapes()
    marked = whole.stored._replace(labels=torch.arange(40))
    whole.stored = marked
    drawn = [set(draw_subset(whole, count, seed).labels().tolist()) for count, seed in ((10, 0), (20, 0), (10, 1))]
    assert [len(one) for one in drawn] == [10, 20, 10]
    assert drawn[0] < drawn[1]
    assert drawn[0] != drawn[2]
    prints = [draw_subset(whole, 10, seed).fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] != whole.fingerprint()


def test_a_run_sees_these_images_alone_and_is_measured_against_all() -> None:
    recipe = parse_recipe(TINY).recipe
    dataset = build_dataset(recipe)
    trainer = build_trainer(recipe, dataset)
    source: Any = trainer.play
    few = draw_subset(dataset, 20, recipe.seed)
    seen: dict[bytes, int] = {}
    for draw in range(5):  # two epochs of twenty
        for image in source.source.real(8, draw).images:
            key = image.numpy().tobytes()
            seen[key] = seen.get(key, 0) + 1
    floats = few.read(torch.arange(20)).images.float() / 127.5 - 1
    assert seen == {image.numpy().tobytes(): 2 for image in floats}
    assert len(dataset) == 40


@pytest.mark.parametrize(
    ("images", "wrong"),
    [(41, "41 asked for, the dataset has 40"), (3, "among 3 images seed 0 draws none of class")],
)
def test_more_than_there_are_and_a_lost_class_are_refused(images: int, wrong: str) -> None:
    recipe = parse_recipe(TINY, (f"training.images={images}",)).recipe
    with pytest.raises(DataError, match=wrong):
        build_trainer(recipe, build_dataset(recipe))
    unconditional = parse_recipe(TINY, ("training.images=3", "model.conditional=false")).recipe
    build_trainer(unconditional, build_dataset(unconditional))


def test_a_class_that_has_no_images_at_all_is_not_lost() -> None:
    whole = shapes()
    whole.stored.labels.clamp_(min=1)
    assert class_counts(whole)[0] == 0
    assert len(draw_subset(whole, 30, 0, whole_classes=True)) == 30


def test_smoke_runs_see_every_image() -> None:
    small = smoke_test(parse_recipe(TINY)).recipe
    assert small.training.images == len(build_dataset(small))
    assert smoke_test(parse_recipe(TINY, ("training.images=null",))).recipe.training.images is None
