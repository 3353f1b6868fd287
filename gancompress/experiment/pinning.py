"""What a run takes from elsewhere, pinned: the hash of it makes the run what it is, its place does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.experiment.teacher import teacher_of
from gancompress.pretrained import DOWNLOAD, RANDOM
from gancompress.recipe.components import component_config
from gancompress.recipe.identity import LOCATED_NODES

if TYPE_CHECKING:
    from gancompress.architecture.description import Architecture
    from gancompress.recipe.schema import Recipe

__all__ = ["pinned", "pins", "relocated"]


def pins(recipe: Recipe) -> dict[str, str]:
    """Return, as dotted keys and values, the hash of everything that a recipe takes from elsewhere and where it lies.

    What has its hash already is left out.

    Raises:
        GancompressError: it is not there.
    """
    found = {}
    for key in LOCATED_NODES:
        node: Any = getattr(recipe, key)
        if getattr(node, "takes_weights", False) and node.hash is None:
            config: Any = component_config(node)
            found[f"{key}.hash"] = config.weights_hash()
            found[f"{key}.weights"] = _place(node.weights)
    wanted = recipe.training.distillation
    if wanted is not None and wanted.hash is None:
        found["training.distillation.hash"] = teacher_of(recipe).hash
        found["training.distillation.teacher"] = _place(wanted.teacher)
    return found


def pinned(recipe: Recipe) -> Recipe:
    """Return ``recipe`` with its :func:`pins`, the same object where there is nothing to pin."""
    for dotted, value in pins(recipe).items():
        *above, key = dotted.split(".")
        recipe = _changed(recipe, above, key, value)
    return recipe


def relocated(stored: Architecture, recipe: Recipe) -> Architecture:
    """Return what a checkpoint says the networks are, with files where the recipe has them now."""
    nodes: tuple[Any, ...] = (recipe.model, recipe.discriminator)
    return stored.located_at(*(node.weights if getattr(node, "takes_weights", False) else None for node in nodes))


def _place(text: str) -> str:
    return text if text in (DOWNLOAD, RANDOM) else str(Path(text).expanduser().absolute())


def _changed(model: Any, above: list[str], key: str, value: str) -> Any:
    if not above:
        return model.model_copy(update={key: value})
    first, *below = above
    return model.model_copy(update={first: _changed(getattr(model, first), below, key, value)})
