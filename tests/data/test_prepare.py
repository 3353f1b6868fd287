"""`gancompress data prepare`: what goes in, what comes out, and that it is the same every time."""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from gancompress.cli.main import app
from gancompress.data.prepare import BrokenImagesError, Prepared, prepare
from gancompress.data.zipped import Zip, ZipConfig
from gancompress.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour: Any = RED, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def halves() -> Image.Image:
    """Return a wide image: red in the middle half, blue on both sides."""
    image = plain(BLUE, (32, 16))
    image.paste(RED, (8, 0, 24, 16))
    return image


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def opened(path: Path) -> tuple[Zip, torch.Tensor]:
    """Read what was made as training will."""
    dataset = Zip(ZipConfig(path=str(path)))
    return dataset, dataset.read(torch.arange(len(dataset))).images


def made(tmp_path: Path, source: Path, **options: Any) -> tuple[Prepared, Zip, torch.Tensor]:
    result = prepare(source, tmp_path / "out.zip", **{"resolution": 8, **options})
    return result, *opened(tmp_path / "out.zip")


# --- what comes out -------------------------------------------------------------------------------------------------


def test_class_folders_become_labels(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"dog/1.png": encode(plain(BLUE)), "cat/2.png": encode(plain(RED, (40, 20)))})
    result, dataset, images = made(tmp_path, source)
    assert (result.images, result.classes, result.channels, result.broken) == (2, ("cat", "dog"), 3, ())
    assert dataset.spec.classes == ("cat", "dog")
    assert dataset.labels().tolist() == [0, 1]
    assert images[0, :, 4, 4].tolist() == list(RED)
    assert images[1, :, 4, 4].tolist() == list(BLUE)
    assert result.size == (tmp_path / "out.zip").stat().st_size


def test_a_flat_folder_has_no_labels_and_the_zip_says_so(tmp_path: Path) -> None:
    result, dataset, _ = made(tmp_path, write(tmp_path / "in", {"1.png": encode(plain())}))
    assert result.classes == dataset.spec.classes == ()
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert json.loads(archive.read("dataset.json")) == {"labels": None}
        assert archive.namelist() == ["00000/img00000000.png", "dataset.json"]


@pytest.mark.parametrize("around", ["", "photos/", "a/b/"])
def test_folders_in_a_zip_are_classes_whatever_is_around_them(tmp_path: Path, around: str) -> None:
    source = pack(tmp_path / "in.zip", {f"{around}{c}/1.png": encode(plain()) for c in "xy"})
    result, dataset, _ = made(tmp_path, source)
    assert result.classes == ("x", "y")
    assert dataset.labels().tolist() == [0, 1]


def test_labels_of_a_document_count_more_than_folders(tmp_path: Path) -> None:
    document = {"labels": [["00000/a.png", 1], ["00000/b.png", 0]], "classes": ["no", "yes"]}
    files = {
        "00000/a.png": encode(plain()),
        "00000/b.png": encode(plain()),
        "dataset.json": json.dumps(document).encode(),
    }
    _, dataset, _ = made(tmp_path, pack(tmp_path / "in.zip", files))
    assert (dataset.labels().tolist(), dataset.spec.classes) == ([1, 0], ("no", "yes"))
    files["dataset.json"] = b'{"labels": null}'
    (tmp_path / "out.zip").unlink()
    assert made(tmp_path, pack(tmp_path / "in.zip", files))[0].classes == ()


def test_a_prepared_zip_prepared_again_is_the_same(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"b/1.png": encode(plain(BLUE)), "a/2.png": encode(plain())})
    prepare(source, tmp_path / "once.zip", resolution=8)
    prepare(tmp_path / "once.zip", tmp_path / "twice.zip", resolution=8)
    assert (tmp_path / "once.zip").read_bytes() == (tmp_path / "twice.zip").read_bytes()


def test_labels_can_be_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"1.png": encode(plain()), "x/2.png": encode(plain())})
    with pytest.raises(DataError, match=r"both at its top .* or use --unlabelled"):
        prepare(source, tmp_path / "out.zip", resolution=8)
    assert made(tmp_path, source, labelled=False)[0].classes == ()


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = {f"{n % 3}/{n}.png": rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for n in range(50)}
    files = {name: encode(Image.fromarray(array)) for name, array in noise.items()}
    prepare(write(tmp_path / "one", files), tmp_path / "one.zip", resolution=8)
    # written in another order, at another time
    later = write(tmp_path / "two", dict(reversed(files.items())))
    for path in later.rglob("*.png"):
        os.utime(path, (1, 1))
    prepare(later, tmp_path / "two.zip", resolution=8)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize(("crop", "edge"), [("center", RED), ("none", BLUE)])
def test_oblong_images_are_cut_or_squeezed(tmp_path: Path, crop: str, edge: tuple[int, ...]) -> None:
    _, _, images = made(tmp_path, write(tmp_path / "in", {"1.png": encode(halves())}), crop=crop, resample="box")
    assert images.shape == (1, 3, 8, 8)
    assert images[0, :, 4, 0].tolist() == list(edge)
    assert images[0, :, 4, 4].tolist() == list(RED)


def test_shrinking_averages_over_all_pixels(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(0) % 2 * 255  # every filter that skips pixels would see black or white
    source = write(tmp_path / "in", {"1.png": encode(Image.fromarray(board.astype(np.uint8)))})
    for resample in ("lanczos", "box"):
        (tmp_path / "out.zip").unlink(missing_ok=True)
        assert (made(tmp_path, source, resample=resample)[2].float() - 127.5).abs().max() <= 2


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    image = plain(BLUE)
    image.paste(RED, (0, 0, 8, 16))  # the left half; turned by orientation 6 it is the upper half
    exif = Image.Exif()
    exif[0x0112] = 6
    source = write(tmp_path / "in", {"1.png": encode(image, exif=exif)})
    images = made(tmp_path, source)[2]
    assert images[0, :, 0, 4].tolist() == list(RED)
    assert images[0, :, 7, 4].tolist() == list(BLUE)


def test_kinds_of_pixels(tmp_path: Path) -> None:
    cmyk = plain((0, 255, 255, 0), mode="CMYK")
    clear = plain((255, 0, 0, 0), mode="RGBA")
    palette = plain().convert("P")
    deep = Image.fromarray(np.full((16, 16), 40000, dtype=np.uint16))
    files = {
        "1.jpg": encode(cmyk, "JPEG"),
        "2.png": encode(clear),
        "3.png": encode(palette),
        "4.png": encode(plain(100, mode="L")),
        "5.png": encode(deep),
    }
    images = made(tmp_path, write(tmp_path / "in", files))[2][:, :, 4, 4].int()
    assert (images[0] - torch.tensor(RED)).abs().max() <= 3
    assert images[1:].tolist() == [[255] * 3, list(RED), [100] * 3, [40000 >> 8] * 3]


def test_images_stay_grey_when_all_are(tmp_path: Path) -> None:
    grey = {"1.png": encode(plain(9, mode="L")), "2.png": encode(plain(8, mode="L")), "3.png": b"broken"}
    source = write(tmp_path / "in", grey)
    result, dataset, _ = made(tmp_path, source, skip_broken=True)
    assert result.channels == dataset.spec.channels == 1
    (tmp_path / "out.zip").unlink()
    assert made(tmp_path, source, channels=3, skip_broken=True)[1].spec.channels == 3
    write(source, {"4.png": encode(plain())})
    (tmp_path / "out.zip").unlink()
    assert made(tmp_path, source, skip_broken=True)[1].spec.channels == 3


def test_jpg_is_smaller_and_close(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((64, 64))
    source = write(tmp_path / "in", {"1.png": encode(smooth)})
    exact = made(tmp_path, source, resolution=64)
    (tmp_path / "out.zip").unlink()
    lossy = made(tmp_path, source, resolution=64, format="jpg")
    assert lossy[0].size < exact[0].size
    assert 0 < (lossy[2].float() - exact[2].float()).abs().max() < 12


def test_enlarged_images_are_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"1.png": encode(plain(size=(7, 30))), "2.png": encode(plain(size=(8, 8)))})
    assert made(tmp_path, source)[0].enlarged == 1


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_broken_images_are_all_named_and_nothing_is_written(tmp_path: Path) -> None:
    files = {"0.png": b"", "1.png": encode(plain()), "2.png": encode(plain())[:40], "3.png": b"text"}
    source = write(tmp_path / "in", files)
    with pytest.raises(BrokenImagesError, match=r"3 of 4 images cannot be read: .*--skip-broken") as caught:
        prepare(source, tmp_path / "out.zip", resolution=8)
    assert [name for line in caught.value.broken for name in files if f"'{name}'" in line] == [
        "0.png",
        "2.png",
        "3.png",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    result, dataset, _ = made(tmp_path, source, skip_broken=True)
    assert (result.images, len(dataset), result.broken) == (1, 1, caught.value.broken)


def test_nothing_but_broken_images_is_an_error_even_if_they_may_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(BrokenImagesError, match="1 of 1 images"):
        prepare(write(tmp_path / "in", {"1.png": b"x"}), tmp_path / "out.zip", resolution=8, skip_broken=True)


def test_what_is_there_is_never_replaced(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"1.png": encode(plain())})
    (tmp_path / "out.zip").write_text("mine")
    with pytest.raises(DataError, match=r"out\.zip: is there already and holds something else: choose another"):
        prepare(source, tmp_path / "out.zip", resolution=8)
    (tmp_path / "out.zip").unlink()

    def meanwhile(done: int, total: int) -> None:
        (tmp_path / "out.zip").write_text("theirs")

    with pytest.raises(DataError, match="is there already"):
        prepare(source, tmp_path / "out.zip", resolution=8, progress=meanwhile)
    assert (tmp_path / "out.zip").read_text() == "theirs"


def test_the_same_preparation_again_finds_its_zip_and_any_other_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {f"{n}.png": encode(plain((n, 0, 0))) for n in range(3)})
    target = tmp_path / "out.zip"
    first = prepare(source, target, resolution=8)
    before = target.read_bytes(), target.stat().st_mtime_ns
    assert prepare(source, target, resolution=8) == first
    write(source, {"3.png": encode(plain(BLUE))})
    with pytest.raises(DataError, match="holds something else"):
        prepare(source, target, resolution=8)
    (source / "3.png").unlink()
    with pytest.raises(DataError, match="holds something else"):
        prepare(source, target, resolution=4)
    (source / "2.png").unlink()
    with pytest.raises(DataError, match="holds something else"):
        prepare(source, target, resolution=8)
    assert (target.read_bytes(), target.stat().st_mtime_ns) == before


def test_what_a_killed_preparation_left_beside_the_zip_goes_with_the_next(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"1.png": encode(plain())})
    (tmp_path / ".tmp-out.zip-1-2").write_bytes(b"half a zip")
    prepare(source, tmp_path / "out.zip", resolution=8)
    assert sorted(os.listdir(tmp_path)) == ["in", "out.zip"]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    source = write(tmp_path / "in", {f"{n}.png": encode(plain()) for n in range(3)})
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "new" / "out.zip", resolution=8, progress=stop)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("nothing", None, "nothing: no such folder or zip"),
        ("empty", {}, "no images in it"),
        ("notes", {"readme.txt": b"x"}, "no images in it"),
    ],
)
def test_sources_that_hold_nothing(tmp_path: Path, name: str, files: dict[str, bytes] | None, message: str) -> None:
    if files is not None:
        (tmp_path / name).mkdir()
        write(tmp_path / name, files)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / name, tmp_path / "out.zip", resolution=8)


# --- the command ----------------------------------------------------------------------------------------------------


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["data", "prepare", *arguments])


def test_the_command_says_what_it_made_and_how_to_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in", {"cat/1.png": encode(plain(size=(4, 4))), "dog/1.png": encode(plain()), "dog/2.png": b"?"})
    result = call("in", "--out", "my out.zip", "--resolution", "8")
    assert result.exit_code == 2
    assert "cannot read image 'dog/2.png'" in result.stderr
    assert result.stderr.rstrip().endswith(
        "in: 1 of 3 images cannot be read: replace them, or leave them out with --skip-broken"
    )
    result = call("in", "--out", "my out.zip", "--resolution", "8", "--skip-broken")
    assert result.exit_code == 0
    assert "1 broken image was left out" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "1 of the images were smaller than 8 pixels and are enlarged"
    assert lines[1].startswith("my out.zip: 2 images, 8x8, RGB, 2 classes (cat, dog), ")
    assert lines[2] == "train on it: gancompress run RECIPE --set data.name=zip --set 'data.path=my out.zip'"
    assert call("in", "--out", "my out.zip", "--resolution", "8").exit_code == 2


def test_the_command_wants_sensible_numbers(tmp_path: Path) -> None:
    for wrong in (
        ("--resolution", "2"),
        ("--resolution", "8", "--channels", "2"),
        ("--resolution", "8", "--crop", "top"),
    ):
        result = call(str(tmp_path), "--out", str(tmp_path / "x.zip"), *wrong)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
        assert wrong[-2] in result.stderr
