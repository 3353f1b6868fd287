"""N:M: at most N of every M consecutive inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from gancompress.components.registry import PATTERNS
from gancompress.sparsity.patterns.base import Pattern, PatternConfig
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from gancompress.sparsity.layers import Layer

__all__ = ["NM", "NMConfig"]


class NMConfig(PatternConfig):
    """The limit. ``2:4`` is short for ``{name: nm, n: 2, m: 4}``."""

    n: int = Field(default=2, ge=1, description="weights that a group may keep at most")
    m: int = Field(default=4, ge=2, description="consecutive input channels of a group, at one output and position")

    @model_validator(mode="after")
    def _limits(self) -> NMConfig:
        if self.n >= self.m:
            raise ValueError(f"n ({self.n}) must be below m ({self.m}), or nothing is limited")
        return self


@PATTERNS.register("nm")
class NM(Pattern[NMConfig]):
    """Keep at most N of every M consecutive inputs of an output channel, at every position of the kernel.

    Densities below N/M leave groups with fewer. A layer is limited or kept whole: a method that prunes from dense
    goes to the limit in its first step.
    """

    Config: ClassVar[type[PatternConfig]] = NMConfig

    def __str__(self) -> str:
        return f"{self.config.n}:{self.config.m}"

    def units(self, layer: Layer) -> Units | None:
        """Return single weights in groups along the inputs."""
        group = layer.box(1, self.config.m)
        return None if group is None else Units(layer.shape, (1,) * len(layer.shape), group, self.config.n)
