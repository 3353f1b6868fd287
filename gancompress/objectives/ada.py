"""The augmentations of ADA: flips, turns, shifts, scales, rotations, colours and holes, each with probability ``p``.

Source: Karras et al., Training Generative Adversarial Networks with Limited Data, 2020, section 2 and appendix B
(figures 4 to 6). Written from the paper. Images are resampled at twice their size between an orthonormal wavelet's
low-pass filter and its transpose, as there; an image that no geometric change was drawn for keeps its pixels.
Holes, and colours at half the probability, are what R3GAN trains with (Huang et al., The GAN is dead; long live the
GAN!, 2024).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from gancompress.seeds import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SYM6", "Pipe", "ada", "blitted", "colour_matrices", "cut_out", "resampled"]

#: groups of augmentations: flips, quarter turns and whole-pixel shifts; scales, rotations and shifts; colours; holes
Pipe: TypeAlias = Literal["blit", "geometry", "colour", "cutout"]

#: low-pass filter of the least asymmetric wavelet with six vanishing moments (Daubechies, 1992)
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
_TAPS = len(SYM6)
_CENTRE = sum(index * tap for index, tap in enumerate(SYM6)) / sum(SYM6)

_SHIFT = 0.125  # of the size: whole pixels at most, others as a standard deviation
_SCALE = 0.2 * math.log(2)
_HOLE = 0.5  # of the size
_BRIGHTNESS, _CONTRAST, _SATURATION = 0.2, 0.5 * math.log(2), math.log(2)


def ada(
    images: Tensor,
    p: Tensor,
    rng: torch.Generator,
    pipe: Sequence[Pipe] = ("blit", "geometry", "colour"),
    colours: float = 1.0,
) -> Tensor:
    """Augment a batch, each image with its own draws; gradients flow through to the images.

    Args:
        images: float in [-1, 1], (B, C, H, W), square; C is 1 or 3.
        p: probability of each augmentation, a scalar in [0, 1] on the device of ``images``.
        rng: the only source of randomness; draws are made where it lives.
        pipe: groups of augmentations, applied in the order of the paper.
        colours: share of ``p`` at which each change of colours is made.

    Returns:
        The same shape and type; values may leave [-1, 1].
    """
    count = images.shape[0]

    def drawn(make: Callable[..., Tensor], *size: int) -> Tensor:
        return to_device(make(count, *size, generator=rng, device=rng.device), images.device)

    def happens(probability: Tensor) -> Tensor:
        return drawn(torch.rand) < probability

    # every draw is made at every call, so that p changes which of them count and nothing else
    if "blit" in pipe:
        images = blitted(images, _blits(p, images.shape[-1], drawn, happens))
    if "geometry" in pipe:
        matrices = _geometry(p, images.shape[-1], drawn, happens)
        still = (matrices == torch.eye(3, device=images.device)).flatten(1).all(1)
        images = torch.where(still[:, None, None, None], images, resampled(images, matrices))
    if "colour" in pipe:
        images = _coloured(images, colour_matrices(p * colours, drawn, happens))
    if "cutout" in pipe:
        images = cut_out(images, drawn(torch.rand, 2), happens(p))
    return images


# ------------------------------------------------------------------------------------------------ geometry


_Drawn: TypeAlias = "Callable[..., Tensor]"
_Happens: TypeAlias = "Callable[[Tensor], Tensor]"


def _blits(p: Tensor, size: int, drawn: _Drawn, happens: _Happens) -> Tensor:
    """Return flips, quarter turns and shifts by whole pixels, (B, 3, 3): from where a pixel lies to where it goes."""
    flips, turns, shifts = drawn(torch.rand), drawn(torch.rand), drawn(torch.rand, 2)
    flip = torch.where((flips < 0.5) & happens(p), -1.0, 1.0)
    turn = torch.where(happens(p), (turns * 4).floor(), 0.0)
    by = torch.where(happens(p)[:, None], ((shifts * 2 - 1) * _SHIFT * size).round(), 0.0)
    return _shifting(by) @ _turning(turn * (math.pi / 2)).round() @ _scaling(flip, torch.ones_like(flip))


def _geometry(p: Tensor, size: int, drawn: _Drawn, happens: _Happens) -> Tensor:
    """Return scales, rotations and shifts, (B, 3, 3): from where a pixel lies, from the centre, to where it goes."""
    scale = torch.where(happens(p), torch.exp(drawn(torch.randn) * _SCALE), 1.0)
    stretch = torch.where(happens(p), torch.exp(drawn(torch.randn) * _SCALE), 1.0)
    # of two rotations one at least happens with probability p
    half = 1 - (1 - p).clamp_min(0).sqrt()
    first, second = ((drawn(torch.rand) * 2 - 1) * math.pi for _ in range(2))
    first, second = torch.where(happens(half), first, 0.0), torch.where(happens(half), second, 0.0)
    by = torch.where(happens(p)[:, None], drawn(torch.randn, 2) * (_SHIFT * size), 0.0)
    turned = _turning(second) @ _scaling(stretch, 1 / stretch) @ _turning(first)
    return _shifting(by) @ turned @ _scaling(scale, scale)


def _matrix(rows: Sequence[Sequence[Tensor | float]], like: Tensor) -> Tensor:
    cells = [cell if isinstance(cell, Tensor) else torch.full_like(like, cell) for row in rows for cell in row]
    return torch.stack(cells, -1).view(-1, len(rows), len(rows[0]))


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]], x)


def _turning(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return _matrix([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], angle)


def _shifting(by: Tensor) -> Tensor:
    return _matrix([[1, 0, by[:, 0]], [0, 1, by[:, 1]], [0, 0, 1]], by[:, 0])


def blitted(images: Tensor, matrices: Tensor) -> Tensor:
    """Move whole pixels; what comes in from outside is the image mirrored at its border.

    Args:
        images: float, (B, C, H, W), square.
        matrices: (B, 3, 3), of (x, y, 1) from the centre, in pixels, which bring pixels onto pixels.
    """
    count, _, size, _ = images.shape
    middle = (size - 1) / 2
    along = torch.arange(size, device=images.device, dtype=torch.float32) - middle
    sources = _mirrored(_sources(along, matrices) + middle, size).round().long().view(count, size, size, 2)
    batch = torch.arange(count, device=images.device)[:, None, None]
    return images[batch, :, sources[..., 1], sources[..., 0]].permute(0, 3, 1, 2).contiguous()


def _sources(along: Tensor, matrices: Tensor) -> Tensor:
    """Return from where every point of a square comes, (B, points, 2) as x and y from the centre."""
    y, x = torch.meshgrid(along, along, indexing="ij")
    targets = torch.stack((x, y, torch.ones_like(x)), -1).view(1, -1, 3)
    sources: Tensor = (targets @ torch.linalg.inv(matrices.float()).transpose(1, 2))[..., :2]
    return sources


def resampled(images: Tensor, matrices: Tensor) -> Tensor:
    """Move every point of images to anywhere; what comes in from outside is the image mirrored at its border.

    Args:
        images: float, (B, C, H, W), square.
        matrices: (B, 3, 3), of (x, y, 1) from the centre, in pixels.
    """
    count, channels, size, _ = images.shape
    # twice as many points, so that edges do not break when they are moved
    around = _TAPS // 2
    wide = _reflected(images, around)
    taps = torch.tensor(SYM6, dtype=images.dtype, device=images.device)
    fine = wide.reshape(count * channels, 1, *wide.shape[2:])
    fine = F.conv_transpose2d(fine, taps.view(1, 1, 1, -1), stride=(1, 2))
    fine = F.conv_transpose2d(fine, taps.view(1, 1, -1, 1), stride=(2, 1))
    fine = fine.view(count, channels, *fine.shape[2:])
    # where each fine point of the result comes from, in pixels of the image
    points = 2 * (size - 1) + _TAPS
    middle = (size - 1) / 2
    along = (torch.arange(points, device=images.device, dtype=torch.float32) - _CENTRE) / 2 - middle
    sources = _mirrored(_sources(along, matrices) + middle, size)
    # and in fine points; grid_sample takes -1 and 1 for the outer edges
    place = (sources + around) * 2 + _CENTRE
    grid = (2 * place + 1) / fine.shape[-1] - 1
    moved = F.grid_sample(
        fine, grid.view(count, points, points, 2).to(fine.dtype), mode="bilinear", padding_mode="zeros",
        align_corners=False,
    )  # fmt: skip
    # the transpose of what made the fine points
    moved = moved.view(count * channels, 1, points, points)
    moved = F.conv2d(moved, taps.view(1, 1, 1, -1), stride=(1, 2))
    moved = F.conv2d(moved, taps.view(1, 1, -1, 1), stride=(2, 1))
    return moved.view(images.shape)


def _reflected(images: Tensor, around: int) -> Tensor:
    """Mirror images at their border, the outermost pixels twice, as often as a small one needs it."""
    size = images.shape[-1]
    index = _mirrored(torch.arange(-around, size + around, device=images.device), size).long()
    return images[:, :, index][:, :, :, index]


def _mirrored(place: Tensor, size: int) -> Tensor:
    """Fold coordinates into an image whose pixels reach from -0.5 to ``size - 0.5``."""
    away = (place + 0.5).remainder(2 * size)
    return torch.where(away > size, 2 * size - away, away) - 0.5


# ------------------------------------------------------------------------------------------------ colours


def colour_matrices(p: Tensor, drawn: Callable[..., Tensor], happens: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the map of each image's colours, (B, 4, 4): of (red, green, blue, 1)."""
    # the last line of every map stays (0, 0, 0, 1)
    brightness = torch.where(happens(p), drawn(torch.randn) * _BRIGHTNESS, 0.0)
    contrast = torch.where(happens(p), torch.exp(drawn(torch.randn) * _CONTRAST), 1.0)
    flip = torch.where(happens(p) & (drawn(torch.rand) < 0.5), 1.0, 0.0)
    hue = torch.where(happens(p), (drawn(torch.rand) * 2 - 1) * math.pi, 0.0)
    saturation = torch.where(happens(p), torch.exp(drawn(torch.randn) * _SATURATION), 1.0)
    eye = torch.eye(4, device=brightness.device)
    shifted = eye.expand(len(brightness), 4, 4).clone()
    shifted[:, :3, 3] = brightness[:, None]
    scaled = torch.diag_embed(torch.stack((contrast, contrast, contrast, torch.ones_like(contrast)), 1))
    # the direction of grey
    grey = torch.tensor([1.0, 1.0, 1.0, 0.0], device=eye.device) / math.sqrt(3)
    onto = torch.outer(grey, grey)
    flipped = eye - 2 * onto * flip[:, None, None]
    turned = _around_grey(hue)
    last = torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0], device=eye.device))
    saturated = onto + last + (eye - last - onto) * saturation[:, None, None]
    matrices: Tensor = saturated @ turned @ flipped @ scaled @ shifted
    return matrices


def _around_grey(angle: Tensor) -> Tensor:
    """Rotations of colours around the direction of grey (Rodrigues)."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    third = 1 / math.sqrt(3)
    cross = torch.tensor([[0, -third, third], [third, 0, -third], [-third, third, 0]], device=angle.device)
    eye = torch.eye(3, device=angle.device)
    turned = cos * eye + sin * cross + (1 - cos) / 3
    return F.pad(turned, (0, 1, 0, 1)) + torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0], device=angle.device))


def _coloured(images: Tensor, matrices: Tensor) -> Tensor:
    matrices = matrices.to(images.dtype)
    if images.shape[1] == 3:
        flat = matrices[:, :3, :3] @ images.flatten(2) + matrices[:, :3, 3:]
        return flat.view(images.shape)
    # grey: the mean of what becomes of red, green and blue
    means = matrices[:, :3].mean(1)
    return images * means[:, :3].sum(1)[:, None, None, None] + means[:, 3][:, None, None, None]


# ------------------------------------------------------------------------------------------------ holes


def cut_out(images: Tensor, centres: Tensor, happens: Tensor) -> Tensor:
    """Set a square of half the size to 0, of which a part may lie outside.

    Args:
        images: float, (B, C, H, W), square.
        centres: (B, 2), x and y as shares of the size, in [0, 1].
        happens: bool, (B,): whose squares are cut.
    """
    size = images.shape[-1]
    middles = (torch.arange(size, device=images.device, dtype=centres.dtype) + 0.5) / size
    within = (middles - centres[:, :, None]).abs() < _HOLE / 2
    hole = within[:, 0, None, :] & within[:, 1, :, None] & happens[:, None, None]
    return images.masked_fill(hole[:, None], 0.0)
