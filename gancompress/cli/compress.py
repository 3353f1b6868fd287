"""``gancompress compress``: a trained generator made sparse, evaluated before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gancompress.cli.app import SetOption

__all__ = ["compress"]


def compress(
    run: Annotated[
        Path, typer.Argument(help="A finished run, or a generator's weights as .safetensors.", metavar="RUN")
    ],
    method: Annotated[str, typer.Option("--method", help="Sparsity method: magnitude, gmp, snip, …")] = "magnitude",
    density: Annotated[float, typer.Option("--density", help="Share of the generator's weights to keep.")] = 0.1,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Fine-tuning steps. [default: half of the run's]")
    ] = None,
    step: Annotated[
        str, typer.Option("--step", metavar="STEP", help="Checkpoint of the run: 'last', 'best' or a step.")
    ] = "last",
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="For a .safetensors file: recipe with its data and model.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="For a .safetensors file: backbone in place of the recipe's.")
    ] = None,
    set_: SetOption = None,
    out: Annotated[Path, typer.Option("--out", help="Directory that holds run directories.")] = Path("runs"),
) -> None:
    """Prune a trained generator, fine-tune it, and say what that cost; the same command resumes.

    The result is an ordinary run: sample it, evaluate it, export it, compress it again.

    Example: gancompress compress runs/quickstart-0a1b2c3d4e --density 0.1
    """
    from gancompress.api.commands import compress as start
    from gancompress.api.outcomes import print_outcome
    from gancompress.cli.evaluate import note_other_protocols

    outcome = start(run, density, method, set_ or (), steps=steps, step=step, recipe=recipe, backbone=backbone, out=out)
    print_outcome(outcome)
    typer.echo(f"report: {outcome.run.report}")
    note_other_protocols(run, step)
