"""Networks as they are used: no gradients, every parametrised weight written out."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["folded", "write_out"]

N = TypeVar("N", bound=nn.Module)


def folded(network: N) -> N:
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
