"""``gancompress push``: a trained generator on the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from gancompress.cli.evaluate import RunArgument, StepOption

__all__ = ["push"]


def push(
    run: RunArgument,
    destination: Annotated[
        str, typer.Argument(help="hf:OWNER/NAME on the hub; anything else is a folder.", metavar="DEST")
    ],
    step: StepOption = "last",
    values: Annotated[
        Literal["float32", "bf16", "int8"], typer.Option("--values", help="Of the weights, as in `gancompress export`.")
    ] = "float32",
    license: Annotated[str, typer.Option("--license", help="For the model card: mit, cc-by-4.0, ….")] = "",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository a private one.")] = False,
) -> None:
    """Write a run's generator as a repository of the Hugging Face hub, and upload it.

    It holds the packed generator, its config, a model card with sizes, metrics and their protocol, samples and the
    recipe; gancompress.load("hf:OWNER/NAME") opens it. Log in first: hf auth login.

    Example: gancompress push runs/quickstart-0a1b2c3d4e digits-sparse
    """
    from gancompress import api

    made = api.push(run, destination, step=step, values=values, license=license, private=private)
    typer.echo(f"written: {made.folder} ({', '.join(made.files)}), of step {made.step:,}")
    if not made.evaluated:
        typer.echo(f"note: the card has no metrics, step {made.step:,} was not evaluated", err=True)
    if made.url:
        typer.echo(f"uploaded: {made.url}")
    typer.echo(f'load it with: gancompress.load("{made.address}")')
