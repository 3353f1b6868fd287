"""SRigL: dynamic sparse training in which every neuron has as many inputs, and neurons that gather few are given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gancompress.components.registry import METHODS
from gancompress.methods.dst import DST, Share
from gancompress.methods.presets import RigLConfig
from gancompress.sparsity import scores
from gancompress.sparsity.masks import rank_keys, ranks, topk_mask
from gancompress.sparsity.rounding import ceil_share
from gancompress.sparsity.select import units_of
from gancompress.sparsity.state import SparseState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.methods.base import MethodConfig, NetView
    from gancompress.sparsity.layers import Layer
    from gancompress.sparsity.state import Budget

__all__ = ["SRigL", "SRigLConfig"]


class SRigLConfig(RigLConfig):
    """Settings of SRigL: those of RigL, and when a neuron is given up. Layers are ranked one by one."""

    regrow: Literal["allowed"] = Field(
        default="allowed", description="a weight dropped by an update may be grown by it"
    )
    scope: Literal["layer"] = Field(default="layer", description="fan-in is a matter of one layer")
    ablate: Share = Field(
        default=0.3,
        description="a neuron with fewer salient weights than this share of the fan-in is given up; 0: none is",
    )


@METHODS.register("srigl")
class SRigL(DST):
    """Constant fan-in and neuron ablation.

    After Lasby et al., *Dynamic Sparse Training with Structured Sparsity*, ICLR 2024, section 3.1. A neuron is an
    output channel, and its fan-in what it keeps of its weights, in units of the recipe's pattern. Counts stay exact, as
    everywhere here, so fan-ins of one layer may differ by one.
    """

    Config: ClassVar[type[MethodConfig]] = SRigLConfig
    config: SRigLConfig

    def notes(self, net: NetView) -> Mapping[str, float]:
        """Log the drop fraction, and the share of output channels that keep a weight."""
        alive = [_Rows(net, name).of(mask).any(1) for name, mask in net.masks.items()]
        share = float(torch.cat(alive).float().mean()) if alive else 1.0
        return {**super().notes(net), "active_channels": share}

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Draw masks at random in which all neurons of a layer have the same fan-in."""
        whole = super().init(net, budget, rng).masks  # checks the budget; what the recipe keeps whole stays so
        masks = {}
        for name, mask in whole.items():
            rows = _Rows(net, name)
            drawn = scores.random_scores(rows.units.grid, rng, device=mask.device)
            count = budget.counts[name] // rows.units.size
            masks[name] = mask if count == rows.units.count else rows.fill(rows.even(count), [drawn])
        return SparseState(masks, dict(budget.counts))

    def replaced(
        self, group: Sequence[str], fraction: float, state: SparseState, net: NetView, grow_by: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Drop the weakest of a layer, give up neurons, and grow every other one to the same fan-in."""
        (name,) = group
        rows = _Rows(net, name)
        units = rows.units
        old, strength = units.chosen(state.masks[name]), units.pool(scores.magnitude(net.weights[name]))
        wanted = units.pool(grow_by[name])
        kept = state.budgets[name] // units.size
        count = min(ceil_share(fraction, kept), units.count - kept)
        survivors = topk_mask(strength, kept - count, old)
        salient = survivors | topk_mask(wanted, count, ~survivors)
        fans = self._fans(rows, kept, rows.of(old).any(1), rows.of(salient).sum(1), net.layers.get(name))
        return {name: rows.fill(fans, [strength, wanted, strength], [survivors, ~old, old])}

    def _fans(self, rows: _Rows, kept: int, alive: Tensor, salient: Tensor, layer: Layer | None) -> Tensor:
        """Return the fan-in of every neuron: as many each, 0 for those that are given up, ``kept`` in all."""
        living = int(alive.sum())
        staying = alive.clone()
        if not (layer is not None and layer.output):  # a channel of the image is not given up
            staying &= salient >= self.config.ablate * kept / max(living, 1)
        least = max(1, -(-kept // rows.capacity))
        order = torch.where(alive, salient, -1).argsort(descending=True, stable=True)
        if int(staying.sum()) < least:  # fewer could not hold the layer's weights
            staying = torch.zeros_like(alive)
            staying[order[:least]] = True
        return rows.even(kept, staying, order)


class _Rows:
    """The units of one weight as (output channels, units of one of them)."""

    def __init__(self, net: NetView, name: str) -> None:
        shape = tuple(net.weights[name].shape)
        self.units = units_of(net.budget.units, {name: shape})[name]
        layer = net.layers.get(name)
        self._groups = layer.groups if layer is not None and layer.output_axis else 1
        self._axis = layer.output_axis if layer is not None else 0
        self._split = (self._groups, self.units.grid[0] // self._groups, *self.units.grid[1:])
        outputs = self._groups * self.units.grid[1] if self._axis else self.units.grid[0]
        self.count = outputs
        #: units that an output channel can keep
        self.capacity = self.units.most // self.units.size // outputs

    def of(self, units: Tensor) -> Tensor:
        """Return a tensor of the grid, or a mask of the weight, a row per output channel."""
        grid = self.units.chosen(units) if tuple(units.shape) != self.units.grid else units
        if not self._axis:
            return grid.reshape(self.count, -1)
        return grid.reshape(self._split).transpose(1, 2).reshape(self.count, -1)

    def _back(self, rows: Tensor) -> Tensor:
        if not self._axis:
            return rows.reshape(self.units.grid)
        turned = (self._split[0], self._split[2], self._split[1], *self._split[3:])
        return rows.reshape(turned).transpose(1, 2).reshape(self.units.grid)

    def even(self, total: int, staying: Tensor | None = None, order: Tensor | None = None) -> Tensor:
        """Spread so many units evenly; the first of ``order`` that stay get one more where it does not divide."""
        if staying is None:
            staying = torch.ones(self.count, dtype=torch.bool)
        if order is None:
            order = torch.arange(self.count, device=staying.device)
        base, rest = divmod(total, int(staying.sum()))
        fans = torch.where(staying, base, 0)
        first = order[staying[order]][:rest]
        fans[first] += 1
        return fans

    def fill(self, fans: Tensor, ranked: Sequence[Tensor], among: Sequence[Tensor] = ()) -> Tensor:
        """Return the mask of the weight in which every output channel keeps so many of its units.

        Args:
            fans: units to keep per output channel.
            ranked: scores; the second only fills what the first leaves, and so on.
            among: the units that each of them ranks, by default all.
        """
        kept = torch.zeros(self.units.grid, dtype=torch.bool, device=ranked[0].device)
        for index, values in enumerate(ranked):
            free = ~kept & among[index] if among else ~kept
            room = self.units.room(values, free, kept)
            assert room is not None
            keys = self.of(rank_keys(values).reshape(self.units.grid).to(torch.int64))
            keys = keys.masked_fill(~self.of(room), torch.iinfo(torch.int64).min)
            missing = fans.to(keys.device)[:, None] - self.of(kept).sum(1, keepdim=True)
            kept |= self._back((ranks(keys) < missing) & self.of(room))
        return self.units.expand(kept)
