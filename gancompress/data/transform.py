"""Between images as stored (uint8) and images as networks see them (float in [-1, 1])."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["random_flip", "to_float", "to_uint8"]


def to_float(images: Tensor, flip_generator: torch.Generator | None = None) -> Tensor:
    """Map 0..255 linearly to [-1, 1], and mirror each image with probability one half when a generator is given.

    Args:
        images: uint8, (B, C, H, W).
        flip_generator: source of the flips; ``None`` flips nothing.

    Returns:
        float32, (B, C, H, W), on the same device.
    """
    floats = images.to(torch.float32).div_(127.5).sub_(1.0)
    return floats if flip_generator is None else random_flip(floats, flip_generator)


def random_flip(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    The coins are drawn where the generator lives, so a CPU generator flips the same images whatever the device.
    """
    coins = torch.rand(images.shape[0], 1, 1, 1, generator=rng, device=rng.device) < 0.5
    return torch.where(coins.to(images.device), images.flip(-1), images)


def to_uint8(images: Tensor) -> Tensor:
    """Map [-1, 1] to 0..255: rounded to the nearest, clamped. Undoes :func:`to_float` exactly.

    Args:
        images: floating point, any shape.

    Returns:
        uint8, the same shape and device.
    """
    scaled = images.detach().to(torch.float32).add(1.0).mul_(127.5)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)
