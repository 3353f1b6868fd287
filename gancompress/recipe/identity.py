"""Which run a recipe is: a short hash of what it says beyond the defaults, and the recipe written out.

The hash is of meaning, not of text: the order of keys, comments, ``extends``, quoting and writing a default out do not
change it; neither do the name and the description. A setting added to the schema later leaves the ids of old recipes
as they are.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from pydantic import BaseModel

from gancompress.recipe.document import dump_yaml
from gancompress.recipe.schema import Component, Recipe

__all__ = ["directory_name", "minimal", "resolved_yaml", "run_id"]

#: what a recipe says about itself, not about the run
_WORDS: Final = ("name", "description")
_ID_BYTES: Final = 5
_ABSENT: Final = object()


def run_id(recipe: Recipe) -> str:
    """Return 10 hexadecimal digits that depend on every setting that is not at its default, and on the seed."""
    settings = {key: value for key, value in minimal(recipe).items() if key not in _WORDS}
    # The seed is hashed even at its default: two seeds are two runs.
    text = json.dumps({**settings, "seed": recipe.seed}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=_ID_BYTES, person=b"gancompress-run").hexdigest()


def directory_name(recipe: Recipe) -> str:
    """Return the name of the recipe's run directory, ``<name>-<id>``."""
    return f"{recipe.name}-{run_id(recipe)}"


def minimal(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that are not at their defaults, as plain values; loading them gives the same recipe."""
    return _minimal(recipe, recipe.model_dump(mode="json"))


def _minimal(model: BaseModel, dumped: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value, plain = getattr(model, name), dumped[name]
        if not isinstance(value, BaseModel):
            if name == "name" and isinstance(model, Component):
                kept[name] = plain
            elif field.is_required() or value != _default(field):
                kept[name] = plain
        elif isinstance(value, Component):
            below = _minimal(value, plain)
            if below != {"name": _default_component(model, name)}:
                kept[name] = below
        else:
            below = _minimal(value, plain)
            # A model's default within its parent may differ from the model's own defaults: then it is written out
            # even where nothing in it differs from its own.
            if below or not (field.is_required() or _same(_default(field), value)):
                kept[name] = below
    return kept


def _default(field: Any) -> Any:
    try:
        return field.get_default(call_default_factory=True, validated_data={})
    except Exception:  # a factory that needs the other values has no default of its own
        return _ABSENT


def _default_component(owner: BaseModel, field: str) -> str | None:
    """Return the component that a recipe gets when it names none; narrowed models keep it in their base."""
    for base in type(owner).__mro__:
        declared = getattr(base, "model_fields", {}).get(field)
        if declared is not None and isinstance(declared.default, Component):
            return declared.default.name
    return None


def _same(default: Any, value: BaseModel) -> bool:
    """Whether two models hold the same settings; a narrowed model is another class than its base."""
    return isinstance(default, BaseModel) and default.model_dump(mode="json") == value.model_dump(mode="json")


def resolved_yaml(recipe: Recipe, *, defaults: bool = True) -> str:
    """Return the recipe as YAML with nothing left to resolve; it loads back to the same id.

    Args:
        recipe: the recipe.
        defaults: write the defaults out too.
    """
    return dump_yaml(recipe.model_dump(mode="json") if defaults else minimal(recipe))
