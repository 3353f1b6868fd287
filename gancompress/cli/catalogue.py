"""``gancompress ls`` and ``gancompress cp``: the shipped recipes and the runs that are here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gancompress.cli.app import print_table
from gancompress.errors import RecipeError

if TYPE_CHECKING:
    from gancompress.recipe.catalogue import ShippedRecipe
    from gancompress.runs.record import RunRecord

__all__ = ["cp", "ls"]


def ls(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe, to list its variants; or a directory, to list its runs.", metavar="[WHAT]"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Directory that holds run directories.")] = Path("runs"),
) -> None:
    """List the shipped recipes, and the runs in this directory; or the variants of a recipe.

    A published figure stands beside the recipe that answers to it; `gancompress show` has its source and protocol.

    Example: gancompress ls stugan_biggan
    """
    from gancompress import api

    if recipe is not None and Path(recipe).is_dir() and not (Path(recipe) / "recipe.yaml").exists():
        runs = api.list_runs(recipe)
        if not runs:
            raise RecipeError("there are no runs in this directory", where=recipe)
        _print_runs(recipe, runs)
        return
    if recipe is not None:
        variants = api.variant_recipes(recipe)
        if not variants:
            raise RecipeError(f"{recipe} has no variants; see it with: gancompress show {recipe}")
        print_table(f"Variants of {recipe}", *_recipe_table(variants), spare=_SPARE)
        return
    recipes = api.shipped_recipes()
    print_table("Recipes", *_recipe_table(recipes), spare=_SPARE)
    if any(one.variants for one in recipes):
        typer.echo("a recipe's variants: gancompress ls RECIPE")
    runs = api.list_runs(out)
    if runs:
        typer.echo()
        _print_runs(out, runs)


def _print_runs(root: str | Path, runs: Sequence[RunRecord]) -> None:
    header = ("run", "state", "step", "best", "note")
    print_table(f"Runs in {root}", *_used(header, [_run_row(run) for run in runs]), spare=("step",))


#: what a narrow terminal leaves out of a list of recipes, in this order
_SPARE = ("steps", "data", "model", "method", "variants")


def cp(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe.", metavar="NAME")],
    destination: Annotated[
        Path | None, typer.Argument(help="File or directory to copy to; default: here.", metavar="[DEST]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite DEST.")] = False,
) -> None:
    """Copy a shipped recipe, to edit it. Nothing is overwritten without --force.

    Of a variant the copy says in full what it is, since it stands alone.

    Example: gancompress cp quickstart my_recipe.yaml
    """
    from gancompress import api
    from gancompress.components.plugins import command_line

    target = api.copy_recipe(name, destination, force=force)
    typer.echo(f"{target}: copied from {name}; run it with: {command_line('run', target)}")


def _recipe_table(recipes: Sequence[ShippedRecipe]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return heading and rows."""
    header = ("recipe", "data", "model", "method", "steps", "published", "variants", "what it is")
    rows = [
        (
            one.name,
            one.data,
            one.model,
            one.method,
            "" if one.steps is None else f"{one.steps:,}",
            one.published,
            str(one.variants or ""),
            one.description,
        )
        for one in recipes
    ]
    return _used(header, rows)


def _used(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return heading and rows without the columns that none has anything for."""
    used = [index for index in range(len(header)) if any(row[index] for row in rows)]
    return tuple(header[i] for i in used), [tuple(row[i] for i in used) for row in rows]


def _run_row(run: RunRecord) -> tuple[str, str, str, str, str]:
    """Return one run as its own files tell it."""
    from gancompress.report.words import plain_reason

    best = ""
    if run.noted_best is not None:
        metric = run.noted_best[1][0]
        best = f"{metric.label} {metric.value:.4g}" if metric.value is not None else ""
    smoke = run.noted_smoke or "-smoke-" in run.path.name
    damaged = "metrics.json is damaged; run the recipe again to rebuild it" if run.notices else ""
    others = run.noted_of_other_protocol
    apart = f"best leaves out {others} evaluation{'s' * (others != 1)} under another protocol" if others else ""
    note = "; ".join(filter(None, (plain_reason(run.status.reason or damaged), apart)))
    return run.path.name, f"{run.status.state}{', smoke' if smoke else ''}", f"{run.last_step:,}", best, note
