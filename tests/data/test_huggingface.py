"""The dataset ``hf``: what is said without the library, and the library itself on local files where it is installed."""

from __future__ import annotations

import io
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from gancompress.data.huggingface import HuggingFace, HuggingFaceConfig
from gancompress.errors import DataError
from gancompress.recipe.load import parse_recipe

if TYPE_CHECKING:
    from pathlib import Path

RECIPE: dict[str, Any] = {"name": "t", "model": "dcgan", "training": {"steps": 1}}


def open_set(**settings: Any) -> HuggingFace:
    return HuggingFace(HuggingFaceConfig(**settings))


def test_the_short_form_names_the_dataset() -> None:
    recipe = parse_recipe({**RECIPE, "data": "hf:uoft-cs/cifar10"}).recipe
    assert (recipe.data.name, recipe.data.dataset) == ("hf", "uoft-cs/cifar10")  # type: ignore[attr-defined]
    written_out = parse_recipe({**RECIPE, "data": {"name": "hf", "dataset": "uoft-cs/cifar10"}}).recipe
    assert recipe == written_out
    assert parse_recipe({**RECIPE, "data": "digits"}, ["data=hf:uoft-cs/cifar10"]).recipe == written_out


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package datasets: pip install 'gancompress\[hf\]'"):
        open_set(dataset="a/b")


def test_a_version_that_would_run_scripts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = types.ModuleType("datasets")
    old.__version__ = "3.6.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", old)
    with pytest.raises(DataError, match=r"needs datasets 4 or newer, which run no code of a dataset; 3\.6\.0"):
        open_set(dataset="a/b")


# --- with the library -----------------------------------------------------------------------------------------------


def pixel(number: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    library.disable_progress_bars()
    columns = {
        "img": [pixel(n) for n in range(6)],
        "label": [n % 3 for n in range(6)],
        "word": ["bac"[n % 3] for n in range(6)],
        "number": [n % 2 for n in range(6)],
        "bad": [0, 1, -1, 0, 1, 0],
    }
    names = library.ClassLabel(names=["cat", "dog", "eel"])
    word, number = library.Value("string"), library.Value("int64")
    kinds = {"img": library.Image(), "label": names, "word": word, "number": number, "bad": number}
    return library.Dataset.from_dict(columns, features=library.Features(kinds))


@pytest.fixture
def saved(made: Any, tmp_path: Path) -> str:
    made.save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_parquet_arrow_and_saved_splits_are_the_same_images(made: Any, saved: str, tmp_path: Path) -> None:
    (tmp_path / "parquet").mkdir()
    made.to_parquet(tmp_path / "parquet" / "train.parquet")
    sets = [
        open_set(dataset=saved),
        open_set(dataset=str(tmp_path / "parquet")),
        open_set(dataset="parquet", data_files=str(tmp_path / "parquet" / "*.parquet")),
    ]
    for dataset in sets:
        assert (len(dataset), dataset.spec.classes) == (6, ("cat", "dog", "eel"))
        batch = dataset.read(torch.tensor([4, 1]))
        assert batch.images[:, 0, 0, 0].tolist() == [4, 1]
        assert batch.labels.tolist() == [1, 1]
    assert len({dataset.fingerprint() for dataset in sets}) == 1
    part = open_set(dataset=str(tmp_path / "parquet"), split="train[:2]", resolution=8)
    assert (len(part), part.spec.resolution) == (2, 8)
    assert part.fingerprint() != sets[0].fingerprint()


def test_image_folders(made: Any, tmp_path: Path) -> None:
    for split, kind in (("train", "x"), ("train", "y"), ("test", "x"), ("test", "y")):
        folder = tmp_path / "images" / split / kind
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4), (9, 0, 0)).save(folder / "1.png")
    dataset = open_set(dataset=str(tmp_path / "images"), split="test")
    assert (len(dataset), dataset.spec.classes, dataset.labels().tolist()) == (2, ("x", "y"), [0, 1])
    assert dataset.read(torch.tensor([1])).images[0, 0, 0, 0] == 9
    with pytest.raises(DataError, match=r"images \[valid\]: cannot be loaded \(Unknown split .*--set data\.dataset="):
        open_set(dataset=str(tmp_path / "images"), split="valid")


@pytest.mark.parametrize(
    ("column", "classes", "labels"),
    [("word", ("a", "b", "c"), [1, 0, 2, 1, 0, 2]), ("number", ("0", "1"), [0, 1] * 3)],
)
def test_labels_are_words_or_numbers(saved: str, column: str, classes: tuple[str, ...], labels: list[int]) -> None:
    dataset = open_set(dataset=saved, label=column)
    assert (dataset.spec.classes, dataset.labels().tolist()) == (classes, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "pic"}, r"'pic' is no column; columns of images: img: use --set data\.image"),
        ({"image": "word"}, r"'word' is no column of images; columns of images: img"),
        ({"label": "class"}, r"'class' is no column of labels; there are: label, word, number, bad"),
        ({"label": "bad"}, r"bad of row 2 is -1, not the number of a class; .*--set data\.labelled=false"),
        ({"split": "test"}, r"holds one split: use --set data\.split=train"),
        ({"dataset": "pandas"}, "reads pickles, which are never read here"),
    ],
)
def test_mistakes_name_what_there_is(saved: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_set(**{"dataset": saved, **settings})


def test_two_columns_of_labels_have_to_be_told_apart(made: Any, tmp_path: Path) -> None:
    made.add_column("coarse", [0] * 6).cast_column("coarse", made.features["label"]).save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match=r"several columns of labels, label, coarse: name one with --set data\.label"):
        open_set(dataset=str(tmp_path / "two"))
    assert open_set(dataset=str(tmp_path / "two"), labelled=False).spec.classes == ()
    assert open_set(dataset=str(tmp_path / "two"), label="coarse").labels().tolist() == [0] * 6
    made.remove_columns("img").save_to_disk(tmp_path / "none")
    with pytest.raises(DataError, match="has no columns of images: name one"):
        open_set(dataset=str(tmp_path / "none"))


def test_several_saved_splits(made: Any, tmp_path: Path) -> None:
    library = pytest.importorskip("datasets")
    library.DatasetDict({"train": made, "test": made.select(range(2))}).save_to_disk(tmp_path / "all")
    assert len(open_set(dataset=str(tmp_path / "all"), split="test")) == 2
    with pytest.raises(DataError, match=r"has no split 'val'; there are: train, test: use --set data\.split"):
        open_set(dataset=str(tmp_path / "all"), split="val")
