"""Images that change between a stop and a resume: named, logged, in the report; other classes are refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from gancompress.errors import DataError
from gancompress.experiment.run import Experiment
from gancompress.progress import Silent
from gancompress.recipe.load import parse_recipe
from gancompress.report.html import build_report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Dies(Silent):
    """An observer that remembers what it is told, and ends the process after a step."""

    def __init__(self, at: int = -1) -> None:
        self.at = at
        self.told: list[str] = []
        self.records: list[Mapping[str, Any]] = []

    def step(self, done: int, rate: float) -> None:
        if done == self.at:
            raise SystemExit

    def message(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for index in range(8):
        path = tmp_path / "in" / ("cat" if index < 4 else "dog") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * index, 0, 0)).save(path)
    return tmp_path / "in"


def experiment(images: Path, watching: Dies) -> Experiment:
    recipe = parse_recipe(
        {
            "name": "tiny",
            "data": {"name": "folder", "path": str(images)},
            "model": {"name": "dcgan", "channels": 4, "latent_dim": 8, "conditional": True},
            "training": {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "threads": 1},
        }
    ).recipe
    return Experiment(recipe, images.parent / "runs", watching, evaluates=False)


def test_changed_images_are_named_once_and_stay_in_the_log(images: Path) -> None:
    with pytest.raises(SystemExit):
        experiment(images, Dies(at=3)).run()
    (images / "cat" / "0.png").unlink()
    for _ in range(2):  # found again while no checkpoint knows the new ones
        watching = Dies(at=3)
        with pytest.raises(SystemExit):
            experiment(images, watching).run()
        assert [line for line in watching.told if line.startswith("warning: the images changed")] == [
            "warning: the images changed since step 2 of this run: 1 removed ('cat/0.png'); its numbers are of two "
            "datasets from here on"
        ]
    directory = experiment(images, Dies()).run().path
    again = Dies()
    experiment(images, again).run()
    assert not [line for line in again.told if "images changed" in line]
    log = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    assert [record for record in log if record["kind"] == "images"] == [
        {"kind": "images", "step": 2, "changes": "1 removed ('cat/0.png')"}
    ]
    page = build_report(directory).read_text()
    assert "The images changed at step 2: 1 removed (&#39;cat/0.png&#39;). The numbers are of two datasets." in page


def test_the_same_images_are_passed_over_in_silence(images: Path) -> None:
    with pytest.raises(SystemExit):
        experiment(images, Dies(at=3)).run()
    watching = Dies()
    directory = experiment(images, watching).run().path
    assert not [line for line in watching.told if "images" in line]
    assert '"images"' not in (directory / "log.jsonl").read_text()


def test_other_classes_are_refused_before_anything_is_changed(images: Path) -> None:
    with pytest.raises(SystemExit):
        experiment(images, Dies(at=3)).run()
    (images / "dog").rename(images / "wolf")
    with pytest.raises(DataError, match=r"until step 2: gone classes: 'dog'; new classes: 'wolf'; put them back"):
        experiment(images, Dies()).run()
    (images / "wolf").rename(images / "dog")
    experiment(images, Dies()).run()
