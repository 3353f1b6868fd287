"""Sparse networks from scratch: drop by magnitude, let the momentum say in which layers and where to grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gancompress.errors import RecipeError
from gancompress.methods import Method, MethodConfig, Plan, SparseState
from gancompress.sparsity.rounding import ceil_share
from gancompress.sparsity.schedules import Cosine, Schedule, is_due

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from gancompress.methods import Budget, NetView, Role

__all__ = ["SNFS", "SNFSConfig", "share_out"]


class SNFSConfig(MethodConfig):
    """Settings of sparse momentum. The defaults are those of the published code, where it has them."""

    every: int = Field(default=500, ge=1, description="training steps between two updates; the paper: an epoch")
    drop_fraction: Schedule = Field(
        default=Cosine(start=0.5, end=0.005), description="share of the kept weights of every layer that is replaced"
    )
    explore: Literal["generator", "discriminator", "both"] = Field(
        default="both", description="networks whose masks are updated"
    )
    stop: float | None = Field(
        default=None, gt=0, le=1, description="share of training from which masks are fixed; null: never"
    )


class SNFS(Method[SNFSConfig]):
    """Sparse momentum (Dettmers and Zettlemoyer, 2019, section 3 and algorithm 1).

    Every layer drops the same share of its weights, the smallest ones. What was dropped grows again where the momentum
    is largest, and each layer gets as many as the mean momentum of its weights is of that of all layers: layers whose
    weights still want to move grow, the others shrink. What a full layer cannot take goes to the others. The output
    layer is updated by itself.
    """

    Config = SNFSConfig

    @property
    def needs_dense_moments(self) -> bool:
        """Masked weights are ranked by their momentum, so the recipe must keep it."""
        return True

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Draw random masks; the paper has the same density in every layer (``allocation: uniform``)."""
        return SparseState(net.random(budget.counts, rng), dict(budget.counts))

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Ask for an update on every due step; dense gradients are in the momentum already."""
        if self.config.explore not in (role, "both"):
            return Plan.NOTHING
        due = is_due(step, total_steps, self.config.every, stop=self.config.stop)
        return Plan.UPDATE if due else Plan.NOTHING

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Drop in every layer, then share the growth out between all layers but the output."""
        if not state.masks.keys() <= net.momentum.keys():
            raise RecipeError(
                "snfs grows by momentum: use an optimizer that has some, such as adam or sgd with momentum"
            )
        stop = 1.0 if self.config.stop is None else self.config.stop
        fraction = self.config.drop_fraction.at(net.step / max(stop * net.total_steps, 1))
        masks = dict(state.masks)
        for group in net.exchangeable(state, net.protected):
            masks |= self._replace(group, fraction, state, net)
        return state.replace(masks=masks, budgets={name: int(mask.sum()) for name, mask in masks.items()})

    def _replace(self, group: Sequence[str], fraction: float, state: SparseState, net: NetView) -> dict[str, Tensor]:
        # counted in units of the recipe's pattern, which have one size within a group
        size = net.budget.step(group[0])
        momentum = {name: net.momentum[name].abs() for name in group}
        kept = {name: state.budgets[name] // size for name in group}
        # the published code may empty a layer; here one unit always stays
        dropped = {name: max(0, min(ceil_share(fraction, kept[name]), kept[name] - 1)) for name in group}
        survivors = net.top(
            {name: net.weights[name].abs() for name in group},
            {name: (kept[name] - dropped[name]) * size for name in group},
            candidates=state.masks,
        )
        means = {
            name: float(momentum[name][state.masks[name]].double().mean()) if kept[name] else 0.0 for name in group
        }
        room = {name: net.budget.most(name) // size - kept[name] + dropped[name] for name in group}
        grown = share_out(sum(dropped.values()), means, room)
        masks: dict[str, Tensor] = {}
        for name, mask in survivors.items():
            more = net.top_overall(
                {name: momentum[name]}, grown[name] * size, candidates={name: ~mask}, beside={name: mask}
            )
            masks[name] = mask | more[name]
        return masks


def share_out(total: int, shares: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """Split ``total`` in proportion to ``shares``, nobody getting more than there is room for; the sum is exact.

    Args:
        total: how many; at most all the room together.
        shares: non-negative; equal parts when all are 0.
        room: the most that each can get.

    Returns:
        Whole numbers that add up to ``total``. Rounding down leaves a few; they go to the largest remainders, of equal
        ones to the first.
    """
    counts = dict.fromkeys(shares, 0)
    waiting, left = list(shares), total
    while left:
        weight = sum(shares[name] for name in waiting)
        parts = {name: left * (shares[name] / weight if weight else 1 / len(waiting)) for name in waiting}
        full = [name for name in waiting if parts[name] >= room[name]]
        for name in full:
            counts[name], left = room[name], left - room[name]
        waiting = [name for name in waiting if name not in full]
        if full:
            continue
        counts |= {name: int(part) for name, part in parts.items()}
        rest = left - sum(counts[name] for name in waiting)
        # room for one more is certain: every part is below it
        for name in sorted(waiting, key=lambda name: int(parts[name]) - parts[name])[:rest]:
            counts[name] += 1
        left = 0
    return counts
