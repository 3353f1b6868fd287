"""Images of two domains: pairs side by side, pairs in two folders, and domains without pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from gancompress.data.outlines import Outlines, OutlinesConfig
from gancompress.data.paired import Paired, PairedConfig
from gancompress.data.unpaired import Unpaired, UnpairedConfig
from gancompress.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(path: Path, *colours: tuple[int, int, int], size: int = 16) -> None:
    """Write squares of these colours beside each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = Image.new("RGB", (size * len(colours), size))
    for index, colour in enumerate(colours):
        whole.paste(colour, (index * size, 0, (index + 1) * size, size))
    whole.save(path)


def first(dataset: object) -> list[int]:
    pixels = dataset.read(torch.tensor([0])).images  # type: ignore[attr-defined]
    return [int(channel) for channel in pixels[0, :, 0, 0]]


def test_pictures_side_by_side_are_halved_in_either_direction(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        picture(tmp_path / name, RED, BLUE)
    forth = Paired(PairedConfig(path=str(tmp_path)))
    back = Paired(PairedConfig(path=str(tmp_path), direction="ba"))
    assert (first(forth.source), first(forth.target)) == ([255, 0, 0], [0, 0, 255])
    assert (first(back.source), first(back.target)) == ([0, 0, 255], [255, 0, 0])
    assert first(forth) == first(forth.target)
    assert (len(forth), forth.spec.resolution, forth.paired) == (2, 16, True)
    assert forth.fingerprint() != back.fingerprint()
    assert forth.held_out is forth


def test_two_folders_with_equal_names(tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / "inputs" / f"{index}.png", RED)
        picture(tmp_path / "outputs" / f"{index}.jpg", BLUE)
    found = Paired(PairedConfig(path=str(tmp_path / "inputs"), targets=str(tmp_path / "outputs")))
    found.prepare()
    assert (len(found), first(found.source)) == (3, [255, 0, 0])
    census = found.census()
    assert census.count == 6
    assert census.names[0] == "source/0.png"
    assert census.names[-1] == "target/2.jpg"


def test_folders_that_do_not_match_in_number_are_one_line(tmp_path: Path) -> None:
    for index in range(5):
        picture(tmp_path / "inputs" / f"{index}.png", RED)
    picture(tmp_path / "outputs" / "0.png", BLUE)
    picture(tmp_path / "outputs" / "other.png", BLUE)
    with pytest.raises(DataError) as error:
        Paired(PairedConfig(path=str(tmp_path / "inputs"), targets=str(tmp_path / "outputs")))
    assert "no pairs: 5 sources and 2 targets; 4 sources without a target ('1.png', '2.png', '3.png', …); 1 targets " \
        "without a source ('other.png')" in str(error.value)  # fmt: skip
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("resolution", [16, None])
def test_pairs_that_do_not_match_in_size_are_one_line(tmp_path: Path, resolution: int | None) -> None:
    for index in range(3):
        picture(tmp_path / "inputs" / f"{index}.png", RED)
        picture(tmp_path / "outputs" / f"{index}.png", BLUE, size=24 if index == 1 else 16)
    config = PairedConfig(path=str(tmp_path / "inputs"), targets=str(tmp_path / "outputs"), resolution=resolution)
    with pytest.raises(DataError, match=r"'1.png' and the one it belongs to are of two sizes: 16×16 and 24×24"):
        Paired(config).prepare()


def test_domains_of_two_sizes_are_one_line(tmp_path: Path) -> None:
    picture(tmp_path / "trainA" / "0.png", RED)
    picture(tmp_path / "trainB" / "0.png", BLUE, size=24)
    with pytest.raises(DataError, match=r"one domain are 16x16 pixels in RGB, those of the other 24x24"):
        Unpaired(UnpairedConfig(path=str(tmp_path)))


def test_a_picture_that_is_no_pair_is_one_line(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", RED)
    with pytest.raises(DataError, match=r"'0.png' is 16×16, not two squares side by side: for two folders"):
        Paired(PairedConfig(path=str(tmp_path)))


def test_an_empty_domain_is_one_line(tmp_path: Path) -> None:
    picture(tmp_path / "trainA" / "0.png", RED)
    (tmp_path / "trainB").mkdir()
    with pytest.raises(DataError, match=r"trainB: no images in it"):
        Unpaired(UnpairedConfig(path=str(tmp_path)))


def test_published_folders_with_what_is_held_out(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for domain, colour in (("A", RED), ("B", BLUE)):
            for index in range(count + (domain == "B")):
                picture(tmp_path / f"{split}{domain}" / f"{index}.png", colour)
    found = Unpaired(UnpairedConfig(path=str(tmp_path), direction="ba"))
    assert (len(found.source), len(found.target), len(found)) == (5, 4, 4)
    assert first(found) == [255, 0, 0]
    assert (len(found.held_out.source), len(found.held_out.target)) == (3, 2)
    assert found.held_out.held_out is found.held_out


def test_outlines_and_shapes_of_a_pair_lie_in_the_same_place() -> None:
    drawn = Outlines(OutlinesConfig(resolution=64, images=8, held_out=4))
    every = torch.arange(8)
    source, target = (side.read(every).images.float() for side in (drawn.source, drawn.target))
    lines = source.amin(1) > 200
    assert lines.flatten(1).any(1).all()
    coloured = (target.amax(1) - target.amin(1)) > 30
    # what is drawn in white is coloured in the target, but for pixels that a line shares with the ground
    assert float((lines & coloured).sum() / lines.sum()) > 0.9
    assert not torch.equal(drawn.held_out.target.read(every[:4]).images, drawn.target.read(every[:4]).images)


def test_outlines_without_pairs_show_other_shapes() -> None:
    pairs, apart = (Outlines(OutlinesConfig(images=6, paired=paired)) for paired in (True, False))
    every = torch.arange(6)
    assert torch.equal(pairs.source.read(every).images, apart.source.read(every).images)
    assert not torch.equal(pairs.target.read(every).images, apart.target.read(every).images)
    assert pairs.fingerprint() != apart.fingerprint()
