"""Procedural coloured shapes: any number of images, sizes and classes, every class known exactly and recognisable.

Used wherever the true answer must be known: tests, mode coverage (:func:`recognise` says which class an image
shows), and smoke runs of recipes whose images are not at hand.
"""

from __future__ import annotations

import colorsys
import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gancompress.components.registry import DATASETS
from gancompress.data.base import DatasetConfig
from gancompress.data.memory import InMemoryDataset, Stored
from gancompress.errors import DataError
from gancompress.seeds import generator

__all__ = ["SHAPES", "Shapes", "ShapesConfig", "class_names", "recognise"]

SHAPES = ("disc", "square", "triangle", "diamond", "ring", "cross", "star", "bar")
_HUES = ("red", "amber", "lime", "green", "cyan", "blue", "violet", "magenta")
_SATURATION = 0.85
_GREY_LEVELS, _GREY_STEP = 3, 0.2  # brightnesses of one shape that differ clearly from each other and the ground
_JITTER = 0.1  # brightness varies less than that
_SHADE = 0.08  # a ground is at most that much brighter on one side than in its middle
_TEMPLATE = 24  # pixels of the canonical silhouettes that `recognise` compares
_DRAWING_VERSION = 1  # part of the fingerprint: raise it when the drawing changes


class ShapesConfig(DatasetConfig):
    """Settings of the coloured shapes."""

    resolution: int = Field(32, ge=12, le=512, description="height and width in pixels")
    images: int = Field(
        4096, ge=1, description="number of images; classes are interleaved, so all are equally frequent"
    )
    classes: int = Field(
        8, ge=1, le=1024, description="number of classes, each a shape of a colour; the first 8 differ in both"
    )
    channels: Literal[1, 3] = Field(
        3, description="3: RGB; 1: grey, where a class is a shape of a brightness (at most 24 classes)"
    )
    labelled: bool = Field(True, description="false: the images come without their classes")
    seed: int = Field(0, ge=0, description="seed of positions, sizes, angles and backgrounds")


def _hue_count(classes: int) -> int:
    return max(len(_HUES), math.ceil(classes / len(SHAPES)))


def _shape_and_hue(label: int, hues: int) -> tuple[int, int]:
    """Class ``k`` is shape ``k mod 8``; its colour walks round the hue circle so that no pair comes twice."""
    shape, turn = label % len(SHAPES), label // len(SHAPES)
    return shape, (shape + turn) % hues


def class_names(classes: int, channels: int = 3) -> tuple[str, ...]:
    """Return the names of the classes: ``red disc``, ``amber square``, …; in grey ``disc``, ``square``, …."""
    hues = _hue_count(classes)
    names = []
    for label in range(classes):
        shape, hue = _shape_and_hue(label, hues)
        if channels == 1:
            names.append(SHAPES[shape] if classes <= len(SHAPES) else f"{SHAPES[shape]} {label // len(SHAPES) + 1}")
        else:
            names.append(f"{_HUES[hue] if hues == len(_HUES) else f'hue {hue + 1}'} {SHAPES[shape]}")
    return tuple(names)


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corners (x right, y down) of a shape about the origin, of radius about 1."""
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if shape == "triangle":
        return [(0.0, -0.95), (1.0, 0.75), (-1.0, 0.75)]
    if shape == "diamond":
        return [(0.0, -1.1), (0.8, 0.0), (0.0, 1.1), (-0.8, 0.0)]
    if shape == "cross":
        arm = 0.32
        quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
        return [_rotate(corner, turn * math.pi / 2) for turn in range(4) for corner in quarter]
    if shape == "star":
        return [_rotate((0.0, -1.1 if i % 2 == 0 else -0.45), i * math.pi / 5) for i in range(10)]
    return [(-1.1, -0.35), (1.1, -0.35), (1.1, 0.35), (-1.1, 0.35)]  # bar


def _rotate(point: tuple[float, float], angle: float) -> tuple[float, float]:
    sin, cos = math.sin(angle), math.cos(angle)
    return point[0] * cos - point[1] * sin, point[0] * sin + point[1] * cos


def _signed_distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Distance of points to the outline of a unit shape, negative inside."""
    if shape == "disc":
        return torch.hypot(x, y) - 0.9
    if shape == "ring":
        return (torch.hypot(x, y) - 0.78).abs() - 0.22
    corners = _polygon(shape)
    nearest = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        dx, dy = bx - ax, by - ay
        along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
        nearest = torch.minimum(nearest, torch.hypot(x - ax - along * dx, y - ay - along * dy))
        if dy != 0:  # a ray to the right crosses this edge: even-odd rule
            crosses = ((ay > y) != (by > y)) & (x < dx * (y - ay) / dy + ax)
            inside ^= crosses
    return torch.where(inside, -nearest, nearest)


def _silhouettes(shapes: Tensor, centres: Tensor, radii: Tensor, angles: Tensor, resolution: int) -> Tensor:
    """Draw antialiased silhouettes.

    Args:
        shapes: int64, (B,), index into :data:`SHAPES`.
        centres: (B, 2), x and y of the centres in pixels.
        radii: (B,), pixels.
        angles: (B,), radians.
        resolution: height and width.

    Returns:
        (B, resolution, resolution), coverage in [0, 1].
    """
    pixels = torch.arange(resolution, dtype=torch.float32) + 0.5
    dx = (pixels[None, None, :] - centres[:, 0, None, None]) / radii[:, None, None]
    dy = (pixels[None, :, None] - centres[:, 1, None, None]) / radii[:, None, None]
    cos, sin = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    x, y = dx * cos + dy * sin, dy * cos - dx * sin
    distance = torch.empty_like(x)
    for index in sorted(set(shapes.tolist())):
        chosen = shapes == index
        distance[chosen] = _signed_distance(SHAPES[index], x[chosen], y[chosen])
    return (0.5 - distance * radii[:, None, None]).clamp(0, 1)


@DATASETS.register("shapes")
class Shapes(InMemoryDataset[ShapesConfig]):
    """One shape per image, bright and coloured, on a dark grey ground that shades from one side to the other.

    Position, size (0.21 to 0.33 of the width), angle (±10°), brightness and ground vary. Image ``i`` shows class
    ``i mod classes``. The ground is exactly grey, so the colour of a shape can be read off any covered pixel.
    """

    Config = ShapesConfig

    def load(self) -> Stored:
        """Draw all images."""
        config = self.config
        if config.channels == 1 and config.classes > _GREY_LEVELS * len(SHAPES):
            limit = _GREY_LEVELS * len(SHAPES)
            raise DataError(f"grey shapes have at most {limit} classes, got {config.classes}: set data.channels to 3")
        labels = torch.arange(config.images) % config.classes
        draws = torch.rand(config.images, 8, generator=generator(config.seed, "shapes"))
        images = torch.empty(config.images, config.channels, config.resolution, config.resolution, dtype=torch.uint8)
        for first in range(0, config.images, 512):
            rows = slice(first, first + 512)
            images[rows] = self._draw(labels[rows], draws[rows])
        if not config.labelled:
            return Stored(images, torch.zeros_like(labels), ())
        return Stored(images, labels, class_names(config.classes, config.channels))

    def identity(self) -> tuple[Any, ...]:
        """Return the settings and the version of the drawing."""
        return _DRAWING_VERSION, self.config.model_dump()

    def _draw(self, labels: Tensor, draws: Tensor) -> Tensor:
        size = self.config.resolution
        radii = size * (0.21 + 0.12 * draws[:, 0])
        margin = 1.1 * radii + 1
        centres = margin[:, None] + draws[:, 1:3] * (size - 2 * margin)[:, None]
        angles = (draws[:, 3] - 0.5) * math.radians(20)
        cover = _silhouettes(labels % len(SHAPES), centres, radii, angles, size)
        colours = _colours(self.config.classes, self.config.channels)[labels] * (1 - _JITTER * draws[:, 4, None])
        ground = _ground(draws[:, 5:8], size)
        pixels = torch.lerp(ground[:, None], colours[:, :, None, None], cover[:, None])
        return (pixels * 255).round().clamp(0, 255).to(torch.uint8)


def _colours(classes: int, channels: int) -> Tensor:
    """Return the colour of every class in [0, 1], (classes, channels)."""
    if channels == 1:
        return torch.tensor([[1.0 - _GREY_STEP * (label // len(SHAPES))] for label in range(classes)])
    hues = _hue_count(classes)
    return torch.tensor(
        [colorsys.hsv_to_rgb(_shape_and_hue(label, hues)[1] / hues, _SATURATION, 1.0) for label in range(classes)]
    )


def _ground(draws: Tensor, size: int) -> Tensor:
    """Return grey grounds, (B, size, size), from 0.06 to 0.34."""
    ramp = torch.linspace(-1, 1, size)
    angle = draws[:, 1] * 2 * math.pi
    slope = (
        torch.cos(angle)[:, None, None] * ramp[None, None, :] + torch.sin(angle)[:, None, None] * ramp[None, :, None]
    )
    return 0.2 + 0.06 * (2 * draws[:, 0, None, None] - 1) + 0.05 * draws[:, 2, None, None] * slope


def recognise(images: Tensor, classes: int, tolerance: float = 0.08) -> Tensor:
    """Say which class each image shows, by comparing its silhouette and colour with every shape and colour.

    Right on every image of :class:`Shapes` with the same number of classes, from 16 pixels up. Meant for generated
    images, where it measures how many modes a generator covers and how many of its images are of no class at all.

    Args:
        images: uint8, (B, C, H, W), 1 or 3 channels.
        classes: number of classes of the dataset.
        tolerance: mean absolute difference between silhouettes above which an image shows no shape.

    Returns:
        int64, (B,): the class, or -1 for an image that shows none.
    """
    pixels = images.to(torch.float32).cpu() / 255
    channels, size = images.shape[1], images.shape[-1]
    # one angle is not enough: a square turned by ten degrees is closer to a disc than to an upright square
    angles = torch.tensor([-10.0, -5.0, 0.0, 5.0, 10.0]).deg2rad()
    shapes = torch.arange(len(SHAPES)).repeat_interleave(len(angles))
    count = len(shapes)
    drawn = _silhouettes(
        shapes,
        torch.full((count, 2), size / 2),
        torch.full((count,), 0.27 * size),
        angles.repeat(len(SHAPES)),
        size,
    )
    cover, strength = _coverage(pixels)
    difference = torch.cdist(_canonical(cover), _canonical(drawn), p=1) / _TEMPLATE**2
    nearest = difference.argmin(dim=1)
    shape = shapes[nearest]
    solid = torch.where(cover > 0.9, strength, 0.0)
    colour = (pixels * solid[:, None]).sum((2, 3)) / solid.sum((1, 2)).clamp_min(1e-6)[:, None]
    # only classes of the shape seen compete for the colour
    expected = _colours(classes, channels) * (1 - _JITTER / 2)
    rivals = torch.cdist(_hue_part(colour), _hue_part(expected))
    rivals[torch.arange(classes)[None, :] % len(SHAPES) != shape[:, None]] = math.inf
    distance, label = rivals.min(dim=1)
    near = 0.5 * (_GREY_STEP if channels == 1 else 2 * math.pi / _hue_count(classes))
    shown = (difference.gather(1, nearest[:, None])[:, 0] <= tolerance) & (distance <= near)
    return torch.where(shown, label, -1)


def _coverage(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return silhouettes in [0, 1] and what they were read from: chroma, or brightness above the ground."""
    if pixels.shape[1] == 1:
        ground = pixels[:, 0].flatten(1).median(dim=1).values + _SHADE  # shapes cover less than half of an image
        strength = (pixels[:, 0] - ground[:, None, None]).clamp_min(0)
    else:
        strength = pixels.amax(1) - pixels.amin(1)
    return strength / strength.amax((1, 2), keepdim=True).clamp_min(0.05), strength


def _canonical(cover: Tensor) -> Tensor:
    """Move silhouettes to their centre of mass and scale them to one area; (B, size, size) -> (B, T * T)."""
    size = cover.shape[-1]
    ramp = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    area = cover.sum((1, 2)).clamp_min(1e-6)
    x = (cover.sum(1) * ramp).sum(1) / area
    y = (cover.sum(2) * ramp).sum(1) / area
    scale = 1.2 * area.sqrt() * 2 / size
    theta = torch.zeros(len(cover), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, 0, 2], theta[:, 1, 2] = scale, scale, x, y
    grid = F.affine_grid(theta, [len(cover), 1, _TEMPLATE, _TEMPLATE], align_corners=False)
    return F.grid_sample(cover[:, None], grid, mode="bilinear", align_corners=False).flatten(1)


def _hue_part(colours: Tensor) -> Tensor:
    """Return colours without brightness and saturation, points on the hue circle; of grey the brightness is left."""
    if colours.shape[1] == 1:
        return colours
    red, green, blue = colours.unbind(1)
    plane = torch.stack([red - (green + blue) / 2, (green - blue) * (math.sqrt(3) / 2)], dim=1)
    return F.normalize(plane, dim=1)
