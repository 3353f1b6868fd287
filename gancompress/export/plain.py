"""Networks as they are used: no gradients, every parametrised weight written out; and inputs to try them on."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gancompress.seeds import generator as random_generator

if TYPE_CHECKING:
    from gancompress.backbones.base import Generator

__all__ = ["example_inputs", "plain_copy", "write_out"]

N = TypeVar("N", bound=nn.Module)


def plain_copy(network: N) -> N:
    """Return a copy in eval mode, on the CPU, whose spectrally normalised weights are plain ones with equal values."""
    return write_out(copy.deepcopy(network).cpu().eval().requires_grad_(False))


@torch.no_grad()
def write_out(network: N) -> N:
    """Replace every parametrised tensor of ``network``, which is in eval mode, by what it evaluates to."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            # A deep copy shares the class that holds the parametrised properties with its original, and torch
            # would remove them from there.
            own = {key: value for key, value in vars(type(module)).items() if key not in ("__dict__", "__weakref__")}
            module.__class__ = type(type(module).__name__, type(module).__bases__, own)
            parametrisations = module.parametrizations
            assert isinstance(parametrisations, nn.ModuleDict)
            for name in list(parametrisations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return network.requires_grad_(False)


def example_inputs(network: Generator, count: int, stream: str, *keys: int) -> dict[str, Tensor]:
    """Return ``z`` (count, latent_dim) drawn from ``stream`` and, when conditional, ``labels`` (count,) in turn."""
    z = torch.randn(count, network.latent_dim, generator=random_generator(0, stream, *keys))
    labels = torch.arange(count) % max(1, network.num_classes)
    return {"z": z, "labels": labels} if network.num_classes else {"z": z}
