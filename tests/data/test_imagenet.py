"""ImageNet's and Tiny ImageNet's layouts, made here in miniature."""

from __future__ import annotations

import hashlib
import io
import shutil
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from gancompress.data import imagenet
from gancompress.data.download import Archive
from gancompress.data.imagenet import ImageNet, ImageNetConfig, TinyImageNet, TinyImageNetConfig
from gancompress.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

FISH, FROG = "n01443537", "n01641577"


def photograph(level: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, level if mode == "L" else (level,) * len(mode)).save(buffer, "JPEG", quality=100)
    return buffer.getvalue()


def write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    top = tmp_path / "tiny-imagenet-200"
    write(top / "wnids.txt", f"{FROG}\n{FISH}\n")  # not in order, as in the archive
    write(top / "words.txt", f"n0000\tnothing\n{FISH}\tgoldfish, Carassius auratus\n{FROG}\tbullfrog\n")
    for number, wnid in enumerate((FISH, FROG)):
        for image in range(2):
            mode = "L" if (number, image) == (0, 1) else "RGB"  # some are grey
            write(top / "train" / wnid / "images" / f"{wnid}_{image}.JPEG", photograph(10 * number + image, mode=mode))
        write(top / "train" / wnid / f"{wnid}_boxes.txt", "")
    write(top / "val" / "val_annotations.txt", f"val_0.JPEG\t{FROG}\t0\t0\t1\t1\nval_1.JPEG\t{FISH}\t0\t0\t1\t1\n")
    for image in range(2):
        write(top / "val" / "images" / f"val_{image}.JPEG", photograph(50 + image))
    write(top / "test" / "images" / "test_0.JPEG", photograph(0))
    return tmp_path


def tiny_set(path: Path, **settings: object) -> TinyImageNet:
    return TinyImageNet(TinyImageNetConfig(path=str(path), **settings))


def test_tiny_imagenet(tiny: Path) -> None:
    train, val = tiny_set(tiny), tiny_set(tiny / "tiny-imagenet-200", split="val")
    assert train.spec.classes == val.spec.classes == (f"{FISH} goldfish", f"{FROG} bullfrog")
    assert (train.spec.resolution, train.spec.channels) == (64, 3)
    batch = train.read(torch.arange(4))
    assert batch.labels.tolist() == [0, 0, 1, 1]
    assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 10, 11]
    assert val.labels().tolist() == [1, 0]
    assert val.read(torch.arange(2)).images[:, 0, 0, 0].tolist() == [50, 51]
    assert train.fingerprint() != val.fingerprint()
    assert tiny_set(tiny, resolution=32).read(torch.arange(1)).images.shape == (1, 3, 32, 32)
    assert tiny_set(tiny, labelled=False, split="val").spec.classes == ()


def test_tiny_imagenet_without_words_names_classes_by_their_ids(tiny: Path) -> None:
    (tiny / "tiny-imagenet-200" / "words.txt").unlink()
    assert tiny_set(tiny).spec.classes == (FISH, FROG)


@pytest.mark.parametrize(
    ("split", "gone", "message"),
    [
        ("val", "val/images/val_1.JPEG", r"tiny-imagenet-200/val: lacks images/val_1\.JPEG: unpack the archive again"),
        ("train", f"train/{FROG}", rf"has no images of class {FROG}: unpack"),
        ("val", "val/val_annotations.txt", r"val_annotations\.txt: cannot be read .*: unpack"),
        ("train", "wnids.txt", r"tiny-imagenet-200: Tiny ImageNet is incomplete here: use --set data\.path="),
    ],
)
def test_tiny_imagenet_with_gaps(tiny: Path, split: str, gone: str, message: str) -> None:
    path = tiny / "tiny-imagenet-200" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=message):
        tiny_set(tiny, split=split)


def test_an_image_of_no_class(tiny: Path) -> None:
    write(tiny / "tiny-imagenet-200" / "val" / "images" / "val_9.JPEG", photograph(0))
    with pytest.raises(DataError, match=r"images/val_9\.JPEG is of no class"):
        tiny_set(tiny, split="val")


def test_tiny_imagenet_is_downloaded(tiny: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    server, target = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("target") / "data"
    monkeypatch.chdir(target.parent)  # no folder is made outside of it
    made = shutil.make_archive(str(server / "tiny-imagenet-200"), "zip", tiny, "tiny-imagenet-200")
    with open(made, "rb") as file:
        content = file.read()
    archive = Archive(
        "Tiny ImageNet", f"file://{made}", len(content), hashlib.md5(content).hexdigest(), "tiny-imagenet-200"
    )
    with pytest.raises(
        DataError, match=r"is not there: use --set data\.path=.*--set data\.download=true \(248\.1 MB from http:"
    ):
        tiny_set(target)

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", offline)
        with pytest.raises(
            DataError, match=r"cannot be downloaded \(http:.*no route\): fetch it elsewhere and use --set"
        ):
            tiny_set(target, download=True)
    monkeypatch.setattr(imagenet, "_TINY", archive)
    assert len(tiny_set(target, download=True)) == 4
    assert len(tiny_set(target)) == 4


@pytest.mark.parametrize("inner", ["", "ILSVRC/Data/CLS-LOC"])
def test_imagenet(tmp_path: Path, inner: str) -> None:
    root = tmp_path / inner
    write(root / "train" / FROG / "a.JPEG", photograph(30, (50, 20)))
    write(root / "train" / FISH / "b.JPEG", photograph(20, (20, 50), "CMYK"))
    write(root / "val" / FISH / "c.JPEG", photograph(40, mode="L"))
    train = ImageNet(ImageNetConfig(path=str(tmp_path), resolution=16))
    assert train.spec.classes == (FISH, FROG)
    assert train.read(torch.arange(2)).images.shape == (2, 3, 16, 16)
    assert len(ImageNet(ImageNetConfig(path=str(tmp_path), split="val"))) == 1
    assert ImageNet(ImageNetConfig(path=str(tmp_path))).spec.resolution == 128


def test_imagenet_that_is_missing_or_flat(tmp_path: Path) -> None:
    message = r"/train: ImageNet is not there: use --set data\.path=FOLDER .*not downloaded, see https://image-net\.org"
    with pytest.raises(DataError, match=message):
        ImageNet(ImageNetConfig(path=str(tmp_path)))
    write(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", photograph(1))
    with pytest.raises(DataError, match=r"val: has no class folders: move the images of each class"):
        ImageNet(ImageNetConfig(path=str(tmp_path), split="val"))
    assert ImageNet(ImageNetConfig(path=str(tmp_path), split="val", labelled=False)).spec.classes == ()


def test_what_smoke_runs_are_told() -> None:
    spec = TinyImageNet.expected(TinyImageNetConfig())
    assert (spec.channels, spec.resolution, spec.num_classes) == (3, 64, 200)
    assert ImageNet.expected(ImageNetConfig(labelled=False, resolution=96)).num_classes == 0
