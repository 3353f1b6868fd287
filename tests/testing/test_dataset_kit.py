"""Every check of the dataset kit passes for a good dataset and fails for one that is broken in just that way."""

from __future__ import annotations

import os
import pickle
import re
from typing import Any

import pytest
import torch
from pydantic import ConfigDict, Field

from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
from gancompress.testing import check_dataset, dataset_checks


class Config(DatasetConfig):
    """Settings of the images of this file."""

    images: int = Field(40, ge=1, description="number of images")


class Good(Dataset[Config]):
    """Drawn images of two classes."""

    Config = Config
    seed = 0

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        rng = torch.Generator().manual_seed(self.seed)
        self.pixels = torch.randint(0, 256, (config.images, 3, 8, 8), generator=rng).to(torch.uint8)

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(3, 8, ("even", "odd"))

    def __len__(self) -> int:
        return self.config.images

    def read(self, indices: torch.Tensor) -> Batch:
        return Batch(self.pixels[indices], indices % 2)

    def fingerprint(self) -> str:
        return f"good-{self.config.images}"


class Undocumented(Good):
    pass


class Open(Good):
    """Settings that may be changed."""

    class Config(Config):
        """Settings."""

        model_config = ConfigDict(frozen=False)


class Lonely(Good):
    """One image."""

    def __len__(self) -> int:
        return 1


class Twins(Good):
    """Two classes with one name."""

    spec = ImageSpec(3, 8, ("same", "same"))


class Floats(Good):
    """Images between 0 and 1."""

    def read(self, indices: torch.Tensor) -> Batch:
        return Batch(self.pixels[indices].float() / 255, indices % 2)


class Dark(Good):
    """Images that are rounded to 0 and 1."""

    def read(self, indices: torch.Tensor) -> Batch:
        return Batch((self.pixels[indices] > 128).to(torch.uint8), indices % 2)


class Overflowing(Good):
    """A label beyond its classes."""

    def read(self, indices: torch.Tensor) -> Batch:
        return Batch(self.pixels[indices], indices % 3)


class Disagreeing(Good):
    """Labels that differ by how they are asked for."""

    def labels(self) -> torch.Tensor:
        return torch.zeros(len(self), dtype=torch.int64)


class Sorting(Good):
    """Reads in the order of the file."""

    def read(self, indices: torch.Tensor) -> Batch:
        return super().read(indices.sort().values)


class Fading(Good):
    """Another brightness each time."""

    made = 0

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        type(self).made += 1
        self.pixels = self.pixels // type(self).made


class Drawing(Good):
    """Drawn from the global random state."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pixels = torch.randint(0, 256, self.pixels.shape).to(torch.uint8)


class Seeding(Good):
    """Seeds the global random state."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        torch.manual_seed(0)


class Local(Good):
    """Knows its process."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.process = os.getpid()

    def read(self, indices: torch.Tensor) -> Batch:
        batch = super().read(indices)
        return batch if os.getpid() == self.process else Batch(batch.images.flip(3), batch.labels)


class Pickled(Good):
    """Its images come out of a pickle."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pixels = pickle.loads(pickle.dumps(self.pixels))


CASES: list[tuple[Any, str, str]] = [
    (Undocumented, "documented", "Undocumented has no docstring"),
    (Open, "strict-settings", "Config can be changed after validation"),
    (Lonely, "opens", "it holds 1 images"),
    (Twins, "spec", "two classes have one name"),
    (Floats, "images", "images are torch.float32, expected uint8"),
    (Dark, "images", "no pixel is above 1: images go from 0 to 255"),
    (Overflowing, "labels", "labels go from 0 to 2, allowed are 0 to 1"),
    (Disagreeing, "labels", r"labels\(\) and read\(\) disagree"),
    (Sorting, "stable-indices", "is another one in another order"),
    (Fading, "deterministic", "holds other images, and the fingerprint does not say so"),
    (Drawing, "random-state", "it draws from a global random state"),
    (Seeding, "random-state", "it draws from a global random state"),
    (Local, "fork", "a forked process reads other images"),
    (Pickled, "pickle-free", "it unpickles"),
]


def test_a_good_dataset_passes() -> None:
    report = check_dataset(Good, {"images": 20})
    assert {o.state for o in report.outcomes} == {"passed"}


@pytest.mark.parametrize(("dataset", "check", "reason"), CASES, ids=[c[0].__name__ for c in CASES])
def test_it_catches(dataset: Any, check: str, reason: str) -> None:
    found = next(c for c in dataset_checks(dataset) if c.name == check).outcome()
    assert found.state == "failed", found
    assert re.search(reason, found.reason), found.reason


def test_every_check_is_seen_to_fail() -> None:
    assert {check for _, check, _ in CASES} == {check.name for check in dataset_checks(Good)}


@pytest.mark.parametrize(("name", "settings"), [("digits", {}), ("shapes", {"images": 30, "resolution": 16})])
def test_the_built_in_ones_are_held_to_it(name: str, settings: dict[str, Any]) -> None:
    check_dataset(name, settings)


def test_those_of_files_are_held_to_it(tmp_path: Any) -> None:
    import zipfile

    from PIL import Image

    (tmp_path / "images").mkdir()
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for index in range(6):
            path = tmp_path / "images" / f"{'ab'[index % 2]}" / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.effect_noise((12, 12), 40 + index).convert("RGB").save(path)
            archive.write(path, path.relative_to(tmp_path / "images"))
    check_dataset("folder", {"path": str(tmp_path / "images"), "resolution": 12})
    check_dataset("zip", {"path": str(tmp_path / "images.zip"), "resolution": 12})
