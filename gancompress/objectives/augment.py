"""DiffAugment: the same differentiable augmentations on real and generated images, in front of the discriminator.

Source: Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, 2020, section 3.2 and appendix A.
Written from the paper; images are in [-1, 1], so the zeros that fill gaps are mid-grey.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from gancompress.seeds import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Policy", "adjust_color", "cut_out", "diffaugment", "translate"]

Policy: TypeAlias = Literal["color", "translation", "cutout"]

_SHIFT = 1 / 8  # of the width, each way
_HOLE = 1 / 2  # of the width


def diffaugment(images: Tensor, policies: Sequence[Policy], rng: torch.Generator) -> Tensor:
    """Augment a batch, each image with its own draws; gradients flow through to the images.

    Call it once on real and once on generated images (or once on both together): the policies are the same, the
    draws are not. Draws are made where the generator lives, so a CPU generator augments alike on every device.

    Args:
        images: float in [-1, 1], (B, C, H, W).
        policies: applied in the order given: ``color`` (brightness ±0.5, saturation ×0..2, contrast ×0.5..1.5),
            ``translation`` (by up to an eighth of the size), ``cutout`` (a square hole of half the size).
        rng: the only source of randomness.

    Returns:
        The same shape and type; values may leave [-1, 1].

    Raises:
        ValueError: an unknown policy.
    """
    count, _, height, width = images.shape

    def uniform() -> Tensor:
        return to_device(torch.rand(count, generator=rng, device=rng.device), images.device)

    def integer(low: int, high: int) -> Tensor:
        return to_device(torch.randint(low, high + 1, (count,), generator=rng, device=rng.device), images.device)

    for policy in policies:
        if policy == "color":
            images = adjust_color(images, uniform() - 0.5, uniform() * 2, uniform() + 0.5)
        elif policy == "translation":
            reach_y, reach_x = round(height * _SHIFT), round(width * _SHIFT)
            images = translate(images, integer(-reach_y, reach_y), integer(-reach_x, reach_x))
        elif policy == "cutout":
            tall, wide = round(height * _HOLE), round(width * _HOLE)
            # the centre is anywhere in the image, so a part of the hole may fall outside
            top, left = integer(0, height - 1) - tall // 2, integer(0, width - 1) - wide // 2
            images = cut_out(images, top, left, tall, wide)
        else:
            raise ValueError(f"unknown DiffAugment policy {policy!r}; known: color, translation, cutout")
    return images


def adjust_color(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Add brightness, then scale each pixel's distance to its grey, then the image's distance to its mean.

    Args:
        images: float, (B, C, H, W).
        brightness: (B,), added; 0 changes nothing.
        saturation: (B,), factor; 1 changes nothing, 0 makes grey.
        contrast: (B,), factor; 1 changes nothing, 0 makes flat.
    """
    brightness, saturation, contrast = (
        value.to(images.dtype)[:, None, None, None] for value in (brightness, saturation, contrast)
    )
    images = images + brightness
    images = torch.lerp(images.mean(1, keepdim=True), images, saturation)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)


def translate(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Shift each image by whole pixels; what comes in from outside is 0.

    Args:
        images: float, (B, C, H, W).
        down: int64, (B,), pixels; negative is up. At most the height.
        right: int64, (B,), pixels; negative is left. At most the width.
    """
    count, _, height, width = images.shape
    # one column and row of zeros at the end stand for everything outside
    padded = F.pad(images, (0, 1, 0, 1))
    rows = torch.arange(height, device=images.device) - down[:, None]
    columns = torch.arange(width, device=images.device) - right[:, None]
    rows = torch.where((rows >= 0) & (rows < height), rows, height)
    columns = torch.where((columns >= 0) & (columns < width), columns, width)
    batch = torch.arange(count, device=images.device)[:, None, None]
    # indexing with a slice between index tensors moves the channels last
    moved = padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return moved.contiguous() if images.is_contiguous() else moved


def cut_out(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Set a rectangle of each image to 0; parts of it outside the image are ignored.

    Args:
        images: float, (B, C, H, W).
        top: int64, (B,), first row of the rectangle; may be negative.
        left: int64, (B,), first column of the rectangle; may be negative.
        height: rows of the rectangle.
        width: columns of the rectangle.
    """
    rows = torch.arange(images.shape[2], device=images.device)[None, :] - top[:, None]
    columns = torch.arange(images.shape[3], device=images.device)[None, :] - left[:, None]
    hole = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return images.masked_fill(hole[:, None], 0.0)
