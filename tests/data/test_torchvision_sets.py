"""torchvision's own loaders on tiny archives made here, with the published checksums replaced by those of the files."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torchvision
from pydantic import ValidationError

from gancompress.data import ImageSpec
from gancompress.data.torchvision_sets import CIFAR10, CIFAR100, STL10, CIFARConfig, STL10Config
from gancompress.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def stl10(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for number, name in enumerate(("train", "test", "unlabeled")):
        # stored column by column: one image whose left half is bright
        image = np.zeros((3, 96, 96), dtype=np.uint8)
        image[:, :48] = 200 + number
        np.stack([image] * (number + 2)).tofile(folder / f"{name}_X.bin")
    np.array([10, 1], dtype=np.uint8).tofile(folder / "train_y.bin")
    np.array([2, 3, 4], dtype=np.uint8).tofile(folder / "test_y.bin")
    (folder / "class_names.txt").write_text("\n".join(f"class{number}" for number in range(10)))
    kind = torchvision.datasets.STL10
    for attribute in ("train_list", "test_list"):
        files = [[name, md5(folder / name)] for name, _ in getattr(kind, attribute)]
        monkeypatch.setattr(kind, attribute, files)
    return tmp_path


@pytest.fixture
def cifar(tmp_path, monkeypatch) -> Path:
    for kind, key, names in (
        (torchvision.datasets.CIFAR10, "labels", [f"class{number}" for number in range(10)]),
        (torchvision.datasets.CIFAR100, "fine_labels", [f"class{number}" for number in range(100)]),
    ):
        folder = tmp_path / kind.base_folder
        folder.mkdir()
        for attribute in ("train_list", "test_list"):
            files = []
            for number, (name, _) in enumerate(getattr(kind, attribute)):
                data = np.full((2, 3 * 32 * 32), number, dtype=np.uint8)
                data[:, :1024] += 100  # the red plane comes first
                (folder / name).write_bytes(pickle.dumps({"data": data, key: [number, 9]}))
                files.append([name, md5(folder / name)])
            monkeypatch.setattr(kind, attribute, files)
        meta = folder / kind.meta["filename"]
        meta.write_bytes(pickle.dumps({kind.meta["key"]: names}))
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(meta)})
    return tmp_path


def test_cifar10_is_read(cifar):
    train = CIFAR10(CIFARConfig(path=str(cifar)))
    assert len(train) == 10
    assert train.spec == ImageSpec(3, 32, tuple(f"class{number}" for number in range(10)))
    batch = train.read(torch.tensor([4, 5]))
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images[0].amax((1, 2)).tolist() == [102, 2, 2]
    assert batch.labels.tolist() == [2, 9]
    assert len(CIFAR10(CIFARConfig(path=str(cifar), split="test"))) == 2


def test_cifar100_has_its_fine_classes(cifar):
    train = CIFAR100(CIFARConfig(path=str(cifar)))
    assert train.spec.num_classes == 100
    assert train.labels().tolist() == [0, 9]


def test_altered_files_are_refused_before_they_are_read(cifar):
    (cifar / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"cifar-10-batches-py: CIFAR-10 is incomplete or altered here"):
        CIFAR10(CIFARConfig(path=str(cifar)))


def test_stl10_splits(stl10):
    train = STL10(STL10Config(path=str(stl10), resolution=96))
    assert train.spec == ImageSpec(3, 96, tuple(f"class{number}" for number in range(10)))
    batch = train.read(torch.arange(2))
    assert batch.labels.tolist() == [9, 0]
    assert (batch.images[:, :, :, :48] == 200).all()
    assert (batch.images[:, :, :, 48:] == 0).all()
    assert STL10(STL10Config(path=str(stl10), split="test")).labels().tolist() == [1, 2, 3]
    unlabeled = STL10(STL10Config(path=str(stl10), split="unlabeled"))
    assert (len(unlabeled), unlabeled.spec.classes) == (4, ())
    everything = STL10(STL10Config(path=str(stl10), split="train+unlabeled"))
    assert (len(everything), everything.spec.classes) == (6, ())
    assert everything.labels().tolist() == [0] * 6


@pytest.mark.parametrize("resolution", [32, 48, 64])
def test_stl10_is_reduced(stl10, resolution):
    images = STL10(STL10Config(path=str(stl10), resolution=resolution)).read(torch.arange(2)).images
    assert images.shape == (2, 3, resolution, resolution)
    assert (images[..., : resolution // 2 - 2] == 200).all()
    assert (images[..., resolution // 2 + 2 :] == 0).all()


def test_fingerprints(cifar, stl10):
    sets = [
        CIFAR10(CIFARConfig(path=str(cifar))),
        CIFAR10(CIFARConfig(path=str(cifar), split="test")),
        CIFAR100(CIFARConfig(path=str(cifar))),
        STL10(STL10Config(path=str(stl10))),
        STL10(STL10Config(path=str(stl10), resolution=32)),
    ]
    assert len({dataset.fingerprint() for dataset in sets}) == 5
    assert CIFAR10(CIFARConfig(path=str(cifar))).fingerprint() == sets[0].fingerprint()


@pytest.mark.parametrize(
    ("kind", "folder", "title"),
    [
        (CIFAR10, "cifar-10-batches-py", "CIFAR-10"),
        (CIFAR100, "cifar-100-python", "CIFAR-100"),
        (STL10, "stl10_binary", "STL-10"),
    ],
)
def test_missing_files_say_where_and_what_mends_it(tmp_path, monkeypatch, kind, folder, title):
    message = rf"{tmp_path}/{folder}: {title} is not there: use --set data\.path=.* or --set data\.download=true"
    with pytest.raises(DataError, match=message):
        kind(kind.Config(path=str(tmp_path)))

    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    message = rf"{folder}: {title} is not there and cannot be downloaded \(http.*: .*not known.*--set data\.path="
    with pytest.raises(DataError, match=message) as caught:
        kind(kind.Config(path=str(tmp_path), download=True))
    assert "\n" not in str(caught.value)


def test_stl10_reads_only_the_files_of_its_split(stl10):
    (stl10 / "stl10_binary" / "unlabeled_X.bin").unlink()
    assert len(STL10(STL10Config(path=str(stl10)))) == 2
    with pytest.raises(DataError, match="STL-10 is incomplete or altered here"):
        STL10(STL10Config(path=str(stl10), split="unlabeled"))


def test_a_download_is_unpacked_checked_and_mends_what_was_altered(stl10, tmp_path_factory, monkeypatch, capsys):
    archive = tmp_path_factory.mktemp("server") / "stl10_binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tape:
        tape.add(stl10 / "stl10_binary", "stl10_binary")
    kind = torchvision.datasets.STL10
    monkeypatch.setattr(kind, "url", archive.as_uri())
    monkeypatch.setattr(kind, "tgz_md5", md5(archive))
    monkeypatch.setattr(STL10, "download_size", archive.stat().st_size)
    (stl10 / "stl10_binary" / "train_X.bin").write_bytes(b"altered")
    assert len(STL10(STL10Config(path=str(stl10), download=True))) == 2
    fresh = tmp_path_factory.mktemp("fresh")
    assert len(STL10(STL10Config(path=str(fresh), download=True, split="test"))) == 3
    assert "downloading STL-10 from file:" in capsys.readouterr().err
    assert {path.name for path in fresh.iterdir()} == {"stl10_binary", ".stl10_binary.tar.gz.lock"}
    monkeypatch.setattr(urllib.request, "urlopen", None)  # not asked again
    assert len(STL10(STL10Config(path=str(fresh), download=True))) == 2


def test_settings_out_of_range():
    with pytest.raises(ValidationError):
        CIFARConfig(split="valid")
    with pytest.raises(ValidationError):
        STL10Config(resolution=50)
