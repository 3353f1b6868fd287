"""What changed among the images of a run is found, and named, from what a checkpoint keeps."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from gancompress.data import census as module
from gancompress.data.census import Census, changes
from gancompress.data.folder import Folder, FolderConfig
from gancompress.data.shapes import Shapes, ShapesConfig
from gancompress.data.zipped import Zip, ZipConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gancompress.data.base import Dataset


def paint(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path, "BMP")  # all of the same size


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for index in range(4):
        paint(tmp_path / "in" / ("cat" if index < 2 else "dog") / f"{index}.bmp", index)
    return tmp_path / "in"


def as_folder(images: Path) -> Dataset[Any]:
    return Folder(FolderConfig(path=str(images)))


def as_zip(images: Path) -> Dataset[Any]:
    path = images.parent / "in.zip"
    names = sorted(str(one.relative_to(images)) for one in images.rglob("*.bmp"))
    labels = {name: int(name.startswith("dog")) for name in names}
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.write(images / name, name)
        packed.writestr("dataset.json", json.dumps({"labels": labels, "classes": ["cat", "dog"]}))
    return Zip(ZipConfig(path=str(path)))


def kept(dataset: Dataset[Any]) -> Census:
    """Return a census after a checkpoint."""
    taken = dataset.census()
    return Census.from_checkpoint(json.loads(json.dumps(taken.scalars)), taken.tensors)


@pytest.mark.parametrize("opened", [as_folder, as_zip])
def test_what_changed_is_named(images: Path, opened: Callable[[Path], Dataset[Any]]) -> None:
    before = kept(opened(images))
    assert before == opened(images).census()
    assert changes(before, opened(images).census()) == []
    paint(images / "cat" / "0.bmp", 200)
    (images / "dog" / "2.bmp").unlink()
    paint(images / "dog" / "9.bmp", 9)
    assert changes(before, opened(images).census()) == [
        "1 removed ('dog/2.bmp')",
        "1 added ('dog/9.bmp')",
        "1 changed ('cat/0.bmp')",
    ]


def test_another_class_is_named_with_both(images: Path) -> None:
    names = sorted(str(one.relative_to(images)) for one in images.rglob("*.bmp"))

    def labelled(*labels: int) -> Census:
        pairs = [[name, label] for name, label in zip(names, labels, strict=True)]
        (images / "dataset.json").write_text(json.dumps({"labels": pairs, "classes": ["cat", "dog"]}))
        return kept(as_folder(images))

    assert changes(labelled(0, 0, 1, 1), labelled(0, 1, 1, 1)) == ["1 relabelled ('cat/1.bmp': cat then, dog now)"]


def test_many_are_counted_and_some_named() -> None:
    names = tuple(f"{index}.png" for index in range(1000))
    before = Census(1000, (), names=names, labels=(0,) * 1000, marks=("7",) * 1000)
    after = Census(1, (), names=names[:1], labels=(0,), marks=("7",))
    assert changes(before, after) == ["999 removed ('1.png', '2.png', '3.png' and 996 more)"]


def test_beyond_the_limit_only_sizes_are_read(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What escapes then is said in the guide; and a set that shrank below the limit is no other set."""
    few = kept(as_folder(images))
    for name in ("folder", "files"):
        monkeypatch.setattr(f"gancompress.data.{name}.PROBED", 3)
    many = kept(as_folder(images))
    assert {mark.split()[0] for mark in few.marks} == set(many.marks)
    assert changes(many, few) == changes(few, many) == []
    paint(images / "cat" / "0.bmp", 200)
    assert changes(many, as_folder(images).census()) == []
    with (images / "cat" / "0.bmp").open("ab") as file:
        file.write(b"\0")
    assert changes(many, as_folder(images).census()) == ["1 changed ('cat/0.bmp')"]
    assert module.PROBED > 10_000


def test_images_without_names_are_told_apart_by_their_fingerprint() -> None:
    one, same, other, fewer = (
        kept(Shapes(ShapesConfig(resolution=12, images=count, seed=seed)))
        for count, seed in ((8, 0), (8, 0), (8, 1), (7, 0))
    )
    assert changes(one, same) == []
    assert changes(one, other) == ["they are others"]
    assert changes(one, fewer) == ["they are others: 8 then, 7 now"]
