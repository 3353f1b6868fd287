"""``gancompress run`` and ``gancompress train``: a recipe in, a run directory out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gancompress.cli.app import RecipeArgument, SetOption, SmokeOption

__all__ = ["run", "train"]

OutOption = Annotated[Path, typer.Option("--out", help="Directory that holds run directories.")]


def run(
    recipe: RecipeArgument, set_: SetOption = None, out: OutOption = Path("runs"), smoke: SmokeOption = False
) -> None:
    """Train, evaluate and report a recipe; the same command resumes.

    Example: gancompress run quickstart --set seed=1
    """
    _execute(recipe, set_ or [], out, smoke, evaluates=True)


def train(
    recipe: RecipeArgument, set_: SetOption = None, out: OutOption = Path("runs"), smoke: SmokeOption = False
) -> None:
    """Train a recipe without evaluating it; `gancompress run` evaluates the result later.

    Example: gancompress train quickstart --set training.steps=500
    """
    _execute(recipe, set_ or [], out, smoke, evaluates=False)


def _execute(recipe: str, overrides: list[str], out: Path, smoke: bool, *, evaluates: bool) -> None:
    from gancompress.api.commands import is_main_process
    from gancompress.api.commands import run as start
    from gancompress.api.outcomes import print_outcome

    outcome = start(recipe, overrides, out=out, evaluate=evaluates, smoke=smoke)
    if is_main_process():
        print_outcome(outcome)
        typer.echo(f"report: {outcome.report}")
