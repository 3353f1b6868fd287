"""How a recipe's run is computed: sparse kernels, folding, and what has to be refused before the first step.

Part of the composition root; nothing here changes what is computed beyond rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress import kernels
from gancompress.errors import RecipeError
from gancompress.training.execution import Execution, why_dense
from gancompress.training.folding import Folding
from gancompress.training.graphs import why_no_graphs

if TYPE_CHECKING:
    from gancompress.objectives.base import Loss, LossConfig
    from gancompress.recipe.schema import Recipe

__all__ = ["build_execution", "build_folding", "check_accelerations", "device_of", "numbered", "why_not_recorded"]


def device_of(recipe: Recipe) -> torch.device:
    """Return the device that a recipe trains on.

    Raises:
        RecipeError: it asks for cuda and there is none.
    """
    wanted = recipe.training.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RecipeError("training.device: cuda was asked for, but torch sees no GPU; use --set training.device=auto")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def numbered(device: torch.device) -> torch.device:
    """Return ``cuda`` as the GPU that this process uses (see ``Group.join``), which other threads would not know."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def build_execution(recipe: Recipe, world: int = 1) -> Execution | None:
    """Return how masked layers are computed while training; None where everything runs dense.

    Raises:
        RecipeError: sparse kernels were asked for on a machine that has none.
    """
    training = recipe.training
    if training.kernels == "dense" or training.values == "int8":  # what is rounded is computed as written
        return None
    status = kernels.status()
    if training.kernels == "sparse" and not status.available:
        raise RecipeError(
            f"training.kernels: sparse was asked for, but the native kernels are missing ({status.reason}); "
            "use --set training.kernels=auto"
        )
    dense_because = why_dense(
        device=device_of(recipe).type,
        precision=training.precision,
        channels_last=training.channels_last,
        world=world,
        compiled=training.compile,
    )
    if dense_because:
        return None
    return Execution(training.kernels, every_gradient=recipe.sparsity.moments == "dense")


def build_folding(recipe: Recipe, execution: Execution | None) -> Folding | None:
    """Return how convolutions beside a change of resolution are computed; None where they run as written.

    Args:
        recipe: the recipe.
        execution: of the same run: where sparse kernels compete, they are measured too.
    """
    training = recipe.training
    if training.fold == "never" or training.values == "int8":
        return None
    return Folding(
        training.fold,
        device=device_of(recipe),
        bf16=training.precision == "bf16",
        channels_last=training.channels_last,
        sparse=execution is not None and execution.mode is None,
    )


def check_accelerations(recipe: Recipe, loss: Loss[LossConfig], world: int) -> None:
    """Refuse what this run cannot be given.

    Raises:
        RecipeError: saying why, and which setting to change.
    """
    training = recipe.training
    if training.values == "int8":
        ways = {"kernels": "sparse", "fold": "always", "precision": "bf16", "compile": True, "cuda_graphs": True}
        for name, value in ways.items():
            if getattr(training, name) == value:
                default = type(training).model_fields[name].default
                raise RecipeError(
                    f"training.{name}: training with the rounding of int8 is computed as written, in float32; "
                    f"use --set training.{name}={str(default).lower()}"
                )
    if training.precision == "bf16" and device_of(recipe).type == "cuda" and not torch.cuda.is_bf16_supported():
        raise RecipeError(
            f"training.precision: {torch.cuda.get_device_name()} cannot compute in bf16; "
            "use --set training.precision=float32"
        )
    if training.compile and world > 1:
        raise RecipeError(
            "training.compile: batch statistics of several processes cannot be compiled; "
            "use --set training.compile=false"
        )
    if training.cuda_graphs:
        why = why_not_recorded(recipe, loss, device=device_of(recipe).type, world=world)
        if why:
            raise RecipeError(f"training.cuda_graphs: {why}; use --set training.cuda_graphs=false")


def why_not_recorded(recipe: Recipe, loss: Loss[LossConfig], *, device: str, world: int = 1) -> str:
    """Say why the passes of this recipe cannot be CUDA graphs, or return an empty string when they can."""
    return why_no_graphs(
        device=device,
        augments=bool(
            recipe.objective.diffaugment
            or recipe.objective.ada
            or recipe.objective.consistency.real
            or recipe.objective.consistency.fake
        ),
        penalises=loss.penalises,
        world=world,
    )
