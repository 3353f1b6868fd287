"""R1: the zero-centred gradient penalty on real images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.objectives.base import DiscriminatorFn, input_gradients

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["r1_penalty"]


def r1_penalty(discriminator: DiscriminatorFn, real: Tensor) -> Tensor:
    """Return E[‖∇D(x)‖²] over real images, exact and differentiable in the discriminator's weights.

    The caller weights it: the loss is ``gamma / 2`` times this, and ``every`` times more when it is added only every
    ``every``-th step (lazy regularisation; Karras et al., 2020, section 4.1).

    Source: Mescheder et al., Which Training Methods for GANs do actually Converge?, 2018, eq. 9.

    Args:
        discriminator: images to logits, labels closed over.
        real: float, (B, C, H, W).

    Returns:
        float32 scalar.
    """
    return input_gradients(discriminator, real).square().flatten(1).sum(1).mean()
