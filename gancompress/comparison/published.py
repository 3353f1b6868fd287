"""Which cells of a comparison are rows of a published table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gancompress.recipe.identity import run_id
from gancompress.recipe.load import LoadedRecipe, load_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.recipe.schema import Recipe

__all__ = ["published_rows", "with_published"]


def published_rows(base: LoadedRecipe) -> list[Recipe]:
    """Return the base recipe's file and all its variants, as far as they carry figures, with the base's overrides."""
    if not base.files or base.recipe.smoke:
        return []
    file = str(base.files[0])
    addresses = [file, *(f"{file}@{variant}" for variant in base.variants)]
    return [row for address in addresses if (row := load_recipe(address, base.overrides).recipe).published]


def with_published(recipe: Recipe, rows: Sequence[Recipe]) -> Recipe:
    """Return a cell's recipe with the figures of the row that it is, whatever its seed, and without any other's."""
    identity = run_id(recipe)
    for row in rows:
        if run_id(row.model_copy(update={"seed": recipe.seed})) == identity:
            return recipe.model_copy(update={"published": row.published, "changed": row.changed})
    return recipe.model_copy(update={"published": (), "changed": ()})
