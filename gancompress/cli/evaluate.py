"""``gancompress evaluate``: measure a run again, under its own protocol or another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["RunArgument", "StepOption", "evaluate", "note_other_protocols"]

RunArgument = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
StepOption = Annotated[
    str,
    typer.Option("--step", metavar="STEP", help="Checkpoint: 'last', 'best' by the recipe's first metric, or a step."),
]


def evaluate(
    run: RunArgument,
    step: StepOption = "last",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the protocol, e.g. --set samples=50000. Repeatable."),
    ] = None,
) -> None:
    """Measure a trained generator. The protocol is the recipe's unless --set changes it; every number names its own.

    The result is printed and kept in RUN/evaluations/, one file per protocol; the run itself stays as it was.

    Example: gancompress evaluate runs/quickstart-0a1b2c3d4e --set weights=live
    """
    from gancompress import api

    measured = api.evaluate(run, set_ or (), step=step)
    typer.echo(measured)
    typer.echo(f"written: {measured.file}")
    note_other_protocols(run, step)


def note_other_protocols(run: Path, step: str) -> None:
    """Say on stderr when the best step was searched for among a part of the run's evaluations only."""
    from gancompress.runs.record import RunRecord

    others = RunRecord(run).of_other_protocol if step == "best" else 0
    if others:
        some = "1 evaluation is" if others == 1 else f"{others} evaluations are"
        typer.echo(f"note: {some} under another protocol than the last and not compared with it", err=True)
