"""Consistency regularisation: the discriminator says of an image what it says of the image flipped and shifted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress.objectives.augment import translate
from gancompress.seeds import to_device

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["flipped_and_shifted", "inconsistency"]


def flipped_and_shifted(images: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    """Mirror each image with probability 1/2 and shift it by whole pixels; what comes in from outside is 0.

    Source: Zhang et al., Consistency Regularization for Generative Adversarial Networks, 2020, section 3.2. Draws are
    made where the generator lives, so a CPU generator moves images alike on every device.

    Args:
        images: float in [-1, 1], (B, C, H, W).
        shift: pixels at most, each way.
        rng: the only source of randomness.
    """
    count = len(images)
    flips = to_device(torch.rand(count, generator=rng, device=rng.device) < 0.5, images.device)
    down, right = (
        to_device(torch.randint(-shift, shift + 1, (count,), generator=rng, device=rng.device), images.device)
        for _ in range(2)
    )
    return translate(torch.where(flips[:, None, None, None], images.flip(3), images), down, right)


def inconsistency(logits: Tensor, moved: Tensor) -> Tensor:
    """Return E[(D(x) - D(T(x)))²], float32; gradients flow through both (Zhang et al., 2020, eq. 3).

    Args:
        logits: of images, (B,).
        moved: of the same images, moved, (B,).
    """
    return (logits.float() - moved.float()).square().mean()
