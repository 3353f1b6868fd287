"""The pattern contract: which weights of a layer are kept or dropped as one.

A method says how many weights are kept and by which score; a pattern says in which units. Neither knows the other.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from gancompress.sparsity.layers import Layer
    from gancompress.sparsity.units import Units

__all__ = ["Pattern", "PatternConfig"]


class PatternConfig(BaseModel):
    """Base of every pattern's ``Config``: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


C = TypeVar("C", bound=PatternConfig)


class Pattern(abc.ABC, Generic[C]):
    """A pattern. Subclass it in one file, give it a ``Config``, register it under a name."""

    Config: ClassVar[type[PatternConfig]] = PatternConfig

    def __init__(self, config: C) -> None:
        self.config = config

    def __str__(self) -> str:
        """What messages and reports call it."""
        return type(self).__name__.lower()

    @abc.abstractmethod
    def units(self, layer: Layer) -> Units | None:
        """Return the units of one layer's weight; ``None`` leaves it in single weights. A pure function."""
