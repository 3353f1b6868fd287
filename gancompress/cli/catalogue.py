"""``gancompress ls`` and ``gancompress cp``: the shipped recipes and the runs that are here."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gancompress.cli.app import color
from gancompress.errors import RecipeError

if TYPE_CHECKING:
    from gancompress.training.rundir import RunSummary

__all__ = ["cp", "ls"]


def ls(
    out: Annotated[Path, typer.Option("--out", help="Directory that holds run directories.")] = Path("runs"),
) -> None:
    """List the shipped recipes, and the runs in this directory.

    Example: gancompress ls
    """
    from gancompress.recipe.catalogue import shipped_recipes
    from gancompress.training.rundir import list_runs

    recipes = shipped_recipes()
    rows = [
        (r.name, r.data, r.model, r.method, "" if r.steps is None else f"{r.steps:,}", r.description) for r in recipes
    ]
    _table("Recipes", ("recipe", "data", "model", "method", "steps", "what it is"), rows)
    runs = [_run_row(run) for run in list_runs(out)]
    if runs:
        typer.echo()
        _table(f"Runs in {out}", ("run", "state", "step", "best", "note"), runs)


def cp(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe.", metavar="NAME")],
    destination: Annotated[
        Path | None, typer.Argument(help="File or directory to copy to; default: here.", metavar="[DEST]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite DEST.")] = False,
) -> None:
    """Copy a shipped recipe, to edit it. Nothing is overwritten without --force.

    Example: gancompress cp quickstart my_recipe.yaml
    """
    from gancompress.errors import did_you_mean
    from gancompress.recipe.catalogue import find_shipped, shipped_names

    source = find_shipped(name)
    if source is None:
        raise RecipeError(f"no shipped recipe {name!r}{did_you_mean(name, shipped_names())}")
    target = Path(source.name) if destination is None else destination
    if target.is_dir():
        target = target / source.name
    if not target.parent.is_dir():
        raise RecipeError(f"there is no directory {target.parent}", where=str(target))
    text = source.read_text(encoding="utf-8")
    try:
        # "x" refuses an existing file in the same breath as it makes a new one
        with target.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RecipeError("already there; choose another name or use --force", where=str(target)) from None
    typer.echo(f"{target}: copied from {source.name}; run it with: gancompress run {target}")


def _run_row(run: RunSummary) -> tuple[str, str, str, str, str]:
    """Return one run as its own files tell it."""
    from gancompress.report.words import plain_reason

    best = ""
    with contextlib.suppress(KeyError, IndexError, TypeError, ValueError):  # made by another version
        metric = run.metrics["best"]["metrics"][0]
        best = f"{metric['label']} {float(metric['value']):.4g}"
    return run.path.name, run.status.state, f"{run.step:,}", best, plain_reason(run.status.reason or "")


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; without a terminal its lines are never cut, so that other programs can read them."""
    if color():
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for column in header:
            table.add_column(column, justify="right" if column in ("steps", "step") else "left")
        for row in rows:
            table.add_row(*(text.replace("[", r"\[") for text in row))
        Console().print(table)
        return
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    typer.echo(title)
    for row in (header, *rows):
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
