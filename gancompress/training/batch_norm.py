"""Batch norm over the global batch, so that a run means the same on one process and on several.

The statistics of a batch are averaged over all ranks, forward and backward; on one process nothing is touched.
``torch.nn.SyncBatchNorm`` does the same on GPUs only, and always: here it happens within a training step and nowhere
else, since whatever one rank does alone (evaluate, sample, measure) must not wait for the others.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gancompress.training.groups import Group

__all__ = ["global_statistics", "synchronise_batch_norm"]

#: the group whose ranks all run the step that is under way
_together: Group | None = None


@contextlib.contextmanager
def global_statistics(group: Group) -> Iterator[None]:
    """Inside, norms of :func:`synchronise_batch_norm` see the batches of all ranks. All ranks must do the same."""
    global _together
    before, _together = _together, group if group.world > 1 else None
    try:
        yield
    finally:
        _together = before


def synchronise_batch_norm(network: nn.Module) -> None:
    """Make every batch norm of ``network`` able to see all ranks; its state, names and copies stay as they are."""
    for module in network.modules():
        synced = _SYNCED.get(type(module))
        if synced is not None:
            module.__class__ = synced


class _Mean(torch.autograd.Function):
    """The mean over ranks, and of their gradients.

    The loss is the mean of all ranks' losses, and gradients of weights are averaged once more after the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.mean(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _mean(gradient, ctx.group), None


def _mean(x: Tensor, group: Group) -> Tensor:
    mean: Tensor = _Mean.apply(x, group)
    return mean


def _normalise(norm: nn.modules.batchnorm._BatchNorm, x: Tensor, group: Group) -> Tensor:
    """Normalise (B, C, ...) by the mean and variance of all ranks' batches, in float32 as torch does."""
    values = x.float()
    dims = [0, *range(2, x.dim())]
    shape = (1, -1, *(1,) * (x.dim() - 2))
    mean = _mean(values.mean(dims), group)
    centred = values - mean.view(shape)
    variance = _mean(centred.square().mean(dims), group)
    _remember(norm, mean.detach(), variance.detach(), values.numel() // values.shape[1] * group.world)
    out = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.weight is not None:
        out = out * norm.weight.view(shape) + norm.bias.view(shape)
    return out.to(x.dtype)


@torch.no_grad()
def _remember(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running averages, the variance unbiased, as ``nn.BatchNorm2d`` does."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / max(count - 1, 1)), share)


class _BatchNorm1d(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:
        if self.training and _together is not None:
            return _normalise(self, input, _together)
        return super().forward(input)


class _BatchNorm2d(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        if self.training and _together is not None:
            return _normalise(self, input, _together)
        return super().forward(input)


_SYNCED: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm1d: _BatchNorm1d, nn.BatchNorm2d: _BatchNorm2d}
