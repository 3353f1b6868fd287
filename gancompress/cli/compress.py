"""``gancompress compress``: a trained generator made sparse, evaluated before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gancompress.cli.app import SetOption
from gancompress.units import size

__all__ = ["compress"]


def compress(
    run: Annotated[
        Path,
        typer.Argument(
            help="A finished run; a network from elsewhere as .onnx; or a generator's weights as .safetensors.",
            metavar="RUN",
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Sparsity method: magnitude, gmp, snip, …; reconstruct for a network from elsewhere. "
            "[default: magnitude, or reconstruct]",
        ),
    ] = None,
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
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="For a network from elsewhere: a folder of photographs, or a .safetensors of its inputs.",
        ),
    ] = None,
    pattern: Annotated[
        str, typer.Option("--pattern", help="For a network from elsewhere: units that are kept, such as 4x1 or 2:4.")
    ] = "unstructured",
    pixels: Annotated[
        tuple[float, float],
        typer.Option("--pixels", help="For a network from elsewhere: what its images have for black and white."),
    ] = (0.0, 1.0),
    out: Annotated[Path, typer.Option("--out", help="Directory that holds run directories.")] = Path("runs"),
) -> None:
    """Prune a trained generator, fine-tune it, and say what that cost; the same command resumes.

    The result is an ordinary run: sample it, evaluate it, export it, compress it again.

    A network from elsewhere (compress upscaler.onnx --density 0.3 --calibration photos/) is pruned from a few of its
    inputs alone, and written into OUT/NAME-dDENSITY, as a file that gancompress.load() opens.

    Example: gancompress compress runs/quickstart-0a1b2c3d4e --density 0.1
    """
    from gancompress.api.commands import compress as start
    from gancompress.api.outcomes import print_outcome
    from gancompress.cli.evaluate import note_other_protocols

    if run.suffix.lower() == ".onnx":
        from gancompress.api.networks import compress_file

        made = compress_file(
            run, density, method, calibration, set_, steps, recipe, backbone, pattern=pattern, pixels=pixels, out=out
        )
        print_outcome(made.network)
        typer.echo(f"written: {made.file}, {size(made.size)} of {size(made.network.dense_bytes)}")
        return
    if calibration is not None:
        raise typer.BadParameter("is for a network from elsewhere, an .onnx file", param_hint="--calibration")
    outcome = start(run, density, method, set_ or (), steps=steps, step=step, recipe=recipe, backbone=backbone, out=out)
    print_outcome(outcome)
    typer.echo(f"report: {outcome.run.report}")
    note_other_protocols(run, step)
