"""What ``gancompress ls`` shows of the recipes that come with gancompress and its plugins."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gancompress.errors import RecipeError
from gancompress.recipe import shipped
from gancompress.recipe.composition import compose
from gancompress.recipe.document import Document
from gancompress.recipe.schema import PublishedFigure

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ShippedRecipe", "shipped_recipes", "variant_recipes"]


@dataclasses.dataclass(frozen=True)
class ShippedRecipe:
    """One line of ``gancompress ls``, read without validating the recipe.

    Attributes:
        name: what ``gancompress run`` and ``gancompress cp`` take; a variant's is ``file@variant``.
        path: the file.
        description: its own sentence about itself.
        data: name of the dataset.
        model: name of the backbone.
        method: name of the sparsity method.
        steps: training steps, ``None`` when not a number.
        published: the figures that were published about it, as text; empty without one.
        variants: how many variants it has.
    """

    name: str
    path: Path
    description: str
    data: str
    model: str
    method: str
    steps: int | None
    published: str = ""
    variants: int = 0


def shipped_recipes() -> list[ShippedRecipe]:
    """Return what ``gancompress ls`` shows; a recipe that cannot be read says so in its description."""
    return [_shown(path, name, path) for name, path in shipped.files().items()]


def variant_recipes(path_or_name: str | Path) -> list[ShippedRecipe]:
    """Return a recipe's variants as ``gancompress ls RECIPE`` shows them.

    Raises:
        RecipeError: there is no such recipe, or it cannot be read.
    """
    path, shown = shipped.locate(path_or_name), str(path_or_name).removesuffix("/")
    return [_shown(f"{path}@{name}", f"{shown}@{name}", path) for name in compose(path).variants]


def _shown(address: str | Path, name: str, path: Path) -> ShippedRecipe:
    variants = 0
    try:
        composed = compose(address)
        document, variants = composed.document, len(composed.variants)
    except RecipeError as error:
        document = Document({"description": f"cannot be read: {error}"}, {})
    steps = document.value(("training", "steps"))
    return ShippedRecipe(
        name=name,
        path=path,
        description=str(document.value(("description",)) or ""),
        data=str(document.value(("data", "name")) or "?"),
        model=str(document.value(("model", "name")) or "?"),
        method=str(document.value(("sparsity", "method", "name")) or "dense"),
        steps=steps if isinstance(steps, int) else None,
        published=_figures(document.value(("published",))),
        variants=variants,
    )


def _figures(written: Any) -> str:
    """Return published figures as text; one that does not validate is left to whoever loads the recipe."""
    texts = []
    for item in written if isinstance(written, list) else ():
        with contextlib.suppress(ValidationError):
            figure = PublishedFigure.model_validate(item)
            texts.append(f"{figure.metric} {figure.text}")
    return ", ".join(dict.fromkeys(texts))
