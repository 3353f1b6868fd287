"""What a recipe changes of the row of a table that its published figures answer to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gancompress.recipe.identity import minimal

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


def changed_settings(row: Recipe, recipe: Recipe) -> dict[str, Any]:
    """Return what ``recipe`` changes of the row that its published figures answer to: dotted keys, and values there.

    A recipe that was already changed keeps what it knows of the row.
    """
    there, here = _flat(minimal(row)), _flat(minimal(recipe))
    changed = {key: there.get(key) for key in (*there, *here) if there.get(key) != here.get(key)}
    known = {**changed, **row.changed}
    return {key: value for key, value in known.items() if key not in _BESIDE_KEYS and value != here.get(key)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a recipe's settings by dotted key; lists are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        if not prefix and key in _BESIDE:
            continue
        path = f"{prefix}{key}"
        leaves |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return leaves
