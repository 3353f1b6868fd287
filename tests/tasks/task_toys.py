"""Small recipes from image to image, and runs of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from gancompress.experiment.assemble import build_dataset, build_trainer
from gancompress.recipe.load import parse_recipe

if TYPE_CHECKING:
    from gancompress.training.loop import Trainer

__all__ = ["CYCLE", "PAIRS", "trainer_of"]

_TRAINING: dict[str, Any] = {
    "steps": 6,
    "batch_size": 2,
    "device": "cpu",
    "kernels": "dense",
    "ema": {"decay": 0.5},
    "log_every": 1,
    "checkpoint_every": 2,
    "keep_checkpoints": 9,
    "optimizers": {role: {"lr": 1e-3, "betas": [0.5, 0.9]} for role in ("generator", "discriminator")},
}
_SPARSITY: dict[str, Any] = {
    "method": {"name": "dst", "explore": "both", "every": 2},
    "generator": {"density": 0.4},
    "discriminator": {"density": 0.6},
}
_EVALUATION = {"samples": 10, "metrics": ["fd"], "extractor": "classifier", "batch_size": 5}
PAIRS: dict[str, Any] = {
    "name": "pairs",
    "data": {"name": "outlines", "images": 12, "held_out": 24},
    "model": {"name": "unet", "channels": 2, "discriminator_channels": 2, "norm": "instance"},
    "task": {"name": "pix2pix", "jitter": 2},
    "objective": {"loss": "non-saturating"},
    "sparsity": _SPARSITY,
    "training": {**_TRAINING, "flip": True},
    "evaluation": _EVALUATION,
}
CYCLE: dict[str, Any] = {
    "name": "cycle",
    "data": {"name": "outlines", "images": 12, "held_out": 24, "paired": False},
    "model": {"name": "resnet", "channels": 2, "discriminator_channels": 2, "blocks": 1},
    "task": {"name": "cyclegan", "pool": 3},
    "objective": {"loss": "least-squares"},
    "sparsity": _SPARSITY,
    "training": _TRAINING,
    "evaluation": _EVALUATION,
}


def trainer_of(recipe: dict[str, Any], *overrides: str) -> Trainer:
    """Build what trains, with its first masks."""
    parsed = parse_recipe(copy.deepcopy(recipe), overrides).recipe
    trainer = build_trainer(parsed, build_dataset(parsed))
    trainer.engine.init(trainer.probe)
    return trainer
