"""Batch norms after pruning: statistics that were estimated for other maps than they now get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.graphs.build import CapturedModule

__all__ = ["estimate_norms"]


def estimate_norms(network: CapturedModule, dense: CapturedModule, inputs: Sequence[tuple[Tensor, ...]]) -> bool:
    """Give every batch norm the running statistics with which its outputs have the moments of the dense network's.

    Front to back, each with the maps that it gets once the norms ahead of it are right. The statistics of the inputs
    themselves would do for inputs like those of the training; a few photographs have others, in the dense network too.
    Where much of a map is lost, its right spread is mostly error: the statistics stay as they were unless the outputs
    come nearer to the dense network's.

    Args:
        network: pruned; changed in place.
        dense: the same before pruning.
        inputs: of both.

    Returns:
        Whether anything was changed.
    """
    norms = {path: one for path, one in network.named_modules() if isinstance(one, nn.BatchNorm2d)}
    if not norms:
        return False
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.no_grad():
        error = _error(network, dense, inputs)
        walks = [(network.walk(given), dense.walk(given)) for given in inputs]
        while True:
            try:
                stops = [(next(own), next(other)) for own, other in walks]
            except StopIteration:  # all at once: the inputs go the same way
                break
            path = stops[0][0][0]
            if path in norms:
                whole = dense.get_submodule(path)
                assert isinstance(whole, nn.BatchNorm2d)
                _estimate(norms[path], whole, [own[1] for own, _ in stops], [other[1] for _, other in stops])
        better = _error(network, dense, inputs) < error
        if not better:
            for name, buffer in network.named_buffers():
                buffer.copy_(before[name])
    return better


def _error(network: CapturedModule, dense: CapturedModule, inputs: Sequence[tuple[Tensor, ...]]) -> float:
    """Return the squared error of all outputs, each over the square of the dense one."""
    total = 0.0
    for given in inputs:
        for own, whole in zip(network.compute(given), dense.compute(given), strict=True):
            total += float((own - whole).double().square().sum() / whole.double().square().sum().clamp_min(1e-30))
    return total


def _estimate(norm: nn.BatchNorm2d, dense: nn.BatchNorm2d, maps: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    if norm.running_mean is None or norm.running_var is None or dense.running_mean is None or dense.running_var is None:
        return
    (mean, variance), (mean_dense, variance_dense) = _moments(maps), _moments(wanted)
    # a channel that is the same everywhere, before or after, has no spread to go by
    ratio = torch.where((variance > 0) & (variance_dense > 0), variance / variance_dense, 1.0)
    norm.running_var.copy_(((dense.running_var.double() + dense.eps) * ratio - norm.eps).clamp_min(0))
    norm.running_mean.copy_(mean - (mean_dense - dense.running_mean.double()) * ratio.sqrt())


def _moments(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and variance of every channel, ``(C,)``, over all maps ``(N, C, ...)``."""
    flat = torch.cat([one.double().movedim(1, 0).flatten(1) for one in maps], 1)
    return flat.mean(1), flat.var(1, unbiased=False)
