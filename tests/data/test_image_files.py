from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from gancompress.data import Dataset, ImageSpec
from gancompress.data.folder import Folder, FolderConfig
from gancompress.data.images import is_image_name, resize_square
from gancompress.data.zipped import Zip, ZipConfig
from gancompress.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def pixels(number: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(array: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make(root: Path, kind: str, files: dict[str, bytes | str | dict], **options: object) -> Dataset:
    """Write files into a zip or a folder and open it."""
    contents = {
        name: json.dumps(data).encode() if isinstance(data, dict) else data.encode() if isinstance(data, str) else data
        for name, data in files.items()
    }
    if kind == "zip":
        path = root / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        return Zip(ZipConfig(path=str(path), **options))
    path = root / "set"
    for name, data in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    path.mkdir(exist_ok=True)
    return Folder(FolderConfig(path=str(path), **options))


def images(count: int, prefix: str = "img") -> dict[str, bytes]:
    return {f"{prefix}{number}.png": encode(pixels(number)) for number in range(count)}


def expected(*numbers: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(pixels(number)).permute(2, 0, 1) for number in numbers])


both = pytest.mark.parametrize("kind", ["zip", "folder"])


# --- reading -------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("memory_limit", [4096, 0])
def test_labelled_round_trip_in_memory_and_on_demand(tmp_path, kind, memory_limit):
    labels = {"labels": [["img2.png", 0], ["img0.png", 1], ["img1.png", 1]], "classes": ["cat", "dog"]}
    dataset = make(tmp_path, kind, {**images(3), "dataset.json": labels}, memory_limit=memory_limit)
    assert dataset.spec == ImageSpec(channels=3, resolution=4, classes=("cat", "dog"))
    assert len(dataset) == 3
    batch = dataset.read(torch.tensor([2, 0, 2, 1]))
    assert batch.images.dtype == torch.uint8
    assert batch.images.equal(expected(2, 0, 2, 1))
    assert batch.labels.tolist() == [0, 1, 0, 1]
    assert dataset.labels().tolist() == [1, 1, 0]


@both
@pytest.mark.parametrize("document", [None, {"labels": None}, {}])
def test_without_labels(tmp_path, kind, document):
    files: dict = images(2)
    if document is not None:
        files["dataset.json"] = document
    dataset = make(tmp_path, kind, files)
    assert dataset.spec.classes == ()
    assert dataset.read(torch.tensor([1])).labels.tolist() == [0]


@both
def test_classes_are_numbered_when_they_have_no_names_and_labels_may_be_an_object(tmp_path, kind):
    dataset = make(tmp_path, kind, {**images(2), "dataset.json": {"labels": {"img0.png": 2, "img1.png": 0}}})
    assert dataset.spec.classes == ("0", "1", "2")
    assert dataset.labels().tolist() == [2, 0]


@both
def test_labels_can_be_ignored(tmp_path, kind):
    files = {**images(2), "dataset.json": "not even JSON"}
    assert make(tmp_path, kind, files, labelled=False).spec.classes == ()


def test_subfolders_of_a_folder_are_classes_in_order_of_their_names(tmp_path):
    files = {"b/1.png": encode(pixels(1)), "a/deep/2.png": encode(pixels(2)), "b/0.png": encode(pixels(0))}
    dataset = make(tmp_path, "folder", {**files, "notes.txt": "x", ".hidden/3.png": b"", "b/.4.png": b""})
    assert dataset.spec.classes == ("a", "b")
    batch = dataset.read(torch.arange(3))
    assert batch.images.equal(expected(2, 0, 1))
    assert batch.labels.tolist() == [0, 1, 1]


def test_subfolders_of_a_zip_mean_nothing(tmp_path):
    dataset = make(tmp_path, "zip", {"00000/0.png": encode(pixels(0)), "00001/1.png": encode(pixels(1))})
    assert dataset.spec.classes == ()


def test_a_zip_with_its_folder_around_it(tmp_path):
    labels = {"labels": [["x/0.png", 1], ["x/1.png", 0]]}
    files = {f"pets/x/{number}.png": encode(pixels(number)) for number in range(2)}
    dataset = make(tmp_path, "zip", {**files, "pets/dataset.json": labels, "__MACOSX/pets/x/._0.png": b"junk"})
    assert dataset.labels().tolist() == [1, 0]
    assert len(dataset) == 2


def test_deflated_zip_and_limit(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in reversed(images(5).items()):
            archive.writestr(name, data)
        archive.writestr("dataset.json", json.dumps({"labels": [[f"img{i}.png", i % 2] for i in range(5)]}))
    dataset = Zip(ZipConfig(path=str(path), limit=3))
    batch = dataset.read(torch.arange(3))
    assert batch.images.equal(expected(0, 1, 2))
    assert batch.labels.tolist() == [0, 1, 0]
    assert dataset.fingerprint() != Zip(ZipConfig(path=str(path))).fingerprint()


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 100}), ("WEBP", {"lossless": True}), ("BMP", {})])
def test_other_image_formats(tmp_path, kind, options):
    smooth = np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8)
    dataset = make(tmp_path, "zip", {f"a.{kind.lower()}": encode(smooth, kind, **options)})
    difference = dataset.read(torch.tensor([0])).images[0].int() - torch.tensor([200, 100, 50])[:, None, None]
    assert difference.abs().max() <= 2


@both
def test_many_large_images_come_in_order_from_several_threads(tmp_path, kind):
    files = {f"{number:03}.png": encode(np.full((128, 128, 3), number, np.uint8)) for number in range(150)}
    dataset = make(tmp_path, kind, files, resolution=4)
    assert dataset.read(torch.arange(150)).images[:, 0, 0, 0].tolist() == list(range(150))


# --- converting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resample", ["box", "lanczos"])
def test_resize_crops_the_centre(tmp_path, resample):
    wide = np.zeros((8, 16, 3), dtype=np.uint8)
    wide[:, :4] = 255  # outside the centred square
    wide[:4, 4:12] = 100
    dataset = make(tmp_path, "zip", {"a.png": encode(wide)}, resolution=4, filter=resample)
    image = dataset.read(torch.tensor([0])).images[0, 0].int()
    wanted = torch.tensor([[100] * 4] * 2 + [[0] * 4] * 2)
    assert (image - wanted).abs().max() <= (0 if resample == "box" else 12)


def test_box_averages_exactly():
    image = Image.fromarray(np.array([[0, 100], [40, 60]], dtype=np.uint8))
    assert np.asarray(resize_square(image, 1, "box")).item() == 50


def test_an_image_of_the_right_size_is_untouched():
    image = Image.fromarray(pixels(0))
    assert resize_square(image, 4) is image


def test_grey_images(tmp_path):
    grey = pixels(0)[:, :, 0]
    dataset = make(tmp_path, "zip", {"a.png": encode(grey)})
    assert dataset.spec.channels == 1
    assert dataset.read(torch.tensor([0])).images[0, 0].equal(torch.from_numpy(grey))
    as_rgb = make(tmp_path, "zip", {"a.png": encode(grey)}, channels=3)
    assert as_rgb.read(torch.tensor([0])).images[0].equal(torch.from_numpy(grey).expand(3, 4, 4))


@both
@pytest.mark.parametrize("channels", [1, 3])
def test_mixed_images_convert_when_channels_say_so(tmp_path, kind, channels):
    files = {"a.png": encode(pixels(0)), "b.png": encode(pixels(1)[:, :, 0])}
    dataset = make(tmp_path, kind, files, channels=channels)
    assert dataset.read(torch.arange(2)).images.shape == (2, channels, 4, 4)


def test_transparent_parts_become_white(tmp_path):
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    image = make(tmp_path, "zip", {"a.png": encode(rgba)}).read(torch.tensor([0])).images[0]
    assert image[:, 0, 0].tolist() == [10, 20, 30]
    assert image[:, 1:, 1:].unique().tolist() == [255]


def test_palettes_and_16_bit_grey(tmp_path):
    palette = Image.fromarray(np.full((4, 4, 3), (0, 255, 0), np.uint8)).convert("P", palette=Image.Palette.ADAPTIVE)
    image = make(tmp_path, "zip", {"a.gif": encode(palette, "GIF")}).read(torch.tensor([0])).images[0]
    assert image[:, 0, 0].tolist() == [0, 255, 0]
    deep = Image.fromarray(np.full((4, 4), 0x80FF, np.uint16))
    dataset = make(tmp_path, "zip", {"a.png": encode(deep)})
    assert dataset.spec.channels == 1
    assert dataset.read(torch.tensor([0])).images.unique().tolist() == [0x80]


def test_photographs_are_turned_upright(tmp_path):
    halves = np.zeros((8, 8, 3), dtype=np.uint8)
    halves[:, 4:] = 255  # right half white
    exif = Image.Exif()
    exif[0x0112] = 6  # camera held upright: turn by 90° clockwise to show
    data = encode(halves, "JPEG", quality=100, subsampling=0, exif=exif)
    image = make(tmp_path, "zip", {"a.jpg": data}).read(torch.tensor([0])).images[0, 0]
    assert (image[4:] > 250).all()
    assert (image[:4] < 5).all()


def test_image_names():
    assert all(map(is_image_name, ["a.png", "x/y.JPEG", "z.webp"]))
    assert not any(map(is_image_name, ["a.txt", ".a.png", "x/._a.png", "__MACOSX/a.png", "png"]))


# --- fingerprints --------------------------------------------------------------------------------------------------


@both
def test_fingerprints_tell_content_order_labels_and_settings(tmp_path, kind):
    def fingerprint(number: int, files: dict, **options: object) -> str:
        folder = tmp_path / str(number)
        folder.mkdir()
        return make(folder, kind, files, **options).fingerprint()

    base = fingerprint(0, images(3))
    assert fingerprint(1, images(3)) == base  # another place and time
    one_pixel = pixels(1)
    one_pixel[0, 0, 0] ^= 1
    swapped = {"img0.png": images(2)["img1.png"], "img1.png": images(2)["img0.png"], "img2.png": images(3)["img2.png"]}
    others = [
        fingerprint(2, {**images(3), "img1.png": encode(one_pixel)}),
        fingerprint(3, swapped),
        fingerprint(4, images(2)),
        fingerprint(5, images(3), resolution=8),
        fingerprint(6, images(3), resolution=8, filter="box"),
        fingerprint(7, images(3), channels=1),
        fingerprint(8, {**images(3), "dataset.json": {"labels": [[f"img{i}.png", 0] for i in range(3)]}}),
    ]
    assert len({base, *others}) == len(others) + 1
    assert fingerprint(9, images(3), memory_limit=0) == base  # how it is read does not matter


# --- errors --------------------------------------------------------------------------------------------------------


def fails(message: str):
    return pytest.raises(DataError, match=message)


def test_missing_paths(tmp_path):
    with fails(r"nothing\.zip: no such file: set data\.path to the zip of images"):
        Zip(ZipConfig(path=str(tmp_path / "nothing.zip")))
    with fails(r"the zip of images, or fetch CIFAR-10: --set data=cifar10 --set data\.path=data --set data\.download"):
        Zip(ZipConfig(path=str(tmp_path / "cifar10_train.zip")))
    with fails(r"nothing: no such folder: set data\.path"):
        Folder(FolderConfig(path=str(tmp_path / "nothing")))


def test_zip_and_folder_confused(tmp_path):
    with fails(r"is a folder: set data\.name to folder"):
        Zip(ZipConfig(path=str(tmp_path)))
    (tmp_path / "a.zip").write_bytes(b"x")
    with fails(r"a\.zip: is a file, not a folder: for a zip, set data\.name to zip"):
        Folder(FolderConfig(path=str(tmp_path / "a.zip")))


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x03\x04" + b"\0" * 50])
def test_not_a_zip(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with fails(r"a\.zip: cannot be read as a zip"):
        Zip(ZipConfig(path=str(tmp_path / "a.zip")))


@both
def test_no_images(tmp_path, kind):
    with fails("no images in it"):
        make(tmp_path, kind, {"readme.txt": "x"})


@both
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (b"", "empty file"),
        (b"GIF or not", "not an image of a known format"),
        (encode(pixels(1, 64, 64))[:2000], r"."),
    ],
)
def test_unreadable_images_are_named(tmp_path, kind, damage, reason):
    dataset = make(tmp_path, kind, {**images(3), "img1.png": damage})
    with fails(rf"cannot read image 'img1\.png' \(.*{reason}.*\): replace it or take it out"):
        dataset.prepare()
    with fails(r"'img1\.png'"):
        dataset.read(torch.tensor([0]))


@both
def test_several_bad_images_are_named_at_once(tmp_path, kind):
    bad = {"img1.png": b"", "img3.png": encode(pixels(2, 5, 6)), "img4.png": b"GIF or not"}
    dataset = make(tmp_path, kind, {**images(6), **bad})
    with fails(r"'img1\.png' \(empty file\).*; image 'img3\.png' is 6×5.*; cannot read image 'img4\.png'") as caught:
        dataset.prepare()
    assert str(caught.value).count("img") == 3
    assert "more" not in str(caught.value)


@both
def test_of_very_many_bad_images_a_few_are_named(tmp_path, kind):
    bad = {f"img{index}.png": b"" for index in range(1, 40)}
    with fails(r"'img1\.png'.*; and more, which were not looked for") as caught:
        make(tmp_path, kind, {**images(40), **bad}).prepare()
    assert str(caught.value).count("empty file") == 8


def test_a_damaged_zip_member_is_named(tmp_path):
    make(tmp_path, "zip", images(3))
    data = bytearray((tmp_path / "set.zip").read_bytes())
    at = data.index(encode(pixels(1))) + 50
    data[at] ^= 0xFF
    (tmp_path / "set.zip").write_bytes(data)
    with fails(r"cannot extract 'img1\.png' \(Bad CRC-32.*make the zip again"):
        Zip(ZipConfig(path=str(tmp_path / "set.zip"))).prepare()


@both
def test_images_of_other_sizes(tmp_path, kind):
    files = {**images(2), "img2.png": encode(pixels(2, 5, 6))}
    message = r"image 'img2\.png' is 6×5, but the first one is 4×4: set data\.resolution"
    with fails(message):
        make(tmp_path, kind, files).prepare()
    with fails(message):  # on demand: when it is asked for
        make(tmp_path, kind, files, memory_limit=0).read(torch.tensor([2]))
    make(tmp_path, kind, files, resolution=4).prepare()


@both
def test_images_that_are_not_square(tmp_path, kind):
    with fails(r"image 'a\.png' is 6×4, not square: set data\.resolution to crop and resize"):
        make(tmp_path, kind, {"a.png": encode(pixels(0, 4, 6))})


@both
def test_grey_and_rgb_mixed(tmp_path, kind):
    grey = encode(pixels(1)[:, :, 0])
    with fails(r"'b\.png' is grey, but the first one is RGB: set data\.channels to 1 or 3"):
        make(tmp_path, kind, {"a.png": encode(pixels(0)), "b.png": grey}).prepare()
    (tmp_path / "2").mkdir()
    with fails(r"'b\.png' is RGB, but the first one is grey"):
        make(tmp_path / "2", kind, {"a.png": grey, "b.png": encode(pixels(0))}).prepare()


def test_32_bit_pixels(tmp_path):
    floats = encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    with fails(r"'a\.tiff' has 32-bit pixels"):
        make(tmp_path, "zip", {"a.tiff": floats}).prepare()


LABEL_ERRORS = [
    ("{", r"dataset\.json: not valid JSON"),
    ("[1]", r'expected \{"labels"'),
    ({"labels": 3}, r'expected \{"labels"'),
    ({"labels": [["img0.png"]]}, r'each label is a pair \["file", class\], got \["img0\.png"\]'),
    ({"labels": [["img0.png", "cat"]]}, r"label of 'img0\.png' must be a whole number, got \"cat\""),
    ({"labels": [["img0.png", 1.5]]}, "must be a whole number, got 1.5"),
    ({"labels": [["img0.png", True]]}, "must be a whole number, got true"),
    ({"labels": [["img0.png", -1]]}, r"label -1 of 'img0\.png' is out of range: classes count from 0"),
    (
        {"labels": [["img0.png", 0], ["img1.png", 2]], "classes": ["a", "b"]},
        r"label 2 of 'img1\.png' is out of range: .*0 to 1",
    ),
    ({"labels": [["img0.png", 0], ["img0.png", 1]]}, r"'img0\.png' has two labels, 0 and 1"),
    ({"labels": [["img0.png", 0], ["gone.png", 0]]}, r"names 'gone\.png', but there is no such image beside it"),
    ({"labels": [["g1.png", 0], ["g2.png", 0]]}, r"names 'g1\.png' and 1 more, but"),
    ({"labels": [["img0.png", 0]]}, r"no label for 'img1\.png': label every image, or set data\.labelled to false"),
    ({"labels": []}, r"no label for 'img0\.png' and 1 more"),
    ({"labels": [["img0.png", 0], ["img1.png", 0]], "classes": "ab"}, '"classes" must be a list of names'),
]


@both
@pytest.mark.parametrize(("document", "message"), LABEL_ERRORS)
def test_wrong_labels(tmp_path, kind, document, message):
    with fails(message) as caught:
        make(tmp_path, kind, {**images(2), "dataset.json": document})
    assert "dataset.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_required(tmp_path):
    with fails(r"no labels: add a dataset\.json, or set data\.labelled to false"):
        make(tmp_path, "zip", images(1), labelled=True)
    with fails("no labels: put each class into a subfolder"):
        make(tmp_path, "folder", images(1), labelled=True)


def test_several_label_files(tmp_path):
    with fails(r"has several dataset\.json: a/dataset\.json, dataset\.json; keep one"):
        make(tmp_path, "zip", {**images(1), "dataset.json": {}, "a/dataset.json": {}})


def test_folder_with_images_at_its_top_and_below(tmp_path):
    files = {"a.png": encode(pixels(0)), "x/b.png": encode(pixels(1))}
    with fails(r"images both at its top \('a\.png'\) and in subfolders \('x/b\.png'\)"):
        make(tmp_path, "folder", files)
    assert len(make(tmp_path, "folder", files, labelled=False)) == 2


def test_an_image_that_vanishes_after_the_start(tmp_path):
    dataset = make(tmp_path, "folder", images(2), memory_limit=0)
    (tmp_path / "set" / "img1.png").unlink()
    with fails(r"cannot read 'img1\.png' \(No such file"):
        dataset.read(torch.tensor([1]))


@pytest.mark.parametrize("wrong", [{"resolution": 2}, {"channels": 2}, {"filter": "nearest"}, {"limit": 0}, {"x": 1}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ValidationError):
        ZipConfig(path="a.zip", **wrong)


# --- the real thing ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "cifar10_test.zip").is_file(), reason="needs ../shared/data/cifar10_test.zip")
def test_cifar10():
    path = str(SHARED / "cifar10_test.zip")
    whole = Zip(ZipConfig(path=path))
    assert len(whole) == 10_000
    assert whole.spec.resolution == 32
    assert whole.spec.channels == 3
    assert whole.spec.classes[:3] == ("airplane", "automobile", "bird")
    assert torch.bincount(whole.labels()).tolist() == [1000] * 10
    assert whole.fingerprint() == Zip(ZipConfig(path=path)).fingerprint()
    first = Zip(ZipConfig(path=path, limit=100))
    batch = first.read(torch.arange(100))
    assert batch.labels.tolist() == [i % 10 for i in range(100)]  # classes are interleaved
    assert 100 < batch.images.float().mean() < 145
    small = Zip(ZipConfig(path=path, limit=100, resolution=16, filter="box")).read(torch.arange(100)).images
    averaged = torch.nn.functional.avg_pool2d(batch.images.float(), 2)
    assert (small.float() - averaged).abs().max() <= 1
