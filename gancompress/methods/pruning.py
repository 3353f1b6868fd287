"""What methods that remove weights share: their settings, and one cut to a number of kept weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import torch
from pydantic import Field

from gancompress.errors import InvariantError
from gancompress.methods.base import Method, MethodConfig, NetView
from gancompress.sparsity import scores
from gancompress.sparsity.allocate import allocate
from gancompress.sparsity.rounding import shrink
from gancompress.sparsity.state import SparseState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gancompress.sparsity.state import Budget, Role

__all__ = ["Prune", "Pruning", "PruningConfig", "Scope", "cut", "everything", "magnitudes", "size_of"]

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Prune: TypeAlias = Annotated[
    Literal["generator", "discriminator", "both"],
    Field(description="networks brought to their density; the other keeps every weight, whatever the recipe says"),
]
Scope: TypeAlias = Annotated[
    Literal["layer", "global"],
    Field(description="layer: kept weights per layer as the recipe allocates them; global: rank all layers together"),
]


class Floors(Protocol):
    """The settings without which a global rule empties layers."""

    @property
    def layer_floor(self) -> float: ...
    @property
    def protect_output(self) -> bool: ...


class PruningConfig(MethodConfig):
    """Settings of every method that prunes."""

    prune: Prune = "both"
    scope: Scope = "global"
    layer_floor: Share = Field(
        default=0.1,
        description="global scope: least density of every layer, as a share of the network's; not 0: at least 1 weight",
    )
    protect_output: bool = Field(
        default=True, description="global scope: the output layer is never sparser than the network"
    )

    def prunes(self, role: Role) -> bool:
        """Return whether ``role`` is pruned."""
        return self.prune in (role, "both")


C = TypeVar("C", bound=PruningConfig)


class Pruning(Method[C]):
    """Base of the methods that prune."""

    suits_trained: ClassVar[bool] = True

    def meets_density(self, role: Role) -> bool:
        """A network that is not pruned keeps every weight."""
        return self.config.prunes(role)

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Keep everything."""
        return everything(net)

    def cut(self, state: SparseState, net: NetView, total: int) -> SparseState:
        """Keep the ``total`` largest of the weights that ``state`` keeps."""
        return cut(state, net, magnitudes(net), total, self.config, self.config.scope)


def everything(net: NetView) -> SparseState:
    """Return masks that keep every weight."""
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in net.weights.items()}
    return SparseState(masks, {name: mask.numel() for name, mask in masks.items()})


def size_of(net: NetView) -> int:
    """Return the number of prunable weights."""
    return sum(net.budget.sizes.values())


def magnitudes(net: NetView) -> dict[str, Tensor]:
    """Return ``|w|`` of every prunable weight."""
    return {name: scores.magnitude(weight) for name, weight in net.weights.items()}


def cut(
    state: SparseState, net: NetView, ranking: Mapping[str, Tensor], total: int, floors: Floors, scope: str = "global"
) -> SparseState:
    """Keep the ``total`` best of the weights that ``state`` keeps; what is masked stays masked.

    Args:
        state: the masks so far.
        net: the network; its budget says what the recipe allocates, keeps dense and keeps at least.
        ranking: non-negative scores per tensor; NaN counts as 0.
        total: kept weights of the whole network: exactly, or the nearest that the pattern's units allow.
        floors: what a global cut leaves every layer.
        scope: ``layer`` moves every layer the same share of the way to the count that the recipe allocates to it;
            ``global`` ranks all layers together.

    Raises:
        RecipeError: the floors together take more than ``total``.
        InvariantError: more is to be kept than ``state`` keeps, or fewer than the recipe allocates (``layer``).
    """
    budget = net.budget
    if min(total, sum(budget.most(name) for name in budget.sizes)) > state.nonzeros:
        raise InvariantError(f"cannot prune the {net.role}'s {state.nonzeros} kept weights to {total}")
    if total == state.nonzeros:
        return state
    # Masked weights rank below every kept one, so that the best ones of a tensor are always inside its mask.
    ranked = {name: ranking[name].nan_to_num(nan=0.0).masked_fill(~mask, -1.0) for name, mask in state.masks.items()}
    at_most = {name: min(kept, budget.most(name)) for name, kept in state.budgets.items()}
    total = min(total, sum(at_most.values()))
    if scope == "layer":
        counts = shrink(at_most, budget.counts, total, {name: budget.step(name) for name in at_most})
    else:
        one_each = 1 / max(budget.sizes.values()) if floors.layer_floor > 0 else 0.0
        if (
            budget.units
            and sum(n if name in budget.dense else budget.step(name) for name, n in at_most.items()) > total
        ):
            one_each = 0.0  # units are too large for one in every layer
        counts = dict(
            allocate(
                "global",
                {name: tuple(mask.shape) for name, mask in state.masks.items()},
                total / sum(budget.sizes.values()),
                floor=max(budget.floor, one_each),
                dense=budget.dense,
                scores=ranked,
                protected=net.protected if floors.protect_output else (),
                global_floor=floors.layer_floor,
                at_most=at_most,
                units=budget.units,
            ).counts
        )
    masks = net.top(ranked, counts, candidates=state.masks)
    return state.replace(masks=masks, budgets=counts)
