"""Bytes of a network and of its optimizer: what is stored, and what a packed file needs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from torch import Tensor

from gancompress.backbones.base import prunable_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from torch.optim import Optimizer

__all__ = ["NetworkBytes", "network_bytes", "optimizer_bytes"]


@dataclasses.dataclass(frozen=True)
class NetworkBytes:
    """Sizes of one network.

    Attributes:
        dense: all parameters and buffers.
        packed: the same with each masked weight as a bit per element and the values of its kept weights, or dense
            where that is smaller.
        masks: the bits alone.
    """

    dense: int
    packed: int
    masks: int


def network_bytes(network: nn.Module, budgets: Mapping[str, int] | None = None) -> NetworkBytes:
    """Count the bytes of a network whose masks keep ``budgets`` weights per tensor (names as prunable weights)."""
    dense = sum(t.numel() * t.element_size() for t in [*network.parameters(), *network.buffers()])
    weights = prunable_weights(network)
    packed, masks = dense, 0
    for name, nonzeros in (budgets or {}).items():
        weight = weights[name].parameter
        whole, bits = weight.numel() * weight.element_size(), -(-weight.numel() // 8)
        if bits + nonzeros * weight.element_size() < whole:
            packed -= whole - bits - nonzeros * weight.element_size()
            masks += bits
    return NetworkBytes(dense, packed, masks)


def optimizer_bytes(optimizer: Optimizer) -> int:
    """Return the bytes of all tensors in the optimizer's state, as allocated."""
    tensors = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
