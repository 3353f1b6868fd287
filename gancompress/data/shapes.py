"""Procedural coloured shapes: any number of images, sizes and classes, every class known exactly.

Used wherever the true answer must be known, in tests and for mode coverage, and for smoke runs of recipes whose images
are not at hand.
"""

from __future__ import annotations

import colorsys
import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gancompress.components.registry import DATASETS
from gancompress.data.base import DatasetConfig
from gancompress.data.memory import InMemoryDataset, Stored
from gancompress.errors import DataError
from gancompress.seeds import generator

__all__ = ["SHAPES", "Shapes", "ShapesConfig", "class_names", "colours", "ground", "silhouettes"]

SHAPES = ("disc", "square", "triangle", "diamond", "ring", "cross", "star", "bar")
_HUES = ("red", "amber", "lime", "green", "cyan", "blue", "violet", "magenta")
_SATURATION = 0.85
_GREY_LEVELS, _GREY_STEP = 3, 0.2  # brightnesses of one shape that differ clearly from each other and the ground
_JITTER = 0.1  # brightness varies less than that
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


def silhouettes(shapes: Tensor, centres: Tensor, radii: Tensor, angles: Tensor, resolution: int) -> Tensor:
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
        cover = silhouettes(labels % len(SHAPES), centres, radii, angles, size)
        paint = colours(self.config.classes, self.config.channels)[labels] * (1 - _JITTER * draws[:, 4, None])
        pixels = torch.lerp(ground(draws[:, 5:8], size)[:, None], paint[:, :, None, None], cover[:, None])
        return (pixels * 255).round().clamp(0, 255).to(torch.uint8)


def colours(classes: int, channels: int) -> Tensor:
    """Return the colour of every class in [0, 1], (classes, channels)."""
    if channels == 1:
        return torch.tensor([[1.0 - _GREY_STEP * (label // len(SHAPES))] for label in range(classes)])
    hues = _hue_count(classes)
    return torch.tensor(
        [colorsys.hsv_to_rgb(_shape_and_hue(label, hues)[1] / hues, _SATURATION, 1.0) for label in range(classes)]
    )


def ground(draws: Tensor, size: int) -> Tensor:
    """Return grey grounds, (B, size, size), from 0.06 to 0.34."""
    ramp = torch.linspace(-1, 1, size)
    angle = draws[:, 1] * 2 * math.pi
    slope = (
        torch.cos(angle)[:, None, None] * ramp[None, None, :] + torch.sin(angle)[:, None, None] * ramp[None, :, None]
    )
    return 0.2 + 0.06 * (2 * draws[:, 0, None, None] - 1) + 0.05 * draws[:, 2, None, None] * slope
