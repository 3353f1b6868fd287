"""The JSON Schema of recipes, for editors that complete and check YAML while it is written.

Put ``# yaml-language-server: $schema=recipe.schema.json`` on the first line of a recipe.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field

from gancompress.components.registry import METRICS
from gancompress.recipe.components import COMPONENT_REGISTRIES, config_type, narrow_component, narrow_recipe
from gancompress.recipe.schema import Recipe, owner_of

if TYPE_CHECKING:
    from gancompress.recipe.document import KeyPath

__all__ = ["recipe_schema"]


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe file, its component nodes as unions told apart by ``name``.

    Imports every built-in component. A component may be given by its bare name, and a recipe with ``extends`` may
    leave anything out.
    """
    model = narrow_recipe(*(_union(path) for path in COMPONENT_REGISTRIES))
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


def _union(path: KeyPath) -> Any:
    registry = COMPONENT_REGISTRIES[path]
    models = [narrow_component(registry.kind, name, config_type(registry, name)) for name in registry.builtin_names()]
    if len(models) == 1:
        return models[0]
    return Annotated[Union[tuple(models)], Field(discriminator="name")]  # noqa: UP007 - built at run time


def _allow_bare_names(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    for path, registry in COMPONENT_REGISTRIES.items():
        key = str(path[-1])
        owner = definitions[f"{str(path[0]).capitalize()}Config"] if path[1:] else schema
        written = owner["properties"][key]
        description = written.pop("description", "")
        written.pop("title", None)
        bare = {"enum": registry.builtin_names(), "description": "the component with its defaults"}
        short = [{"type": "string", "pattern": r"^\d+[x:]\d+$"}] if key == "pattern" else []
        model = owner_of(path)
        nothing = [{"type": "null"}] if _has_default(model, key) and model.model_fields[key].default is None else []
        forms = [bare, *short, copy.deepcopy(written), *nothing]
        owner["properties"][key] = {"description": description, "anyOf": forms}


def _require_unless_extended(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Move what is required behind "unless there is ``extends``", which may have said it already."""
    # the loader fills in what narrowing had to require
    required: dict[str, Any] = {"required": [k for k in schema.pop("required") if not _has_default(Recipe, k)]}
    for key, node in schema["properties"].items():
        reference = node.get("$ref", "").rpartition("/")[2]
        below = definitions.get(reference, {}).pop("required", [])
        below = [name for name in below if not _has_default(Recipe.model_fields[key].annotation, name)]
        if below:
            required.setdefault("properties", {})[key] = {"required": below}
    schema["if"] = {"not": {"required": ["extends"]}}
    schema["then"] = required


def _has_default(owner: Any, name: str) -> bool:
    return not owner.model_fields[name].is_required()
