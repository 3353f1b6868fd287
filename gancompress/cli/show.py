"""``gancompress show``: a recipe with nothing left to resolve, or the JSON Schema of all recipes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gancompress.cli.app import SetOption, SmokeOption
from gancompress.errors import RecipeError

__all__ = ["show"]


def show(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe file, a run directory, or the name of a shipped recipe; @VARIANT chooses a row of it.",
            metavar="RECIPE",
        ),
    ] = None,
    set_: SetOption = None,
    smoke: SmokeOption = False,
    defaults: Annotated[bool, typer.Option("--defaults", help="Write the default settings out too.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of recipes instead, for an editor.")
    ] = False,
) -> None:
    """Show a recipe as it will be run, with what it extends and every --set applied.

    Example: gancompress show quickstart --defaults
    """
    from gancompress import api

    if schema:
        typer.echo(json.dumps(api.recipe_schema(), indent=1, ensure_ascii=False))
    elif recipe is None:
        raise RecipeError("show what? give a recipe, or --schema")
    else:
        typer.echo(api.show_recipe(recipe, set_ or (), smoke=smoke, defaults=defaults), nl=False)
