"""Tiny components, so that these tests need neither torch nor the rooms that the real ones live in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gancompress.components.registry import BACKBONES, DATASETS, LOSSES, METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToyData:
    class Config(Settings):
        """Images that are not there."""

        resolution: int = Field(8, ge=4, le=64, description="pixels")
        path: str = ""
        classes: tuple[str, ...] = ()


class ToyModel:
    class Config(Settings):
        channels: int = Field(32, ge=1)
        factor: float = 1.0
        width: int | Literal["narrow", "wide"] = 8

        @model_validator(mode="after")
        def _odd(self) -> ToyModel.Config:
            if self.channels % 2:
                raise ValueError(f"channels must be even, got {self.channels}")
            return self


class ToyLoss:
    class Config(Settings):
        margin: float = Field(1.0, gt=0, lt=10)


class OtherLoss:
    class Config(Settings):
        """Nothing to set."""


class Schedule(Settings):
    start: float = Field(0.5, gt=0, le=1)
    end: float = 0.0


class ToyMethod:
    class Config(Settings):
        every: int = Field(100, ge=1)
        grow: Literal["gradient", "random"] = "gradient"
        schedule: Schedule = Schedule(start=0.3)

        @field_validator("every")
        @classmethod
        def _thirteen(cls, value: int) -> int:
            if value == 13:
                raise ValueError("13 brings bad luck")
            return value


class Still:
    class Config(Settings):
        seed: int = 0


@contextlib.contextmanager
def toys() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        pairs: list[tuple[Any, str, Any]] = [
            (DATASETS, "toy-data", ToyData),
            (BACKBONES, "toy-model", ToyModel),
            (LOSSES, "toy-loss", ToyLoss),
            (LOSSES, "other-loss", OtherLoss),
            (METHODS, "toy-method", ToyMethod),
            (METHODS, "still", Still),
        ]
        for registry, name, component in pairs:
            stack.enter_context(registry.registered(name, component))
        yield


#: nine keys at four levels, in block style: line numbers in the tests count from here
RECIPE = """\
name: toy
data:
  name: toy-data
  resolution: 16
model: toy-model
objective:
  loss: {name: toy-loss, margin: 2}
sparsity:
  method:
    name: toy-method
    every: 50
  generator:
    density: 0.2
  discriminator: {density: 0.5}
training:
  steps: 100
  optimizers:
    generator: {lr: 2e-4, betas: [0.0, 0.99]}
evaluation:
  metrics: [fd, kd]
"""
