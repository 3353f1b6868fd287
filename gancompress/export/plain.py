"""Networks as they are used: no gradients, every computed weight written out; and inputs to try them on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from gancompress.seeds import generator as random_generator
from gancompress.sparsity.weights import duplicate, write_out

if TYPE_CHECKING:
    from gancompress.backbones.base import Generator

__all__ = ["example_inputs", "plain_copy"]

N = TypeVar("N", bound=nn.Module)


def plain_copy(network: N) -> N:
    """Return a copy in eval mode, on the CPU, whose normalised and masked weights are plain ones with equal values."""
    return write_out(duplicate(network).cpu().eval().requires_grad_(False))


def example_inputs(network: Generator, count: int, stream: str, *keys: int) -> dict[str, Tensor]:
    """Return inputs drawn from ``stream``, by name.

    ``z`` (count, latent_dim) and, when conditional, ``labels`` (count,) in turn; of a generator that eats images
    ``images`` (count, C, H, W), noise between -1 and 1.
    """
    rng = random_generator(0, stream, *keys)
    # a module that only looks like a generator of latents is one
    shape = getattr(network, "input_shape", None) or (network.latent_dim,)
    if getattr(network, "translates", False):
        return {"images": 2 * torch.rand(count, *shape, generator=rng) - 1}
    z = torch.randn(count, *shape, generator=rng)
    labels = torch.arange(count) % max(1, network.num_classes)
    return {"z": z, "labels": labels} if network.num_classes else {"z": z}
