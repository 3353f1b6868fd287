"""Which run a recipe is: a short hash of what it says beyond the defaults; and what it changes of a published row.

The hash is of meaning, not of text: the order of keys, comments, ``extends``, variants, quoting and writing a default
out do not change it; neither do the name, the description and what was published. A setting added to the schema later
leaves the ids of old recipes as they are.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from gancompress.recipe.document import dump_yaml, flat
from gancompress.recipe.schema import ChangedSetting, Component, ObjectiveConfig, Recipe, SparsityConfig

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["LOCATED_NODES", "changed_settings", "directory_name", "minimal", "resolved_yaml", "run_id"]

#: nodes whose components may take weights from elsewhere
LOCATED_NODES: Final = ("model", "discriminator")
#: what a recipe says about itself and about others, not about the run
_WORDS: Final = ("name", "description", "published", "changed")
_ID_BYTES: Final = 5
#: settings that change no number worth comparing, or that the protocol speaks for
_BESIDE: Final = ("name", "description", "seed", "smoke", "published", "changed", "evaluation")
_BESIDE_KEYS: Final = frozenset(
    {
        "data.path",
        "data.download",
        "data.memory_limit",
        *(f"{node}.{key}" for node in LOCATED_NODES for key in ("weights", "hash")),
        "sparsity.check_every",
        "training.device",
        "training.threads",
        "training.kernels",
        "training.channels_last",
        "training.log_every",
        "training.sample_every",
        "training.checkpoint_every",
        "training.keep_checkpoints",
    }
)
_ABSENT: Final = object()


def run_id(recipe: Recipe) -> str:
    """Return 10 hexadecimal digits that depend on every setting that is not at its default, and on the seed."""
    settings = {key: value for key, value in minimal(recipe).items() if key not in _WORDS}
    # which weights, not where they lie: that is their hash
    for key, node, where in (
        ("init_from", recipe.training.init_from, "path"),
        ("distillation", recipe.training.distillation, "teacher"),
    ):
        if node is not None and node.hash is not None:
            here = node.model_dump(mode="json", exclude={where}, exclude_defaults=True)
            settings["training"] = {**settings["training"], key: here}
    for key in LOCATED_NODES:
        component: Any = getattr(recipe, key)
        if getattr(component, "takes_weights", False) and component.hash is not None:
            settings[key] = {name: value for name, value in settings[key].items() if name != "weights"}
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
    for name, field in _schema_type(model).model_fields.items():
        value, default = getattr(model, name), _default(field)
        if isinstance(value, Component):
            below = _minimal(value, dumped[name])
            if not (isinstance(default, Component) and below == {"name": default.name}):
                kept[name] = below
        elif isinstance(value, BaseModel):
            below = _minimal(value, dumped[name])
            # Compared with the default within *this* model, which may differ from the defaults of its own type.
            if not (_schema_type(default) is _schema_type(value) and _minimal(default, _plain(default)) == below):
                kept[name] = below
        elif value != default:
            kept[name] = dumped[name]
    return kept


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _schema_type(model: Any) -> Any:
    """Return the class that declares the defaults: narrowed classes of the schema require what they narrow."""
    return next((base for base in (Recipe, ObjectiveConfig, SparsityConfig) if isinstance(model, base)), type(model))


def _default(field: FieldInfo) -> Any:
    if field.is_required():
        return _ABSENT
    try:
        return field.get_default(call_default_factory=True, validated_data={})
    except Exception:  # a factory that needs the other values has no default of its own
        return _ABSENT


def resolved_yaml(recipe: Recipe, *, defaults: bool = True) -> str:
    """Return the recipe as YAML with nothing left to resolve; it loads back to the same id, without defaults too."""
    return dump_yaml(recipe.model_dump(mode="json") if defaults else minimal(recipe))


def changed_settings(row: Recipe, recipe: Recipe) -> tuple[ChangedSetting, ...]:
    """Return what ``recipe`` changes of the row that its published figures answer to.

    A recipe that was already changed keeps what it knows of the row.
    """
    there, here = (flat({k: v for k, v in minimal(one).items() if k not in _BESIDE}) for one in (row, recipe))
    changed = {key: _text(there.get(key)) for key in (*there, *here) if there.get(key) != here.get(key)}
    known = {**changed, **{one.key: one.published for one in row.changed}}
    return tuple(
        ChangedSetting(key=key, published=text)
        for key, text in known.items()
        if key not in _BESIDE_KEYS and text != _text(here.get(key))
    )


def _text(value: Any) -> str:
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value)
