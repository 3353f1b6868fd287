"""What a recipe changes of the row of a table that its published figures answer to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from gancompress.recipe.identity import minimal
from gancompress.recipe.published import ChangedSetting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.recipe.schema import Recipe

__all__ = ["changed_settings"]

#: settings that change no number worth comparing, or that the protocol speaks for
_BESIDE: Final = ("name", "description", "seed", "smoke", "published", "changed", "evaluation")
_BESIDE_KEYS: Final = frozenset(
    {
        "data.path",
        "data.download",
        "data.memory_limit",
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


def changed_settings(row: Recipe, recipe: Recipe) -> tuple[ChangedSetting, ...]:
    """Return what ``recipe`` changes of the row that its published figures answer to.

    A recipe that was already changed keeps what it knows of the row.
    """
    there, here = _flat(minimal(row)), _flat(minimal(recipe))
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


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a recipe's settings by dotted key; lists are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        if not prefix and key in _BESIDE:
            continue
        path = f"{prefix}{key}"
        leaves |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return leaves
