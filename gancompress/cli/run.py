"""``gancompress run`` and ``gancompress train``: a recipe in, a run directory out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gancompress.cli.app import RecipeArgument, SetOption, SmokeOption

if TYPE_CHECKING:
    from gancompress.api.outcomes import RunOutcome

__all__ = ["run", "train"]

OutOption = Annotated[Path, typer.Option("--out", help="Directory that holds run directories.")]
PlayerOption = Annotated[
    bool,
    typer.Option("--player/--no-player", help="Put the generator into the report, where it runs; not of smoke runs."),
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Show the run in tensorboard, wandb (files for `wandb sync`) or wandb:online as well; repeatable.",
    ),
]


def run(
    recipe: RecipeArgument,
    set_: SetOption = None,
    out: OutOption = Path("runs"),
    smoke: SmokeOption = False,
    player: PlayerOption = True,
    track: TrackOption = None,
) -> None:
    """Train, evaluate and report a recipe; the same command resumes.

    Example: gancompress run quickstart --set seed=1
    """
    from gancompress import api

    _show(api.run(recipe, set_ or [], out=out, smoke=smoke, player=player, track=track or []))


def train(
    recipe: RecipeArgument,
    set_: SetOption = None,
    out: OutOption = Path("runs"),
    smoke: SmokeOption = False,
    player: PlayerOption = True,
    track: TrackOption = None,
) -> None:
    """Train a recipe without evaluating it; `gancompress run` evaluates the result later.

    Example: gancompress train quickstart --set training.steps=500
    """
    from gancompress import api

    _show(api.train(recipe, set_ or [], out=out, smoke=smoke, player=player, track=track or []))


def _show(outcome: RunOutcome) -> None:
    from gancompress.api.commands import is_main_process
    from gancompress.api.outcomes import print_outcome

    if is_main_process():
        print_outcome(outcome)
        typer.echo(f"report: {outcome.report}")
