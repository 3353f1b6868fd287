"""``gancompress sample``: images from a trained generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gancompress.cli.evaluate import StepOption, note_other_protocols

__all__ = ["sample"]


def sample(
    run: Annotated[Path, typer.Argument(help="A run directory, or a generator that export wrote.", metavar="RUN|FILE")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="A .png for one grid; a directory or a .zip for single images, a dataset. "
            "[default: samples.png, or the directory samples-class-N with --class N]",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Images; a grid fills its last row.")] = 100,
    label: Annotated[int | None, typer.Option("--class", min=0, help="Make this class only.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the latents.")] = 0,
    step: StepOption = "last",
    truncation: Annotated[
        float,
        typer.Option(
            "--truncation", min=0, max=2, help="Draw styles towards their average: 1 leaves them, 0 is the average."
        ),
    ] = 1.0,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            help="A folder of images, for a generator that makes images of images. [default: those that the run holds "
            "out]",
        ),
    ] = None,
) -> None:
    """Make images with the averaged generator of a run, or with the one of a file.

    Example: gancompress sample runs/quickstart-0a1b2c3d4e --out digits.png
    """
    from gancompress import api

    made = api.sample(run, out, count=count, label=label, seed=seed, step=step, truncation=truncation, inputs=inputs)
    typer.echo(f"written: {made}")
    if not run.is_file():
        note_other_protocols(run, step)
