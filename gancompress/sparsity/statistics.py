"""What a log and a report say about masks. Integers are counted exactly; shares are their quotients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["Churn", "churn", "dead_channels", "exploration_rate"]


class Churn(NamedTuple):
    """How much one topology update changed.

    Attributes:
        grown: weights kept now that were not before.
        dropped: weights kept before that are not now.
        kept: weights kept now.
    """

    grown: int
    dropped: int
    kept: int

    @property
    def rate(self) -> float:
        """Share of the kept weights that are new; 0 for an empty network."""
        return self.grown / self.kept if self.kept else 0.0


def churn(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> Churn:
    """Compare the masks before and after an update, over all tensors. A weight dropped and regrown did not change."""
    grown = sum(int((mask & ~old[name]).sum()) for name, mask in new.items())
    dropped = sum(int((old[name] & ~mask).sum()) for name, mask in new.items())
    return Churn(grown, dropped, sum(int(mask.sum()) for mask in new.values()))


def exploration_rate(ever_active: Mapping[str, Tensor]) -> float:
    """Return the share of weights that were kept at any time so far (R_s of ITOP: Liu et al., ICML 2021).

    Args:
        ever_active: bool tensors, the union of all masks of a network since its first.

    Returns:
        A share in [0, 1]; 0 for a network without weights.
    """
    total = sum(mask.numel() for mask in ever_active.values())
    return sum(int(mask.sum()) for mask in ever_active.values()) / total if total else 0.0


def dead_channels(mask: Tensor, dim: int = 0) -> int:
    """Count the channels without a single kept weight.

    Args:
        mask: bool tensor, shape (out, in, *kernel).
        dim: 0 counts output channels, 1 input channels (the other way round for transposed convolutions).
    """
    if mask.numel() == 0:
        return mask.shape[dim]
    return int((~mask.movedim(dim, 0).flatten(1).any(dim=1)).sum())
