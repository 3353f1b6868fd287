"""Multiply-adds and FLOPs of one sample, dense and sparse, from real masks or budgets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.cost.profile import NetworkProfile

__all__ = ["FLOPS_PER_MAC", "SampleCost", "sample_cost"]

#: one multiplication and one addition; papers that write "FLOPs" often mean MACs
FLOPS_PER_MAC: Final = 2


@dataclasses.dataclass(frozen=True)
class SampleCost:
    """MACs of one forward pass of one sample.

    Attributes:
        dense_macs: all weights, as the architecture is published.
        macs: kept weights only.
        other_macs: biases and products without weights, part of neither of the above.
        norm_operations: scaling and shifting by normalisation, part of none of the above.
        executed_dense_macs: all weights, as this implementation computes them.
        executed_macs: kept weights, as this implementation would compute them with ideal sparse kernels.
    """

    dense_macs: int
    macs: int
    other_macs: int
    norm_operations: int
    executed_dense_macs: int
    executed_macs: int

    @property
    def ratio(self) -> float:
        """Sparse over dense MACs of the weights."""
        return self.macs / self.dense_macs

    def to_dict(self) -> dict[str, int | float]:
        """Return every figure, MACs and FLOPs, ready for JSON."""
        flops = {
            "dense_flops": FLOPS_PER_MAC * self.dense_macs,
            "flops": FLOPS_PER_MAC * self.macs,
            "flops_ratio": self.ratio,
        }
        return {**dataclasses.asdict(self), **flops}


def sample_cost(profile: NetworkProfile, budgets: Mapping[str, int] | None = None) -> SampleCost:
    """Cost one sample.

    Args:
        profile: the network's layers.
        budgets: kept weights per tensor; tensors that it does not name are dense.

    Raises:
        ValueError: ``budgets`` names a tensor that the network does not have, or keeps more than there are.
    """
    kept = budgets or {}
    sizes = profile.sizes
    for name, count in kept.items():
        if not 0 <= count <= sizes.get(name, -1):
            raise ValueError(f"{name} keeps {count} of {sizes.get(name, 'no')} prunable weights")
    return SampleCost(
        dense_macs=profile.weight_macs(),
        macs=profile.weight_macs(kept),
        other_macs=profile.other_macs(),
        norm_operations=profile.norm,
        executed_dense_macs=profile.weight_macs(counting="executed"),
        executed_macs=profile.weight_macs(kept, "executed"),
    )
