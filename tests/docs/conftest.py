"""A directory for each page, and one cache for all of them."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from blocks import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def docs_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docs-cache")


@pytest.fixture
def desk(docs_cache: Path, quick_classifier: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that a reader works in."""
    monkeypatch.setenv("GANCOMPRESS_CACHE", str(docs_cache))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    _zip(tmp_path / "cifar10_train.zip", 40, 32, 10)
    for folder, count in (("cats-and-dogs/cat", 13), ("cats-and-dogs/dog", 12), ("paintings", 24)):
        (tmp_path / folder).mkdir(parents=True)
        for index in range(count):
            (tmp_path / folder / f"{index}.png").write_bytes(_image(index, 40))
    return tmp_path


def _image(index: int, side: int) -> bytes:
    from PIL import Image

    out = BytesIO()
    Image.new("RGB", (side, side), (index * 23 % 256, index * 57 % 256, 90)).save(out, "PNG")
    return out.getvalue()


def _zip(path: Path, count: int, side: int, classes: int) -> None:
    names = [f"img{index:04d}.png" for index in range(count)]
    with zipfile.ZipFile(path, "w") as archive:
        for index, name in enumerate(names):
            archive.writestr(name, _image(index, side))
        labels = [[name, index % classes] for index, name in enumerate(names)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
