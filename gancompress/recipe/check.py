"""A composed document checked against the schema, and against the components that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from gancompress.components.registry import EXTRACTORS, METRICS
from gancompress.errors import ComponentError
from gancompress.recipe.components import COMPONENT_REGISTRIES, config_type, narrow_component, narrow_recipe
from gancompress.recipe.document import Document, KeyPath
from gancompress.recipe.mistakes import InvalidRecipeError, Mistake, coerced, mistakes_of
from gancompress.recipe.schema import Recipe, owner_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gancompress.recipe.components import NarrowedComponent

__all__ = ["check_document"]


def check_document(document: Document) -> Recipe:
    """Return the recipe that a composed document is; only the components that it names are imported.

    Raises:
        InvalidRecipeError: every mistake found.
    """
    mistakes: list[Mistake] = []
    for path in COMPONENT_REGISTRIES:
        field = owner_of(path).model_fields[str(path[-1])]
        if not field.is_required():
            document = _with_default(document, path, field.default.name)
    model = narrow_recipe(*(_narrow(document, path, mistakes) for path in COMPONENT_REGISTRIES))
    try:
        recipe = model.model_validate(document.data)
    except ValidationError as error:
        raise InvalidRecipeError([*mistakes, *mistakes_of(error, document, model)]) from None
    mistakes += [*coerced(document.data, recipe, document), *_unknown_names(recipe, document)]
    if mistakes:
        raise InvalidRecipeError(mistakes)
    return recipe


def _with_default(document: Document, path: KeyPath, name: str) -> Document:
    """Name the default component where the recipe names none, so that its other keys can be checked."""
    above, key = map(str, path)
    parent = document.data.get(above, {})
    node = parent.get(key, {}) if isinstance(parent, dict) else None
    if not isinstance(node, dict) or "name" in node:
        return document
    return Document({**document.data, above: {**parent, key: {"name": name, **node}}}, document.marks)


def _narrow(document: Document, path: KeyPath, mistakes: list[Mistake]) -> type[NarrowedComponent] | None:
    """Return the narrowed model of the node at ``path``; ``None`` leaves a malformed node to the open schema."""
    node = document.value(path)
    name = node.get("name") if isinstance(node, dict) else None
    if not isinstance(name, str):
        return None
    registry = COMPONENT_REGISTRIES[path]
    try:
        return narrow_component(registry.kind, name, config_type(registry, name))
    except ComponentError as error:
        at = (*path, "name")
        mistakes.append(Mistake(document.mark(at), at, error.message, "component"))
        return None


def _unknown_names(recipe: Recipe, document: Document) -> Iterator[Mistake]:
    """Check the names that evaluation imports later, without importing anything now."""
    extractor = recipe.evaluation.extractor.partition(":")[0]
    named = [(("evaluation", "metrics", index), METRICS, name) for index, name in enumerate(recipe.evaluation.metrics)]
    for path, registry, name in [*named, (("evaluation", "extractor"), EXTRACTORS, extractor)]:
        others = ("auto",) if registry is EXTRACTORS else ()
        if name not in others:
            try:
                registry.entry(name, others)
            except ComponentError as error:
                yield Mistake(document.mark(path), path, error.message, "component")
