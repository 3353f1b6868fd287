"""A recipe shrunk until it runs whole in seconds: to see it work, not for its numbers.

What makes the recipe what it is stays: method, rounds, discriminator steps, objective, average, precision. Images are
generated ones of the same shape with as many classes; networks are as narrow as their backbone goes; steps, batches,
evaluations, and whatever a method counts in steps are few, but enough for two topology updates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gancompress.components.registry import BACKBONES, DATASETS, METHODS, TASKS
from gancompress.errors import DataError, RecipeError
from gancompress.recipe.components import component_config
from gancompress.recipe.composition import lay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.recipe.document import Document
    from gancompress.recipe.schema import Component, Recipe, TrainingConfig

__all__ = ["SUFFIX", "fitted", "longer", "shrunk"]

#: what the name of a smoke run ends in
SUFFIX: Final = "-smoke"

_STEPS: Final = 12
#: training steps of all rounds together beyond which the rounds are shortened
_MOST_STEPS: Final = 60
_BATCH: Final = 8
_IMAGES: Final = 24
_CHANNELS: Final = 4
#: what is drawn when neither settings nor files say what the images are
_GUESS: Final = {"channels": 3, "resolution": 32, "classes": 10}
#: whose widths are made small
_ROLES: Final = ("generator", "discriminator")
#: sizes that the generated images can have
_SIZES: Final = (12, 512)
#: classes that generated images have in grey, and one image of each where they are not
_MOST_CLASSES: Final = 24


def shrunk(document: Document, recipe: Recipe) -> Document:
    """Return ``document`` with the settings of a smoke run laid over it.

    Args:
        document: the composed recipe.
        recipe: the same, checked.
    """
    data = _data(recipe)
    steps, total = _steps(recipe)
    top: dict[str, Any] = {
        "name": f"{recipe.name}{SUFFIX}",
        "smoke": True,
        "data": data,
        "model": _small(recipe.model, data, *_ROLES),
        **({} if recipe.discriminator is None else {"discriminator": _small(recipe.discriminator, data, _ROLES[1])}),
        "sparsity": {"method": fitted(recipe, steps)},
        "training": _training(recipe.training, steps, total),
        "evaluation": _evaluation(recipe, total),
    }
    return lay(document, top, "--smoke")


def fitted(recipe: Recipe, steps: int | None = None) -> dict[str, Any]:
    """Return the method's settings that count steps, made to fit into ``steps``; default: those of the recipe."""
    config: Any = component_config(recipe.sparsity.method)
    return dict(config.shortened(recipe.training.steps if steps is None else steps))


def longer(recipe: Recipe) -> tuple[int, ...]:
    """Return the training steps to try for a smoke run, in this order: a method may have more rounds than steps."""
    return tuple(recipe.training.steps * factor for factor in (1, 4, 16))


def _data(recipe: Recipe) -> dict[str, Any]:
    """Return generated images like those of the recipe, as far as these are known."""
    spec = _spec(recipe)
    channels, classes = spec["channels"], min(spec["classes"], _MOST_CLASSES)
    settings = {
        "name": "shapes",
        "resolution": min(max(spec["resolution"], _SIZES[0]), _SIZES[1]),
        "channels": channels,
        "classes": max(classes, 1),
        "labelled": classes > 0,
        "images": _IMAGES,
    }
    return dict(TASKS.get(recipe.task.name).drawn(settings))


def _spec(recipe: Recipe) -> dict[str, int]:
    """Return channels, resolution and classes: as the settings say, else as the files say, else a guess."""
    kind, config = DATASETS.get(recipe.data.name), component_config(recipe.data)
    spec: Any = kind.expected(config) if hasattr(kind, "expected") else None
    if spec is None:
        try:
            spec = kind(config).spec
        except DataError:  # not at hand, which a smoke run does not mind
            spec = None
    if spec is not None:
        return {"channels": spec.channels, "resolution": spec.resolution, "classes": spec.num_classes}
    conditional = getattr(recipe.model, "conditional", False)
    return {
        "channels": getattr(config, "channels", None) or _GUESS["channels"],
        "resolution": getattr(config, "resolution", None) or _GUESS["resolution"],
        "classes": _GUESS["classes"] if conditional else 0,
    }


def _small(node: Component, data: Mapping[str, Any], *roles: str) -> dict[str, Any]:
    """Return the narrowest widths that a backbone takes, and whatever else makes networks small and ready at hand."""
    images = DATASETS.get(data["name"])
    settings = {key: value for key, value in data.items() if key != "name"}
    drawn = images(images.Config(**{**settings, "images": 1}))
    config: Any = component_config(node)
    backbone = BACKBONES.get(node.name)(config, drawn.spec)
    widths = {role: width for role, width in getattr(backbone, "widths", {}).items() if role in roles}
    narrow = {
        width.field: min(width.channels, width.multiple * -(-_CHANNELS // width.multiple)) for width in widths.values()
    }
    return {**narrow, **config.smoke()}


def _steps(recipe: Recipe) -> tuple[int, int]:
    """Return ``training.steps``, and the steps of all rounds together."""
    sparsity = recipe.sparsity
    common = sparsity.density or sparsity.total_density or 1.0
    density: dict[Any, float] = {
        "generator": sparsity.generator.density or common,
        "discriminator": sparsity.discriminator.density or common,
    }
    config = component_config(sparsity.method)
    for steps in (_STEPS, 4 * _STEPS, 16 * _STEPS):
        try:
            method = METHODS.get(sparsity.method.name)(config.model_copy(update=fitted(recipe, steps)))
            total = sum(int(current.steps) for current in method.rounds(steps, density))
        except RecipeError:  # more rounds than steps
            continue
        few = max(2, steps * _MOST_STEPS // total) if total > _MOST_STEPS else steps
        # rounds that share the steps out cannot be shortened
        shared = total == steps
        return (steps, total) if shared else (few, total * few // steps)
    return recipe.training.steps, recipe.training.steps


def _training(training: TrainingConfig, steps: int, total: int) -> dict[str, Any]:
    batch = min(training.batch_size, _BATCH)
    accumulate = 2 if training.accumulate > 1 and batch % 2 == 0 else 1
    wanted: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch,
        "accumulate": accumulate,
        "ema": {"start": min(training.ema.start, steps // 4)},
        "threads": training.threads or 1,  # networks this small lose more to a second thread than it gives
        "log_every": max(1, total // 12),
        "sample_every": max(1, total // 2),
        "checkpoint_every": 0,
        "init_from": None,  # what was trained at full width does not fit
        "distillation": None,
        "images": None if training.images is None else _IMAGES,
    }
    asked = training.generator_batch_size
    if asked is not None:
        larger, smaller = asked > training.batch_size, asked < training.batch_size
        wanted["generator_batch_size"] = 2 * batch if larger else accumulate if smaller else batch
    return wanted


def _evaluation(recipe: Recipe, total: int) -> dict[str, Any]:
    asked = recipe.evaluation.extractor
    # Inception takes seconds for what the small classifier does in milliseconds
    extractor = "classifier" if asked.partition(":")[0] in ("auto", "inception") else asked
    return {"samples": _IMAGES, "batch_size": 32, "every": max(1, total // 2), "extractor": extractor}
