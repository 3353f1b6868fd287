"""Documents checked: component nodes narrowed to the component they name, so that its ``Config`` checks their keys.

``sparsity.method: {name: dst, every: 50}`` becomes an instance of a model that is both a
:class:`~gancompress.recipe.schema.Component` and the ``Config`` of DST. Only the components that a recipe names are
imported.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from gancompress.components.registry import BACKBONES, DATASETS, EXTRACTORS, LOSSES, METHODS, METRICS, PATTERNS, TASKS
from gancompress.errors import ComponentError
from gancompress.recipe.composition import COMPONENT_PATHS
from gancompress.recipe.document import Document
from gancompress.recipe.mistakes import InvalidRecipeError, Mistake, coerced, mistakes_of
from gancompress.recipe.schema import SHORT_PATTERNS, Component, Recipe, owner_of, short_form

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gancompress.components.registry import Registry
    from gancompress.recipe.document import KeyPath

__all__ = [
    "COMPONENT_REGISTRIES",
    "NarrowedComponent",
    "check_document",
    "component_config",
    "config_type",
    "narrow_component",
    "narrow_recipe",
]

#: the registry that each component node of a recipe takes its name from
COMPONENT_REGISTRIES: Final[Mapping[KeyPath, Registry[Any]]] = dict(
    zip(COMPONENT_PATHS, (DATASETS, BACKBONES, LOSSES, METHODS, PATTERNS, TASKS, BACKBONES), strict=True)
)


class NarrowedComponent(Component):
    """A component node whose other keys were checked against the component's ``Config``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    #: the component's own ``Config``
    config_type: ClassVar[type[BaseModel]] = BaseModel


def component_config(node: Component) -> BaseModel:
    """Return the ``Config`` that a component is constructed with, which is ``node`` without its name.

    Args:
        node: a component node of a recipe from :func:`~gancompress.recipe.load.load_recipe` or
            :func:`~gancompress.recipe.load.parse_recipe`.

    Raises:
        TypeError: the node was never checked against a component.
    """
    if not isinstance(node, NarrowedComponent):
        raise TypeError(f"component {node.name!r} was not checked yet: make recipes with load_recipe or parse_recipe")
    config = type(node).config_type
    values = {name: getattr(node, name) for name in config.model_fields}
    # The values were validated by the very validators of ``config``; a second pass could only change them.
    return config.model_construct(_fields_set=set(node.model_fields_set) - {"name"}, **values)


def config_type(registry: Registry[Any], name: str) -> type[BaseModel]:
    """Import the component ``name`` and return its ``Config``.

    Raises:
        ComponentError: it is unknown, cannot be imported, or its ``Config`` is no pydantic model.
    """
    component = registry.get(name)
    config = getattr(component, "Config", None)
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        raise ComponentError(f"{registry.kind} {name!r} has no Config: it needs one that is a pydantic model")
    if "name" in config.model_fields:
        raise ComponentError(f"{registry.kind} {name!r} has a setting called 'name', which recipes need for themselves")
    return config


@functools.lru_cache(maxsize=256)
def narrow_component(kind: str, name: str, config: type[BaseModel]) -> type[NarrowedComponent]:
    """Return the model of a component node that names one component.

    The same arguments give the same class, so two recipes that say the same are equal.

    Args:
        kind: kind of the component, for its description.
        name: the only name that the node may have.
        config: the component's ``Config``; its fields and validators are inherited.
    """
    # mypy cannot follow a Literal made at run time
    fields: dict[str, Any] = {"name": (Literal[name], Field(description=f"registered name of the {kind}"))}
    narrowed = create_model(
        f"{config.__module__}.{config.__qualname__}".replace(".", "_"),
        __base__=(config, NarrowedComponent),
        __doc__=config.__doc__,
        **fields,
    )
    node = cast("type[NarrowedComponent]", narrowed)
    node.config_type = config
    return node


@functools.lru_cache(maxsize=256)
def narrow_recipe(*nodes: Any) -> type[Recipe]:
    """Return the recipe's model with its component nodes narrowed.

    Args:
        nodes: the model of every component node, in the order of :data:`COMPONENT_REGISTRIES`; ``None`` leaves it open.
    """
    fields: dict[str, Any] = {}
    annotated: Any = Annotated  # mypy takes a subscript of the form itself for a type it should know
    for path, node in zip(COMPONENT_REGISTRIES, nodes, strict=True):
        if node is None:
            continue
        above, *below = map(str, path)
        owner = owner_of(path)
        field = annotated[node, BeforeValidator(short_form(path))]
        if below:
            # another component beside it may have narrowed the owner already
            base, _ = fields.get(above, (owner, None))
            inner: dict[str, Any] = {below[0]: (field, _described(owner, below[0]))}
            field = create_model(owner.__name__, __base__=base, **inner)
        fields[above] = (field, _described(Recipe, above))
    return create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **fields)


def _described(owner: type[BaseModel], field: str) -> Any:
    """Return a required field with the description of the one it narrows: the loader fills in default components."""
    return Field(description=owner.model_fields[field].description)


def check_document(document: Document) -> Recipe:
    """Return the recipe that a composed document is; only the components that it names are imported.

    Raises:
        InvalidRecipeError: every mistake found.
    """
    mistakes: list[Mistake] = []
    for path in COMPONENT_REGISTRIES:
        field = owner_of(path).model_fields[str(path[-1])]
        if isinstance(field.default, Component):
            document = _with_default(document, path, field.default.name)
    model = narrow_recipe(*(_narrow(document, path, mistakes) for path in COMPONENT_REGISTRIES))
    try:
        recipe = model.model_validate(document.data)
    except ValidationError as error:
        raise InvalidRecipeError([*mistakes, *mistakes_of(error, document, model)]) from None
    mistakes += [
        *coerced(document.data, recipe, document, model),
        *_unknown_names(recipe, document),
        *_overridden(recipe, document),
    ]
    if mistakes:
        raise InvalidRecipeError(mistakes)
    return recipe


def _with_default(document: Document, path: KeyPath, name: str) -> Document:
    """Name the default component where the recipe names none, so that its other keys can be checked."""
    *above, key = map(str, path)
    parent = document.data.get(above[0], {}) if above else document.data
    node = parent.get(key, {}) if isinstance(parent, dict) else None
    if not isinstance(node, dict) or "name" in node:
        return document
    named = {**parent, key: {"name": name, **node}}
    return Document({**document.data, above[0]: named} if above else named, document.marks)


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
        short = SHORT_PATTERNS if registry is PATTERNS and "known: " in error.message else ""
        mistakes.append(Mistake(document.mark(at), at, error.message + short, "component"))
        return None


def _overridden(recipe: Recipe, document: Document) -> Iterator[Mistake]:
    """Refuse an override that would change nothing, because the recipe says the same of each network by itself."""
    path, sparsity = ("sparsity", "density"), recipe.sparsity
    mark = document.marks.get(path)
    own = [f"sparsity.{role}.density" for role in ("generator", "discriminator") if getattr(sparsity, role).density]
    if sparsity.density is not None and mark is not None and mark.source.startswith("--set ") and len(own) == 2:
        message = f"changes nothing: the recipe gives {own[0]} and {own[1]}; set these, or set them to null first"
        yield Mistake(mark, path, message)


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
