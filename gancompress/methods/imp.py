"""Lottery tickets: iterative magnitude pruning, each round from the weights that training began with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gancompress.components.registry import METHODS
from gancompress.errors import RecipeError
from gancompress.methods.base import MethodConfig, NetView, Round, Start
from gancompress.methods.pruning import Pruning, PruningConfig, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from gancompress.sparsity.state import Budget, Role, SparseState

__all__ = ["IMP", "IMPConfig"]

#: name of the round that trains the random ticket
CONTROL = "control"


class IMPConfig(PruningConfig):
    """Settings of lottery tickets. The defaults are those of Chen et al., 2021, with both networks pruned."""

    rate: float = Field(default=0.2, gt=0, lt=1, description="share of the remaining weights removed before each round")
    generator: Start = Field(
        default="rewind", description="the generator's weights at the start of every pruned round: rewind, or keep"
    )
    discriminator: Start = Field(
        default="rewind", description="the same for the discriminator; reinitialise draws new ones (a second seed)"
    )
    rewind_step: int = Field(
        default=0, ge=0, description="step of the dense round that rewind goes back to; 0: initialisation"
    )
    budget: Literal["per-round", "total"] = Field(
        default="per-round",
        description="training.steps is the length of every round (published), or of all rounds together",
    )
    distillation: float = Field(
        default=0.0, ge=0, description="weight of the loss that pulls the discriminator towards the dense one"
    )
    control: Literal["none", "random"] = Field(
        default="none", description="random: after the ticket, train a random one with the same kept weights per layer"
    )

    def shortened(self, steps: int) -> Mapping[str, int]:
        """Rewind to a step that a short dense round has."""
        return {**super().shortened(steps), "rewind_step": min(self.rewind_step, steps // 2)}


@METHODS.register("imp")
class IMP(Pruning[IMPConfig]):
    """A dense round, then rounds of densities 0.8, 0.64, 0.512, … of which the last is exactly the one asked for."""

    Config: ClassVar[type[MethodConfig]] = IMPConfig

    def prunings(self, density: float) -> int:
        """Return the rounds needed to reach ``density``: the smallest N with ``(1 - rate) ** N <= density``."""
        exact = math.log(density) / math.log1p(-self.config.rate)
        return max(0, math.ceil(round(exact, 9)))  # 0.8 ** 2 is 0.6400000000000001, and must do for 0.64

    def kept(self, budget: Budget, index: int) -> int:
        """Return the weights that one network keeps in round ``index`` (0 is dense)."""
        if index >= self.prunings(budget.density):
            return budget.total
        return round((1 - self.config.rate) ** index * sum(budget.sizes.values()))

    def rounds(self, total_steps: int, density: Mapping[Role, float]) -> Sequence[Round]:
        """Declare the dense round, one per pruning, and the control if there is one.

        Raises:
            RecipeError: there are fewer steps than rounds, or nothing to rewind to.
        """
        c = self.config
        prunings = max((self.prunings(asked) for role, asked in density.items() if c.prunes(role)), default=0)
        names = ["dense", *(f"prune {k}/{prunings}" for k in range(1, prunings + 1))]
        if c.control == "random":
            names.append(CONTROL)
        lengths = [total_steps] * len(names)
        if c.budget == "total":
            each, over = divmod(total_steps, len(names))
            if not each:
                raise RecipeError(
                    f"this ticket takes {len(names)} rounds, but training.steps is {total_steps}; raise the steps, "
                    "the density or sparsity.method.rate"
                )
            lengths = [each + (k < over) for k in range(len(names))]
        if c.rewind_step > lengths[0]:
            raise RecipeError(
                f"sparsity.method.rewind_step is {c.rewind_step}, but the dense round has {lengths[0]} steps"
            )
        return tuple(
            Round(name, steps, c.generator, c.discriminator, c.rewind_step, c.distillation)
            if index
            else Round(name, steps)
            for index, (name, steps) in enumerate(zip(names, lengths, strict=True))
        )

    def next_round(self, state: SparseState, net: NetView, upcoming: Round, rng: torch.Generator) -> SparseState:
        """Remove the smallest of the remaining weights; for the control, keep as many of each layer at random."""
        if not self.config.prunes(net.role):
            return state
        if upcoming.name == CONTROL:
            return state.replace(masks=net.random(state.budgets, rng))
        total = min(self.kept(net.budget, net.round), state.nonzeros)  # whole units may have come to fewer already
        return state if total == size_of(net) else self.cut(state, net, total)
