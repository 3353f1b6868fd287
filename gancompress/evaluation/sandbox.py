"""Run a network without leaving a trace: modes, buffers and random states are as before, whatever happened inside."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from gancompress.seeds import kept_global, seed_global

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["STANDING_BATCHES", "BatchNormMode", "draws", "forked_rng", "sampling", "undisturbed"]

BatchNormMode = Literal["running", "batch", "standing"]

#: batches over which standing statistics are averaged (BigGAN, Brock et al., 2019, appendix A, used 16 as well)
STANDING_BATCHES = 16


@contextlib.contextmanager
def forked_rng(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global random states inside and put them back on leaving: networks and metrics may draw from them."""
    with kept_global(device):
        seed_global(seed, "evaluation", "global", device=device)
        yield


@torch.no_grad()
def draws(network: nn.Module, *inputs: Tensor | None) -> bool:
    """Whether ``network``, on the CPU, draws random numbers of its own: two seeds give two answers to one input."""
    answers = []
    for seed in range(2):
        with forked_rng(seed):
            answers.append(network(*inputs))
    return not torch.equal(answers[0].nan_to_num(), answers[1].nan_to_num())


@contextlib.contextmanager
def undisturbed(network: nn.Module, *, seed: int = 0, device: torch.device | str = "cpu") -> Iterator[None]:
    """Put back train/eval modes, buffers, batch norm momentum and random states on leaving. No gradients inside."""
    modes = [(module, module.training) for module in network.modules()]
    momentum = [(module, module.momentum) for module in _batch_norms(network)]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in network.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    off = torch.autocast(torch.device(device).type, enabled=False)
    try:
        with forked_rng(seed, device), torch.no_grad(), off:
            yield
    finally:
        for module, training in modes:
            module.training = training
        for norm, value in momentum:
            norm.momentum = value
        with torch.no_grad():
            for owner, name, buffer, content in buffers:
                owner._buffers[name] = buffer
                buffer.copy_(content)


@contextlib.contextmanager
def sampling(
    network: nn.Module,
    *,
    batch_norm: BatchNormMode = "running",
    warm_up: Callable[[int], Tensor] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[None]:
    """Bring a generator into the mode that a protocol asks for, undisturbed.

    Args:
        network: the generator.
        batch_norm: ``running`` uses the running averages; ``batch`` each batch's own statistics; ``standing``
            averages fresh statistics over :data:`STANDING_BATCHES` batches first. Everything but batch norm is in
            eval mode in all three (dropout off, no power iteration of spectral norm).
        warm_up: makes the i-th batch of ``standing``; needed only there.
        seed: of the global random states inside.
        device: where the network is.
    """
    with undisturbed(network, seed=seed, device=device):
        network.eval()
        norms = _batch_norms(network)
        if batch_norm != "running":
            for norm in norms:
                norm.training = True
        if batch_norm == "standing" and norms:
            if warm_up is None:
                raise ValueError("standing statistics need batches to be averaged over")
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a cumulative average
            for index in range(STANDING_BATCHES):
                warm_up(index)
            for norm in norms:
                norm.training = False
        yield


def _batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
