from __future__ import annotations

import colorsys
import math

import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits

from gancompress.data import Batch, Dataset, ImageSpec
from gancompress.data.digits import Digits, DigitsConfig
from gancompress.data.shapes import SHAPES, Shapes, ShapesConfig, class_names, silhouettes
from gancompress.errors import DataError


def everything(dataset: Dataset) -> Batch:
    return dataset.read(torch.arange(len(dataset)))


def test_digits_are_scikit_learns():
    digits = Digits(DigitsConfig(resolution=8))
    bunch = load_digits()
    batch = everything(digits)
    assert digits.spec == ImageSpec(channels=1, resolution=8, classes=tuple("0123456789"))
    assert len(digits) == 1797
    assert batch.images.shape == (1797, 1, 8, 8)
    assert batch.images.dtype == torch.uint8
    assert batch.labels.tolist() == bunch.target.tolist()
    # 16 grey levels become 0..255
    assert batch.images[:, 0].equal(torch.from_numpy(bunch.images * 255 / 16).round().to(torch.uint8))


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_enlarged_digits_stay_the_same_pictures(resolution):
    small = everything(Digits(DigitsConfig(resolution=8))).images[:200].float()
    large = everything(Digits(DigitsConfig(resolution=resolution))).images[:200].float()
    assert large.shape == (200, 1, resolution, resolution)
    averaged = torch.nn.functional.avg_pool2d(large, resolution // 8)
    assert (averaged - small).abs().mean() < 12  # of 255: clamping and rounding of the interpolation


def test_digits_refuse_other_sizes():
    with pytest.raises(ValidationError, match="resolution"):
        DigitsConfig(resolution=20)


def test_reading_keeps_the_order_asked_for():
    digits = Digits(DigitsConfig())
    batch, all_ = digits.read(torch.tensor([5, 0, 5])), everything(digits)
    assert batch.images.equal(all_.images[[5, 0, 5]])
    assert batch.labels.tolist() == [5, 0, 5]


def test_first_classes_differ_in_shape_and_colour_and_no_pair_repeats():
    names = class_names(8)
    assert names[:3] == ("red disc", "amber square", "lime triangle")
    assert {name.split()[1] for name in names} == set(SHAPES)
    assert len({name.split()[0] for name in names}) == 8
    for classes in (8, 10, 64, 65, 1000):
        assert len(set(class_names(classes))) == classes
    assert len(set(class_names(24, channels=1))) == 24


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("disc", math.pi * 0.9**2),
        ("square", 1.6**2),
        ("triangle", 2 * 1.7 / 2),
        ("diamond", 1.6 * 2.2 / 2),
        ("ring", math.pi * (1 - 0.56**2)),
        ("cross", 2 * 2 * 0.64 - 0.64**2),
        ("star", 10 * 1.1 * 0.45 * math.sin(math.pi / 5) / 2),
        ("bar", 2.2 * 0.7),
    ],
)
def test_every_silhouette_has_the_area_of_its_shape(shape, area):
    drawn = silhouettes(
        torch.tensor([SHAPES.index(shape)]), torch.tensor([[40.3, 39.8]]), torch.tensor([30.0]), torch.tensor([0.1]), 80
    )
    assert drawn.sum().item() == pytest.approx(area * 30**2, rel=0.01)
    assert (drawn[0, 39, 40] == 0) == (shape == "ring")


@pytest.mark.parametrize(("resolution", "classes"), [(16, 8), (32, 10), (48, 64), (32, 1000)])
def test_every_shape_has_the_colour_of_its_class(resolution, classes):
    shapes = Shapes(ShapesConfig(resolution=resolution, classes=classes, images=1100))
    batch, hues = everything(shapes), max(8, -(-classes // 8))
    assert shapes.spec == ImageSpec(3, resolution, class_names(classes))
    assert batch.images.shape == (1100, 3, resolution, resolution)
    assert batch.labels.equal(torch.arange(1100) % classes)
    for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
        pixels = image.flatten(1).double() / 255
        brightest = pixels[:, (pixels.amax(0) - pixels.amin(0)).argmax()]  # the ground is grey
        hue = colorsys.rgb_to_hsv(*brightest.tolist())[0] * hues
        off = (hue - (label % 8 + label // 8)) % hues
        assert min(off, hues - off) < 0.5


def test_grey_shapes_have_the_brightness_of_their_class():
    batch = everything(Shapes(ShapesConfig(resolution=32, classes=24, channels=1, images=240)))
    assert batch.images.shape == (240, 1, 32, 32)
    level = batch.images.flatten(1).amax(1).double() / 255
    wanted = 1 - 0.2 * (batch.labels // 8)
    assert ((level <= wanted + 0.01) & (level >= 0.9 * wanted - 0.01)).all()


def test_shapes_vary_and_are_a_function_of_the_seed():
    first = everything(Shapes(ShapesConfig(images=64)))
    assert everything(Shapes(ShapesConfig(images=64))).images.equal(first.images)
    assert not everything(Shapes(ShapesConfig(images=64, seed=1))).images.equal(first.images)
    assert len({image.numpy().tobytes() for image in first.images}) == 64


def test_shapes_edges_are_antialiased():
    image = everything(Shapes(ShapesConfig(images=1, resolution=64))).images[0].int()
    chroma = image.amax(0) - image.amin(0)
    assert ((chroma > 0.2 * chroma.max()) & (chroma < 0.8 * chroma.max())).sum() > 20


def test_shapes_without_labels():
    shapes = Shapes(ShapesConfig(images=16, labelled=False))
    assert shapes.spec.classes == ()
    assert everything(shapes).labels.tolist() == [0] * 16


def test_too_many_grey_classes():
    with pytest.raises(DataError, match=r"at most 24 classes, got 25: set data\.channels to 3"):
        Shapes(ShapesConfig(classes=25, channels=1))


def test_labels_by_default_come_from_reading():
    shapes = Shapes(ShapesConfig(images=1500, classes=7))
    assert Dataset.labels(shapes).equal(shapes.labels())


def test_fingerprints_tell_what_differs():
    sets = [
        Digits(DigitsConfig()),
        Digits(DigitsConfig(resolution=32)),
        Shapes(ShapesConfig(images=8)),
        Shapes(ShapesConfig(images=8, seed=1)),
        Shapes(ShapesConfig(images=9)),
        Shapes(ShapesConfig(images=8, labelled=False)),
    ]
    assert len({dataset.fingerprint() for dataset in sets}) == len(sets)
    assert Shapes(ShapesConfig(images=8)).fingerprint() == sets[2].fingerprint()
