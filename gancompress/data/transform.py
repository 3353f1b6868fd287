"""Between images as stored (uint8) and images as networks see them (float in [-1, 1])."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mirror", "to_float", "to_uint8"]


def to_float(images: Tensor) -> Tensor:
    """Map 0..255 linearly to [-1, 1].

    Args:
        images: uint8, (B, C, H, W).

    Returns:
        float32, (B, C, H, W), on the same device.
    """
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def mirror(images: Tensor, where: Tensor) -> Tensor:
    """Mirror the images left to right at which ``where``, bool (B,), is true."""
    return torch.where(where.view(-1, 1, 1, 1).to(images.device), images.flip(-1), images)


def to_uint8(images: Tensor) -> Tensor:
    """Map [-1, 1] to 0..255: rounded to the nearest, clamped. Undoes :func:`to_float` exactly.

    Args:
        images: floating point, any shape.

    Returns:
        uint8, the same shape and device.
    """
    scaled = images.detach().to(torch.float32).add(1.0).mul_(127.5)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)
