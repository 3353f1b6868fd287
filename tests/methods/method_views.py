"""Views of a small network, made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gancompress.methods.base import NetView
from gancompress.sparsity.allocate import allocate

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.sparsity.state import SparseState

SHAPES = {"first": (12, 4, 3, 3), "second": (12, 12, 3, 3), "shortcut": (12, 12, 1, 1), "output": (3, 12, 3, 3)}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_tensors(seed: int) -> dict[str, Tensor]:
    generator = rng(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def view(state: SparseState | None = None, *, seed: int = 1, density: float = 0.2, **changes: Any) -> NetView:
    """A generator of four layers, its weights masked by ``state``, with gradients and momentum everywhere."""
    weights = random_tensors(seed)
    if state is not None:
        weights = {name: weight * state.masks[name] for name, weight in weights.items()}
    values: dict[str, Any] = {
        "role": "generator",
        "weights": weights,
        "budget": allocate("erk", SHAPES, density),
        "gradients": random_tensors(seed + 1000),
        "momentum": random_tensors(seed + 2000),
        "protected": frozenset({"output"}),
        "step": 500,
        "total_steps": 1000,
    }
    return NetView(**values | changes)


def one(weights: list[float], gradients: list[float] | None = None, **changes: Any) -> NetView:
    """A network of one tensor ``w``, given as a list."""
    values: dict[str, Any] = {
        "role": "generator",
        "weights": {"w": torch.tensor(weights)},
        "budget": allocate("uniform", {"w": (len(weights),)}, 0.5),
        "gradients": None if gradients is None else {"w": torch.tensor(gradients)},
        "step": 1,
        "total_steps": 1000,
    }
    return NetView(**values | changes)
