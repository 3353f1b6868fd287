"""``gancompress compress``: a trained generator made sparse, evaluated before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gancompress.cli.app import SetOption
from gancompress.errors import RecipeError
from gancompress.units import size

__all__ = ["compress"]


def compress(
    run: Annotated[
        Path,
        typer.Argument(
            help="A finished run; a network from elsewhere, as FILE.onnx or as the function that makes its module, "
            "my_net.py:make; or a generator's weights as .safetensors.",
            metavar="RUN",
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Sparsity method: magnitude, gmp, snip, …; reconstruct for a network from elsewhere; channels. "
            "[default: magnitude, or reconstruct]",
        ),
    ] = None,
    density: Annotated[
        float,
        typer.Option("--density", help="Share of the generator's weights to keep; with channels, of its channels."),
    ] = 0.1,
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
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="For my_net.py:make: its weights, a .safetensors.")
    ] = None,
    example: Annotated[
        list[str] | None,
        typer.Option(
            "--example",
            metavar="SHAPE",
            help="For my_net.py:make: an input's shape, as 1x3x256x256. Repeat for several inputs.",
        ),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            "--dynamic",
            metavar="AXES",
            help="For my_net.py:make: axes whose sizes may change, as "
            "0=n,2=h,3=w. Repeat for several inputs. [default: 0=n]",
        ),
    ] = None,
    pattern: Annotated[
        str, typer.Option("--pattern", help="Units of weights that are kept, such as 4x1 or 2:4.")
    ] = "unstructured",
    pixels: Annotated[
        tuple[float, float],
        typer.Option("--pixels", help="For a network from elsewhere: what its images have for black and white."),
    ] = (0.0, 1.0),
    values: Annotated[
        Literal["float32", "bf16", "e8m4", "int8"],
        typer.Option(
            "--values",
            help="Of the file of a network from elsewhere: bf16 halves it again, e8m4 keeps 4 bits of mantissa, int8 "
            "computes in bytes, and --distill trains with their rounding. Of a run: int8 fine-tunes with it.",
        ),
    ] = "float32",
    distill: Annotated[
        str | None,
        typer.Option(
            "--distill",
            metavar="LENGTH|TERMS",
            help="Of a run: what fine-tuning learns from the whole generator, images,features or with weights "
            "images=10,discriminator=1. For a network from elsewhere: train what is kept to the whole one's outputs, "
            "'60s' or '500 steps'.",
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            "--rate",
            metavar="HERTZ",
            min=1000,
            max=768000,
            help="For a network from elsewhere that makes sound: samples per second, for the report's players. "
            "[default: 22050]",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="COST",
            help="For method channels, in place of --density: ms=10, ms=40%, macs=1.2G, parameters=300k, bytes=2M.",
        ),
    ] = None,
    importance: Annotated[
        str | None,
        typer.Option(
            "--importance",
            help="For method channels: magnitude, lamp, bn-scale, taylor or outputs. "
            "[default: outputs with calibration inputs, else magnitude]",
        ),
    ] = None,
    player: Annotated[
        bool, typer.Option("--player/--no-player", help="Put it into the report, where it runs, beside what it was.")
    ] = True,
    out: Annotated[Path, typer.Option("--out", help="Directory that holds run directories.")] = Path("runs"),
) -> None:
    """Prune a trained generator, fine-tune it, and say what that cost; the same command resumes.

    The result is an ordinary run: sample it, evaluate it, export it, compress it again.

    A network from elsewhere (compress upscaler.onnx --density 0.3 --calibration photos/) is pruned from a few of its
    inputs alone, and written into OUT/NAME-dDENSITY, as a file that gancompress.load() opens. With my_net.py:make that
    file of Python is run, as a plugin is.

    Example: gancompress compress runs/quickstart-0a1b2c3d4e --density 0.1
    """
    from gancompress.api.commands import compress as start
    from gancompress.api.networks import compress_file, is_foreign
    from gancompress.api.outcomes import print_outcome
    from gancompress.cli.evaluate import note_other_protocols
    from gancompress.components.plugins import command_line

    if is_foreign(run):
        made = compress_file(
            run, density, method, calibration, set_, steps, recipe, backbone, weights=weights, example=example or (),
            dynamic=dynamic or (), pattern=pattern, pixels=pixels, values=values, out=out,
            distill=distill, rate=rate, target=target, importance=importance,
            player=player,
        )  # fmt: skip
        print_outcome(made.shown)
        typer.echo(f"written: {made.file}, {size(made.size)} of {size(made.network.dense_bytes)}")
        typer.echo(f"report: {made.report}")
        return
    for option, given in (("--calibration", calibration), ("--weights", weights), ("--example", example),
                          ("--dynamic", dynamic), ("--rate", rate),
                          ("--pixels", pixels != (0.0, 1.0)), ("--values", values in ("bf16", "e8m4"))):  # fmt: skip
        if given:
            raise RecipeError(f"{option} is for a network from elsewhere: FILE.onnx, or my_net.py:make", where=str(run))
    outcome = start(
        run,
        density,
        method,
        set_ or (),
        steps=steps,
        step=step,
        recipe=recipe,
        backbone=backbone,
        pattern=pattern,
        values=values,
        distill=distill,
        target=target,
        importance=importance,
        player=player,
        out=out,
    )
    print_outcome(outcome)
    if values == "int8":
        typer.echo(f"in int8: {command_line('export', outcome.run.directory, '--values', 'int8')}")
    typer.echo(f"report: {outcome.run.report}")
    note_other_protocols(run, step)
