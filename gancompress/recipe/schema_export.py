"""The JSON Schema of recipes, for editors that complete and check YAML while it is written.

Put ``# yaml-language-server: $schema=recipe.schema.json`` on the first line of a recipe.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any, Union

from pydantic import BaseModel, Field, create_model

from gancompress.components.registry import METRICS
from gancompress.recipe.components import COMPONENT_REGISTRIES, config_type, narrow_component
from gancompress.recipe.layers import COMPONENT_PATHS
from gancompress.recipe.schema import ObjectiveConfig, Recipe, SparsityConfig

__all__ = ["recipe_schema"]


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe file, its component nodes as unions told apart by ``name``.

    Imports every built-in component. A component may be given by its bare name, and a recipe with ``extends`` may
    leave anything out.
    """
    unions = {path: _union(path) for path in COMPONENT_PATHS}
    objective = create_model("ObjectiveConfig", __base__=ObjectiveConfig, loss=_field(unions, ("objective", "loss")))
    sparsity = create_model("SparsityConfig", __base__=SparsityConfig, method=_field(unions, ("sparsity", "method")))
    model = create_model(
        "Recipe",
        __base__=Recipe,
        __doc__=Recipe.__doc__,
        data=_field(unions, ("data",)),
        model=_field(unions, ("model",)),
        objective=(objective, Field(None, validate_default=False, description=_description(("objective",)))),
        sparsity=(sparsity, Field(None, validate_default=False, description=_description(("sparsity",)))),
    )
    schema = model.model_json_schema(mode="validation")
    definitions = schema["$defs"]
    _allow_bare_names(schema, definitions)
    _require_unless_extended(schema, definitions)
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "recipe that this one changes: a path relative to this file, or the name of a shipped recipe",
    }
    schema["properties"]["variants"] = {
        "type": "object",
        "description": "rows of a table: names, with $axis in them, to settings laid over the recipe's own",
        "additionalProperties": {
            "type": "object",
            "properties": {
                "axes": {
                    "type": "object",
                    "description": "values that every $axis of the name and the settings takes",
                    "additionalProperties": {"type": "array", "minItems": 1},
                }
            },
        },
    }
    names = definitions["EvaluationConfig"]["properties"]["metrics"]["items"]
    names["examples"] = METRICS.names()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "gancompress recipe"
    return schema


def _union(path: tuple[str | int, ...]) -> Any:
    registry = COMPONENT_REGISTRIES[path]
    models = [narrow_component(registry.kind, name, config_type(registry, name)) for name in registry.builtin_names()]
    if len(models) == 1:
        return models[0]
    return Annotated[Union[tuple(models)], Field(discriminator="name")]  # noqa: UP007 - built at run time


def _field(unions: dict[tuple[str | int, ...], Any], path: tuple[str | int, ...]) -> tuple[Any, Any]:
    description = _description(path)
    if len(path) == 1:
        return unions[path], Field(description=description)
    return unions[path], Field(None, validate_default=False, description=description)


def _description(path: tuple[str | int, ...]) -> str | None:
    owners: dict[str, type[BaseModel]] = {"objective": ObjectiveConfig, "sparsity": SparsityConfig}
    owner = owners[str(path[0])] if path[1:] else Recipe
    return owner.model_fields[str(path[-1])].description


def _allow_bare_names(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    owners = {1: schema, 2: None}
    for path in COMPONENT_PATHS:
        owner = owners[len(path)] or definitions[f"{str(path[0]).capitalize()}Config"]
        key = str(path[-1])
        written = owner["properties"][key]
        written.pop("default", None)
        description = written.pop("description", "")
        written.pop("title", None)
        names = COMPONENT_REGISTRIES[path].builtin_names()
        bare = {"enum": names, "description": "the component with its defaults"}
        owner["properties"][key] = {"description": description, "anyOf": [bare, copy.deepcopy(written)]}
    for key in ("objective", "sparsity"):
        schema["properties"][key].pop("default", None)


def _require_unless_extended(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Move what is required behind "unless there is ``extends``", which may have said it already."""
    required: dict[str, Any] = {"required": schema.pop("required", [])}
    for key, node in schema["properties"].items():
        reference = node.get("$ref", "").rpartition("/")[2]
        below = definitions.get(reference, {}).pop("required", None)
        if below:
            required.setdefault("properties", {})[key] = {"required": below}
    schema["if"] = {"not": {"required": ["extends"]}}
    schema["then"] = required
