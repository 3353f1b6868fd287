"""``gancompress export``: a trained generator as one small file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gancompress.cli.evaluate import StepOption, note_other_protocols
from gancompress.units import size, some

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["export"]

#: layers that are named; share of the channels below which it is said why they are few
_SHOWN, _FEW = 6, 0.1


def export(
    run: Annotated[
        Path, typer.Argument(help="A run directory; for onnx and web also a file that load() opens.", metavar="RUN")
    ],
    format: Annotated[
        Literal["packed", "onnx", "web"],
        typer.Option(
            "--format",
            help="packed: kept weights only, for gancompress.load(); onnx: dense, for other runtimes; web: a page that "
            "makes images wherever it is opened, and a module for sites.",
        ),
    ] = "packed",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file; by default in RUN/export, named after what it is."),
    ] = None,
    values: Annotated[
        Literal["float32", "bf16", "int8"] | None,
        typer.Option(
            "--values",
            help="Of packed weights; bf16 halves the file again and rounds them; int8 halves that once more, and "
            "convolutions compute in bytes. [default: float32; for the web bf16]",
        ),
    ] = None,
    step: StepOption = "last",
    range: Annotated[
        Literal["mse", "percentile", "max"],
        typer.Option("--range", help="For int8: how the ends of what a layer reads are chosen."),
    ] = "mse",
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="Of a compressed network from elsewhere, for int8 and for what a page shows first: a folder of "
            "photographs, or a .safetensors of its inputs.",
        ),
    ] = None,
    pixels: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--pixels",
            help="What such a network's images have for black and white. [default: what it was compressed with]",
        ),
    ] = None,
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate/--no-evaluate", help="For int8: measure the run's metrics in float32 and in int8."),
    ] = True,
    compact: Annotated[
        bool | None,
        typer.Option(
            "--compact/--no-compact",
            help="Leave out the channels that the images do not depend on; these stay what they are. [default: where "
            "the run's method empties whole channels]",
        ),
    ] = None,
) -> None:
    """Write the averaged generator of a run into one file, which gancompress.load() opens.

    A packed file holds the kept weights, their masks and the config, needs no pickle, and runs on the sparse kernels.

    Example: gancompress export runs/quickstart-0a1b2c3d4e --values bf16
    """
    from gancompress import api
    from gancompress.api.int8 import quality_lines

    made = api.export(
        run, out, format=format, values=values, step=step, range=range, calibration=calibration, pixels=pixels,
        evaluate=evaluate, compact=compact,
    )  # fmt: skip
    tensors = made.tensors.values()
    for kind, title in (("convolution", "convolutions"), ("linear", "linear layers"), ("other", "other")):
        of = [one for one in tensors if one.kind == kind]
        if of:
            density = sum(one.kept for one in of) / sum(one.elements for one in of)
            _line(title, sum(one.dense for one in of), sum(one.packed for one in of), f"density {density:.4g}")
    about = ""
    if made.difference is not None:
        about = f" ({size(made.size)}), outputs within {made.difference:.0e} of the network's"
    elif made.tensors:
        _line("whole file", sum(one.dense for one in tensors), made.size, "")
    typer.echo(f"written: {made.file}{about}" + f", of step {made.step:,}" * bool(made.step))
    for path in made.beside:
        typer.echo(f"beside it: {path.name} ({size(path.stat().st_size)})")
    if made.removed is not None:
        typer.echo(_removed(made.removed, masked=any(one.kept < one.elements for one in tensors)))
    if made.state != "done":
        typer.echo(f"note: the run is {made.state}: this is its checkpoint of step {made.step:,}", err=True)
    if made.quality:
        for line in quality_lines(made.quality):
            typer.echo(line)
    note_other_protocols(run, step)
    if made.needs:
        typer.echo(f"note: it loads only together with {made.needs}", err=True)


def _removed(removed: Mapping[str, tuple[int, int]], *, masked: bool) -> str:
    """Return how many channels were left out, in words, and why they are few."""
    gone, of = (sum(counts[place] for counts in removed.values()) for place in (0, 1))
    if not gone:
        text = f"nothing to remove: the images depend on all of its {of:,} channels"
    else:
        layers = [f"{name} {one} of {width}" for name, (one, width) in removed.items() if one]
        text = f"{gone:,} of {of:,} channels were empty and are left out: {some(layers[:_SHOWN], len(layers))}"
    few = "; masks of single weights empty few whole channels, which method channels is for"
    return text + few * (masked and gone < _FEW * of)


def _line(title: str, dense: int, packed: int, more: str) -> None:
    line = f"{title:14} {size(dense):>12} dense {size(packed):>12} packed {dense / packed:7.2f}x  {more}"
    typer.echo(line.rstrip())
