"""Styles of an exported generator drawn to their average: in Python, and by ``gancompress sample FILE``."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest
import torch
from export_toys import CLASSES, make, mask
from PIL import Image
from typer.testing import CliRunner

import gancompress
from gancompress.cli.main import app
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError, ExportError, RunError
from gancompress.export.packed import export_packed, load_packed

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.backbones.stylegan2 import StyleGAN2Generator

STYLED = {"name": "stylegan2", "channels": 6, "style_dim": 8, "latent_dim": 8, "mapping_layers": 2}
PLAIN = {"name": "dcgan", "channels": 8, "latent_dim": 6}


def write(folder: Path, model: dict[str, object], image: ImageSpec) -> Path:
    torch.manual_seed(0)
    generator = make(**{**model, "image": image})
    if model is STYLED:
        generator.average.normal_()
        with torch.no_grad():  # so that styles tell images apart
            for name, parameter in generator.named_parameters():
                if name.startswith("mapping") and "weight" in name:
                    parameter.normal_(std=200)
    file = folder / "generator.safetensors"
    export_packed(generator, file, model=model, masks=mask(generator))
    return file


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("styled"), STYLED, ImageSpec(3, 16))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("plain"), PLAIN, ImageSpec(3, 16))


def test_one_changes_no_bit_and_zero_makes_one_image(styled: Path) -> None:
    g = gancompress.load(styled)
    before = g(5, seed=2)
    assert torch.equal(g(5, seed=2, truncation=1), before)
    assert torch.equal(g(5, seed=2, truncation=1.0), gancompress.load(styled)(5, seed=2))
    average = g(5, seed=2, truncation=0)
    assert all(torch.equal(image, average[0]) for image in average)
    torch.testing.assert_close(g(1, seed=7, truncation=0)[0], average[0], rtol=0, atol=1e-5)
    assert torch.equal(g(5, seed=2), before), "what was asked for once does not stay"
    assert float((before[0] - before[1]).abs().max()) > 0.1


@pytest.mark.parametrize("psi", [0.3, 0.7, 1.5])
def test_it_is_the_truncation_of_the_network(styled: Path, psi: float) -> None:
    g = gancompress.load(styled)
    eager: StyleGAN2Generator = load_packed(styled).generator().eval()  # type: ignore[assignment]
    z = g.latents(4, seed=1)
    with torch.no_grad():
        styles = eager.average + psi * (eager.mapping(z) - eager.average)
        wanted = eager.synthesise(styles[:, None].expand(-1, eager.layers, -1))
    torch.testing.assert_close(g(z=z, truncation=psi), wanted, rtol=0, atol=1e-5)


def test_a_generator_without_an_average_says_so_in_one_line(plain: Path) -> None:
    g = gancompress.load(plain)
    with pytest.raises(BackboneError, match=r"generator\.safetensors: truncation: .* has no average of styles") as said:
        g(2, truncation=0.7)
    assert "\n" not in str(said.value)
    assert torch.equal(g(2, truncation=1), g(2))


@pytest.mark.parametrize("psi", [-0.1, 2.5, float("nan"), True, "0.7", None])
def test_what_is_no_truncation_is_refused(styled: Path, psi: object) -> None:
    with pytest.raises(ExportError, match="truncation is a number from 0 to 2"):
        gancompress.load(styled)(2, truncation=psi)


def test_sample_takes_a_file(styled: Path, tmp_path: Path) -> None:
    grid, images = tmp_path / "grid.png", tmp_path / "images.zip"
    done = CliRunner().invoke(app, ["sample", str(styled), "--truncation", "0", "--count", "20", "--out", str(grid)])
    assert done.exit_code == 0, done.output
    assert grid.is_file()
    assert gancompress.sample(styled, images, count=3, truncation=0) == images
    with zipfile.ZipFile(images) as held:
        made = {held.read(name) for name in held.namelist() if name.endswith(".png")}
        assert len([name for name in held.namelist() if name.endswith(".png")]) == 3
    assert len(made) == 1, "one image for all latents"
    gancompress.sample(styled, tmp_path / "other.zip", count=3)
    with zipfile.ZipFile(tmp_path / "other.zip") as held:
        assert len({held.read(name) for name in held.namelist() if name.endswith(".png")}) == 3


def test_sample_of_a_file_refuses_what_it_cannot_do(plain: Path, styled: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    done = CliRunner().invoke(app, ["sample", str(plain), "--truncation", "0.7", "--out", str(out)])
    assert done.exit_code == 2
    assert "has no average of styles" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for more, match in (
        ({"step": "best"}, "leave step out"),
        ({"label": 1}, "there is no class 1; known: none"),
        ({"inputs": tmp_path}, "leave inputs out"),
    ):
        with pytest.raises(RunError, match=match):
            gancompress.sample(styled, out, **more)
    assert not out.exists()


def test_one_class_of_a_file(tmp_path: Path) -> None:
    file = write(tmp_path, {**PLAIN, "conditional": True}, ImageSpec(3, 16, CLASSES))
    folder = gancompress.sample(file, tmp_path / "one", count=4, label=1)
    assert len(list(folder.rglob("*.png"))) == 4


def test_a_file_that_makes_images_of_images_is_sampled_from_a_folder(tmp_path: Path) -> None:
    model = {"name": "unet", "channels": 2, "norm": "instance"}
    backbone = BACKBONES.get("unet")
    generator = backbone(backbone.Config(channels=2, norm="instance"), ImageSpec(3, 32)).generator().eval()
    file = tmp_path / "generator.safetensors"
    export_packed(generator, file, model=model, masks=mask(generator))
    given = tmp_path / "given"
    given.mkdir()
    for index in range(2):
        Image.new("RGB", (32, 32), (40 + 90 * index, 9, 200)).save(given / f"{index}.png")
    made = gancompress.sample(file, tmp_path / "made", inputs=given)
    assert len(list(made.rglob("*.png"))) == 2
    assert gancompress.sample(file, tmp_path / "grid.png", inputs=given).is_file()
    with pytest.raises(RunError, match=r"generator\.safetensors: makes images of images: give a folder"):
        gancompress.sample(file, tmp_path / "none.png")
    with pytest.raises(BackboneError, match="has no average of styles"):
        gancompress.sample(file, tmp_path / "none.png", inputs=given, truncation=0.5)
    assert not (tmp_path / "none.png").exists()
