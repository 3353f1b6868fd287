"""Folders and zips made to fill memory or to hang, and files that are left out: refused, or counted and named."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from typer.testing import CliRunner

from gancompress.cli.main import app
from gancompress.data import files, images
from gancompress.data.folder import Folder, FolderConfig
from gancompress.data.images import decode
from gancompress.data.prepare import prepare
from gancompress.data.zipped import Zip, ZipConfig
from gancompress.errors import DataError
from gancompress.experiment.assemble import build_dataset
from gancompress.recipe.load import parse_recipe

if TYPE_CHECKING:
    from pathlib import Path

pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")


def png(value: int = 0, size: int = 4) -> bytes:
    return encoded(Image.fromarray(np.full((size, size, 3), value, np.uint8)))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def folder(root: Path, content: dict[str, bytes], **options: Any) -> Folder:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return Folder(FolderConfig(path=str(root), **options))


def packed(path: Path, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Zip:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return Zip(ZipConfig(path=str(path)))


# --- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [20230401, 10**30])
def test_dates_are_no_classes(tmp_path, label):
    document = json.dumps({"labels": [["a.png", 0], ["b.png", label]]}).encode()
    with pytest.raises(DataError, match=r"dataset\.json: [\d,]+ classes for 2 images: number the classes from 0"):
        folder(tmp_path, {"a.png": png(), "b.png": png(), "dataset.json": document})


def test_labels_nested_without_end(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json: not valid JSON"):
        folder(tmp_path, {"a.png": png(), "dataset.json": b"[" * 200_000})


def test_labels_far_larger_than_the_images_need_are_not_read(tmp_path):
    document = b'{"labels": null}' + b" " * (2 << 20)
    with pytest.raises(DataError, match=r"'dataset\.json' unpacks to 2\.\d+ MB, more than 1\.\d+ MB"):
        packed(tmp_path / "a.zip", {"a.png": png(), "dataset.json": document})
    with pytest.raises(DataError, match=r"cannot read 'dataset\.json' \(larger than 1\.\d+ MB\)"):
        folder(tmp_path / "a", {"a.png": png(), "dataset.json": document})


# --- sizes ---------------------------------------------------------------------------------------------------------


def test_files_larger_than_images_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("gancompress.data.zipped.LARGEST_FILE", 1000)
    monkeypatch.setattr("gancompress.data.folder.LARGEST_FILE", 1000)
    large = png() + bytes(2000)
    opened = packed(tmp_path / "a.zip", {"a.png": png(), "b.png": large})
    with pytest.raises(DataError, match=r"'b\.png' unpacks to 2\.\d+ kB, more than 1"):
        opened.prepare()
    with pytest.raises(DataError, match=r"cannot read 'b\.png' \(larger than 1.* kB\)"):
        folder(tmp_path / "a", {"a.png": png(), "b.png": large}).prepare()
    assert files.LARGEST_FILE > 1 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_no_more_is_unpacked_than_a_zip_says(tmp_path, method, monkeypatch):
    path = tmp_path / "a.zip"
    packed(path, {"a.png": png(), "b.png": bytes(5 << 20)}, method)
    data, small = bytearray(path.read_bytes()), struct.pack("<I", 5000)
    at = data.rindex(b"PK\x01\x02")  # the last entry of the directory: its size is a lie
    data[at + 24 : at + 28] = small
    path.write_bytes(data)
    opened = Zip(ZipConfig(path=str(path)))
    taken: list[int] = []
    read = zipfile.ZipExtFile._read1
    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", lambda self, n: [taken.append(n), read(self, n)][1])
    with pytest.raises(DataError, match=r"cannot extract 'b\.png' \(Bad CRC-32"):
        opened.prepare()
    assert max(taken) <= 1 << 20  # pieces, of what may unpack to anything


def test_images_of_too_many_pixels_are_refused_before_they_are_unpacked(monkeypatch):
    assert 8192**2 < images.MOST_PIXELS < 13_000**2
    monkeypatch.setattr(images, "MOST_PIXELS", 99)
    decode(png(size=9), "a.png", "here")
    large = png(size=10)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("unpacked"))
    with pytest.raises(DataError, match=r"cannot read image 'a\.png' \(10×10 pixels, more than 99 in all\)"):
        decode(large, "a.png", "here")


def test_programs_are_no_images(tmp_path):
    with pytest.raises(DataError, match="not an image of a known format"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n", "a.png", "here")


# --- what is no file -----------------------------------------------------------------------------------------------


@pipes
def test_a_pipe_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        Zip(ZipConfig(path=str(tmp_path / "pipe")))
    with pytest.raises(DataError, match="not a regular file"):
        prepare(tmp_path / "pipe", tmp_path / "out.zip", resolution=4)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b.png").symlink_to(tmp_path / "pipe")
    opened = folder(tmp_path / "set", {"a.png": png()})
    with pytest.raises(DataError, match=r"cannot read 'b\.png' \(not a regular file\)"):
        opened.prepare()
    with pytest.raises(DataError, match=r"cannot read 'b\.png' \(not a regular file\)"):
        opened.fingerprint()
    os.mkfifo(tmp_path / "set" / "dataset.json")
    with pytest.raises(DataError, match=r"cannot read 'dataset\.json' \(not a regular file\)"):
        folder(tmp_path / "set", {})


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device here")
def test_a_device_without_end_is_not_read(tmp_path):
    with pytest.raises(DataError, match="not a regular file"):
        Zip(ZipConfig(path="/dev/zero"))
    (tmp_path / "a.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"cannot read 'a\.png' \(not a regular file\)"):
        folder(tmp_path, {})


def test_each_folder_is_visited_once(tmp_path):
    content = {"cat/1.png": png(), "dog/2.png": png()}
    plain = folder(tmp_path, content)
    (tmp_path / "cat" / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dog" / "round").symlink_to(tmp_path / "cat", target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    again = folder(tmp_path, {})
    assert again.names == plain.names == ("cat/1.png", "dog/2.png")
    assert again.warnings() == (
        "3 files are left out: 2 folders ('cat/round/', 'dog/round/'), 1 without a suffix ('self')",
    )


def test_a_link_to_a_folder_elsewhere_is_followed_and_a_real_one_goes_first(tmp_path):
    folder(tmp_path / "pool", {"1.png": png()})
    opened = folder(tmp_path / "set", {"real/2.png": png()})
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "pool", target_is_directory=True)
    (tmp_path / "set" / "a").symlink_to(tmp_path / "set" / "real", target_is_directory=True)
    opened = folder(tmp_path / "set", {})
    assert opened.names == ("linked/1.png", "real/2.png")
    assert opened.classes == ("linked", "real")


# --- what is left out ----------------------------------------------------------------------------------------------


def test_jfif_is_an_image_and_so_its_folder_a_class(tmp_path):
    jpeg = encoded(Image.new("RGB", (4, 4), "red"), "JPEG")
    opened = folder(tmp_path, {"ant/1.jfif": jpeg, "bee/1.JPE": jpeg, "cat/1.png": png()})
    assert opened.classes == ("ant", "bee", "cat")
    assert opened.labels().tolist() == [0, 1, 2]
    assert opened.warnings() == ()


def test_one_folder_that_is_left_out_is_one_folder():
    assert files.left_out(["cat/round/"]) == ("1 folder is left out: 1 folder ('cat/round/')",)
    assert files.left_out(["a/", "b/"]) == ("2 folders are left out: 2 folders ('a/', 'b/')",)
    assert files.left_out(["a.txt"]) == ("1 file is left out: 1 .txt ('a.txt')",)


def test_every_file_that_is_left_out_is_counted_and_named(tmp_path):
    others = {f"ant/{number}.heic": b"" for number in range(3)} | {
        "notes.txt": b"",
        "bee/._1.png": b"",
        ".x/1.png": b"",
    }
    opened = folder(tmp_path, {**others, "bee/1.png": png()})
    assert opened.warnings() == (
        "6 files are left out: 3 .heic ('ant/0.heic', 'ant/1.heic', …), 1 .png ('bee/._1.png'), 1 .txt ('notes.txt'), "
        "1 folder ('.x/')",
        "folder 'ant' has no images, so it is no class",
    )
    content = {"a/1.png": png(), "a/2.heic": b"", "a/dataset.json": b'{"labels": [["1.png", 0]]}', "b/3.png": png()}
    zipped = packed(tmp_path / "a.zip", content)
    assert zipped.names == ("a/1.png",)
    assert zipped.warnings() == ("2 files are left out: 1 .heic ('a/2.heic'), 1 .png ('b/3.png')",)


def test_prepare_says_what_it_leaves_out(tmp_path):
    folder(tmp_path / "set", {"a.png": png(), "b.heic": b""})
    arguments = ["data", "prepare", str(tmp_path / "set"), "--out", str(tmp_path / "a.zip"), "--resolution", "4"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "warning: 1 file is left out: 1 .heic ('b.heic')" in result.output


@pytest.mark.parametrize("kind", ["P5", "P2"])
@pytest.mark.parametrize("largest", [65535, 1023])
def test_16_bit_pgm_is_grey(tmp_path, kind, largest):
    half = largest // 2 + 1
    body = struct.pack(">16H", *[half] * 16) if kind == "P5" else b" ".join([b"%d" % half] * 16)
    opened = folder(
        tmp_path, {"a.pgm": b"%s 4 4 %d\n" % (kind.encode(), largest) + body, "b.pgm": b"P5 4 4 255\n" + bytes(16)}
    )
    assert opened.spec.channels == 1
    assert opened.read(torch.tensor([0])).images.unique().tolist() == [128]
    made = prepare(tmp_path, tmp_path / "out.zip", resolution=4)
    assert made.channels == 1


def test_12_bits_of_a_tiff_use_the_whole_range(tmp_path):
    body = b"\x80\x08\x00" * 8  # 16 pixels of 2048 of 4095
    tags = {256: 4, 257: 4, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: len(body)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiff = b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + table + bytes(4)
    opened = folder(tmp_path, {"a.tif": tiff})
    assert opened.read(torch.tensor([0])).images.unique().tolist() == [128]


# --- class folders in a zip ----------------------------------------------------------------------------------------


def test_a_zip_of_class_folders_is_told_what_makes_them_classes(tmp_path):
    content = {"pets/cat/1.png": png(), "pets/dog/2.png": png(1)}
    opened = packed(tmp_path / "a.zip", content)
    (warning,) = opened.warnings()
    command = f"gancompress data prepare {tmp_path}/a.zip --out {tmp_path}/a-labelled.zip --resolution N"
    assert warning == f"folders in a zip (cat, dog, …) are no classes: `{command}` makes them so"
    with pytest.raises(DataError, match=r"no labels: `gancompress data prepare .*` makes its folders classes, or set"):
        Zip(ZipConfig(path=str(tmp_path / "a.zip"), labelled=True))
    data = {"name": "zip", "path": str(tmp_path / "a.zip")}
    recipe = parse_recipe({"name": "a", "data": data, "model": CONDITIONAL, "training": {"steps": 2}})
    with pytest.raises(DataError, match=r"the model is conditional, and folders in a zip .*gancompress data prepare"):
        build_dataset(recipe.recipe)
    made = prepare(tmp_path / "a.zip", tmp_path / "b.zip", resolution=4)
    assert (made.classes, made.warnings) == (("cat", "dog"), ())
    plain = packed(tmp_path / "c.zip", {"00000/1.png": png(), "00001/2.png": png()})
    assert plain.warnings() == ()


CONDITIONAL = {"name": "dcgan", "conditional": True}
