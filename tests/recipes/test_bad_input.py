"""What a recipe and its images cannot be together is said before the first step, each with how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gancompress.api.commands import run
from gancompress.errors import GancompressError

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = ("data=shapes", "data.images=20", "model.channels=4", "training.steps=1", "training.threads=1")


@pytest.mark.parametrize(
    ("address", "overrides", "message"),
    [
        ("stgan_biggan", ("data.resolution=48",), "biggan makes images of 32, 64, 96, 128 pixels, these have 48"),
        ("sngan_cifar10", ("data.resolution=96",), "sngan makes images of 32, 48, 64, 128 pixels, these have 96"),
        ("stgan_biggan", ("data.labelled=false",), "needs at least two classes and the data has no labels"),
        ("stgan_biggan", ("data.classes=1",), "needs at least two classes and the data has one class only"),
        (
            "adapt_biggan_tiny_imagenet",
            ("data.resolution=64", "model.channels=3"),
            "the attention at 32 pixels divides 4 times channels by 8, so it must be a multiple of 2",
        ),
        (
            "adapt_biggan_tiny_imagenet",
            ("data.resolution=64", "model.attention=64"),
            "can attend to maps of 8, 16, 32 pixels, not 64: --set model.attention=32, or 0 for no attention",
        ),
        (
            "stgan_biggan",
            ("training.batch_size=1",),
            "training.batch_size: 1 leaves batch norm of the generator one image at a time; it needs at least 2: "
            "--set training.batch_size=2",
        ),
        (
            "stgan_biggan",
            ("training.batch_size=4", "training.accumulate=4"),
            "training.batch_size: 4 in 4 micro-batches leaves batch norm of the generator one image at a time; "
            "it needs at least 2: --set training.batch_size=8",
        ),
        (
            "sngan_cifar10",
            ("training.batch_size=4", "training.generator_batch_size=1"),
            "training.generator_batch_size: 1 leaves batch norm of the generator one image at a time",
        ),
        ("sngan_cifar10", ("data.resolution=48", "model.channels=7"), "it must be a multiple of 8"),
    ],
)
def test_it_is_refused_before_anything_is_written(
    address: str, overrides: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(GancompressError) as caught:
        run(address, (*SHAPES, *overrides), out=tmp_path / "runs", progress=False)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "runs").exists()
