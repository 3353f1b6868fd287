"""``gancompress export``: a trained generator as one small file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gancompress.cli.evaluate import RunArgument, StepOption
from gancompress.units import size

__all__ = ["export"]


class _Format(StrEnum):
    packed = "packed"
    onnx = "onnx"


class _Values(StrEnum):
    float32 = "float32"
    bf16 = "bf16"


def export(
    run: RunArgument,
    format: Annotated[
        _Format, typer.Option("--format", help="packed: kept weights only; onnx: dense, for other runtimes.")
    ] = _Format.packed,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file; by default RUN/export/generator.{safetensors,onnx}.")
    ] = None,
    values: Annotated[
        _Values, typer.Option("--values", help="Of packed weights; bf16 halves the file again and rounds them.")
    ] = _Values.float32,
    step: StepOption = "last",
) -> None:
    """Write the averaged generator of a run into one file, which gancompress.load() opens.

    A packed file holds the kept weights, their masks and the config, needs no pickle, and runs on the sparse kernels.

    Example: gancompress export runs/quickstart-0a1b2c3d4e --values bf16
    """
    from gancompress.errors import ExportError
    from gancompress.experiment.finished import open_run

    opened = open_run(run)
    if format is _Format.onnx:
        from gancompress.export.onnx import export_onnx

        if values is not _Values.float32:
            raise ExportError("--values is for --format packed; an ONNX file holds float32")
        path = out if out is not None else run / "export" / "generator.onnx"
        difference = export_onnx(opened.generator(step), path)
        typer.echo(f"written: {path} ({size(path.stat().st_size)}), images within {difference:.0e} of the network's")
        return
    from gancompress.export.packed import export_run

    path = out if out is not None else run / "export" / "generator.safetensors"
    sizes = export_run(opened, path, step=step, values=values.value)
    for title, kinds in (("convolutions", ("convolution",)), ("linear layers", ("linear",)), ("other", ("other",))):
        of = [size for size in sizes.values() if size.kind in kinds]
        if of:
            density = sum(size.kept for size in of) / sum(size.elements for size in of)
            _line(title, sum(size.dense for size in of), sum(size.packed for size in of), f"density {density:.4g}")
    _line("whole file", sum(size.dense for size in sizes.values()), path.stat().st_size, "")
    typer.echo(f"written: {path}")


def _line(title: str, dense: int, packed: int, more: str) -> None:
    line = f"{title:14} {size(dense):>12} dense {size(packed):>12} packed {dense / packed:7.2f}x  {more}"
    typer.echo(line.rstrip())
