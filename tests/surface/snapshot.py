"""The frozen surface: what people type, write into recipes and import. ``python tests/surface/snapshot.py`` renews it.

Words may change at any time: help texts and descriptions are left out. Names, kinds, defaults and ranges are kept.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "SURFACES", "cli_surface", "python_surface", "recipe_surface", "rendered"]

FOLDER = Path(__file__).resolve().parent


def cli_surface() -> dict[str, Any]:
    """Return every command with its arguments and options."""
    import typer

    from gancompress.cli.main import app

    def tree(command: Any) -> dict[str, Any]:
        found: dict[str, Any] = {
            "parameters": {
                parameter.name: _parameter(parameter) for parameter in command.params if "--help" not in parameter.opts
            }
        }
        if hasattr(command, "commands"):
            found["commands"] = {name: tree(below) for name, below in sorted(command.commands.items())}
        return found

    return tree(typer.main.get_command(app))


def _parameter(parameter: Any) -> dict[str, Any]:
    choices = getattr(getattr(parameter, "type", None), "choices", None)
    found = {
        "kind": parameter.param_type_name,
        "names": [*parameter.opts, *parameter.secondary_opts],
        "required": parameter.required,
        "default": None if parameter.default is None else str(getattr(parameter.default, "value", parameter.default)),
        "multiple": bool(getattr(parameter, "multiple", False)),
        "choices": [str(getattr(choice, "value", choice)) for choice in choices] if choices else None,
    }
    return {key: value for key, value in found.items() if value not in (None, False)}


def recipe_surface() -> dict[str, Any]:
    """Return the JSON Schema of recipes without its words."""
    from gancompress.recipe.schema_export import recipe_schema

    surface: dict[str, Any] = _without_words(recipe_schema())
    return surface


def _without_words(node: Any, *, names: bool = False) -> Any:
    """Drop titles and descriptions; ``names``: the keys of ``node`` are names, and may be called that."""
    if isinstance(node, dict):
        return {
            key: _without_words(value, names=key in ("properties", "$defs") and not names)
            for key, value in node.items()
            if names or key not in ("title", "description", "examples")
        }
    return [_without_words(item) for item in node] if isinstance(node, list) else node


def python_surface() -> dict[str, Any]:
    """Return the public names, and how those that can be called are called."""
    import gancompress

    def kind(value: Any) -> str:
        if inspect.isclass(value):
            return "class"
        if inspect.isfunction(value):
            return f"function{inspect.signature(value)}"
        return type(value).__name__

    return {name: kind(getattr(gancompress, name)) for name in gancompress.__all__}


SURFACES = {"cli.json": cli_surface, "recipe.json": recipe_surface, "python.json": python_surface}


def rendered(surface: dict[str, Any]) -> str:
    """Return a surface as it is kept: one name a line, in order, so that a difference can be read."""
    return json.dumps(surface, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all snapshots and say which changed."""
    for name, make in SURFACES.items():
        path, text = FOLDER / name, rendered(make())
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if text != before:
            path.write_text(text, encoding="utf-8")
            print(f"changed: {path.name}; look at the difference, and write a line into CHANGELOG.md")


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(FOLDER.parents[1]))
    main()
