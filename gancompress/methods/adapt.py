"""ADAPT, balanced dynamic sparse training: the discriminator's density follows the balance of the game."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from gancompress.components.registry import METHODS
from gancompress.errors import InvariantError, RecipeError
from gancompress.methods.base import Measure, Method, MethodConfig, NetView, Plan
from gancompress.methods.dst import DST, DropFraction, DSTConfig
from gancompress.methods.pruning import cut, magnitudes, size_of
from gancompress.methods.static import random_state
from gancompress.sparsity.masks import union
from gancompress.sparsity.schedules import Cosine, is_due
from gancompress.sparsity.scores import gradient

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from gancompress.sparsity.state import Budget, Role, SparseState

__all__ = ["Adapt", "AdaptConfig", "balance_ratio"]

Share = Annotated[float, Field(ge=0, le=1)]
Density = Annotated[float, Field(gt=0, le=1)]
Averaging = Literal["ratio-of-means", "mean-of-ratios"]


def balance_ratio(signals: Mapping[str, Tensor], averaging: Averaging, guard: float) -> float:
    """Return how much of the discriminator's margin one generator step makes up for.

    The ratio is ``(after - before) / (real - before)`` in mean logits; a strong discriminator makes it small.

    Args:
        signals: ``d_real``, ``d_fake`` and ``d_fake_after`` (before and after), each of shape (records,).
        averaging: divide the means of both differences, or take the mean of their quotients as published.
        guard: for ``ratio-of-means``, the margin below which real and generated images count as not told apart, which
            makes the ratio infinite.
    """
    gain = signals["d_fake_after"] - signals["d_fake"]
    margin = signals["d_real"] - signals["d_fake"]
    if averaging == "mean-of-ratios":
        return float((gain / margin).mean())
    mean = float(margin.mean())
    return float(gain.mean()) / mean if mean >= guard else float("inf")


class AdaptConfig(MethodConfig):
    """Settings of ADAPT. The defaults are those of its relaxed runs on SNGAN."""

    mode: Literal["relaxed", "strict"] = Field(
        default="relaxed",
        description="relaxed: the discriminator may become dense; strict: at most half, where it explores instead",
    )
    low: float = Field(default=0.45, description="balance ratio at and below which the discriminator loses weights")
    high: float = Field(default=0.55, description="balance ratio at and above which it gains weights")
    density_step: Density = Field(default=0.05, description="share of all its weights gained or lost at once")
    min_density: Density = Field(default=0.05, description="density that the discriminator does not fall below")
    max_density: Density | None = Field(
        default=None, description="density that it does not exceed; default: 1 relaxed, 0.5 strict"
    )
    every: int = Field(default=500, ge=1, description="training steps between two updates of the generator's masks")
    every_discriminator: int = Field(default=1000, ge=1, description="training steps between two decisions")
    drop_fraction: DropFraction = Cosine(start=0.5, end=0.005)
    measure_every: int = Field(default=10, ge=1, description="training steps between two measurements of the balance")
    window: int = Field(default=100, ge=1, description="measurements that one decision averages; it waits for them")
    averaging: Averaging = Field(default="ratio-of-means", description="mean-of-ratios: as published, unguarded")
    guard: float = Field(default=1e-3, gt=0, description="ratio-of-means: least margin of logits that counts as one")
    layer_floor: Share = Field(
        default=0.1, description="least density of every layer after a cut, as a share of the network's"
    )
    protect_output: bool = Field(default=True, description="global ranking leaves the output layer its share")

    @model_validator(mode="after")
    def _ordered(self) -> AdaptConfig:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.min_density > self.ceiling:
            raise ValueError(f"min_density ({self.min_density}) must not be above the maximum ({self.ceiling})")
        return self

    def shortened(self, steps: int) -> Mapping[str, int]:
        """Decide on two measurements, so that a short run has a decision."""
        return {**super().shortened(steps), "window": min(self.window, 2)}

    @property
    def ceiling(self) -> float:
        """The highest density of the discriminator."""
        return self.max_density or (1.0 if self.mode == "relaxed" else 0.5)


@METHODS.register("adapt")
class Adapt(Method[AdaptConfig]):
    """The generator explores as in RigL under global ranking; the discriminator gains or loses weights."""

    Config: ClassVar[type[MethodConfig]] = AdaptConfig

    def __init__(self, config: AdaptConfig) -> None:
        super().__init__(config)
        shared = config.model_dump(include={"drop_fraction", "layer_floor", "protect_output"})
        self._explore = DST(DSTConfig.model_validate({"growth": "gradient", "scope": "global", **shared}))

    def meets_density(self, role: Role) -> bool:
        """The discriminator's density follows the balance."""
        return role == "generator"

    @property
    def measure(self) -> Measure:
        """The balance, every few steps."""
        return Measure(self.config.measure_every, self.config.window)

    def init(self, net: NetView, budget: Budget, rng: torch.Generator) -> SparseState:
        """Draw random masks.

        Raises:
            RecipeError: the discriminator starts above the density that it may have.
        """
        if net.role == "discriminator" and budget.density > self.config.ceiling:
            raise RecipeError(
                f"the discriminator starts at density {budget.density:g}, but {self.config.mode} adapt lets it have "
                f"{self.config.ceiling:g} at most; set sparsity.discriminator.density (published: the generator's)"
            )
        return random_state(net, budget, rng)

    def plan(self, role: Role, step: int, total_steps: int) -> Plan:
        """Ask for an update on every due step but the very last, whose new weights would never be trained."""
        every = self.config.every if role == "generator" else self.config.every_discriminator
        return Plan.UPDATE | Plan.DENSE_GRADIENT if is_due(step, total_steps, every, stop=1.0) else Plan.NOTHING

    def notes(self, net: NetView) -> Mapping[str, float]:
        """Log what is decided on: the generator's drop fraction, the balance ratio once its window is full."""
        c = self.config
        if net.role == "generator":
            return self._explore.notes(net)
        if len(net.signals["d_real"]) < c.window:
            return {}
        return {"balance_ratio": balance_ratio(net.signals, c.averaging, c.guard)}

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        """Explore with the generator; let the balance decide about the discriminator once the window is full."""
        c = self.config
        if net.role == "generator":
            return self._explore.update(state, net, rng)
        if len(net.signals["d_real"]) < c.window:
            return state
        ratio = balance_ratio(net.signals, c.averaging, c.guard)
        size, now = size_of(net), state.nonzeros
        step, lowest, highest = (round(share * size) for share in (c.density_step, c.min_density, c.ceiling))
        if ratio <= c.low and now > lowest:
            return cut(state, net, magnitudes(net), max(now - step, lowest), c)
        if ratio >= c.high and now < highest:
            return self._gain(state, net, min(step, highest - now))
        if ratio >= c.high and c.mode == "strict":
            return self._explore.update(state, net, rng)
        return state

    def _gain(self, state: SparseState, net: NetView, count: int) -> SparseState:
        if net.gradients is None:
            raise InvariantError(f"the {net.role} was given no dense gradients at step {net.step}")
        steepness = {name: gradient(net.gradients[name]) for name in state.masks}
        free = {name: ~mask for name, mask in state.masks.items()}
        masks = union(state.masks, net.top_overall(steepness, count, candidates=free, beside=state.masks))
        return state.replace(masks=masks, budgets={name: int(mask.sum()) for name, mask in masks.items()})
