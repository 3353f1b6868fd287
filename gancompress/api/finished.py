"""What is done with a run that ended: measured again, sampled from, exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gancompress.api.commands import expressions
from gancompress.api.networks import refuse_foreign, written_network
from gancompress.api.outcomes import RunOutcome
from gancompress.errors import ExportError, RunError
from gancompress.report.summary import plain_metrics
from gancompress.runs.record import metrics_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.api.commands import Overrides
    from gancompress.export.packed import TensorSize
    from gancompress.progress import Observer
    from gancompress.runs.record import Metric

__all__ = ["Exported", "Measured", "evaluate", "export", "sample"]


@dataclasses.dataclass(frozen=True)
class Measured:
    """A generator, measured again; ``print`` writes its metrics and the protocol that they share.

    Attributes:
        file: JSON with everything, in ``evaluations/`` of the run directory.
        metrics: the recipe's first metric first, each with its protocol.
        smoke: of a smoke run; the numbers mean nothing.
    """

    file: Path
    metrics: tuple[Metric, ...]
    smoke: bool

    def __str__(self) -> str:
        lines = ["smoke run: the numbers mean nothing"] if self.smoke else []
        return "\n".join([*lines, *plain_metrics(self.metrics)])


@dataclasses.dataclass(frozen=True)
class Exported:
    """A generator in a file.

    Attributes:
        file: where it is.
        size: bytes of the file.
        tensors: what became of every tensor; of a packed file only.
        difference: the largest difference of a pixel to the network's own images, or of an output of a network from
            elsewhere as a share of its largest; of an ONNX file only.
        needs: what has to be installed where the file is loaded, and why; empty for files that need gancompress alone.
        step: of the checkpoint that it was made from; 0 where it was made from a file.
        state: of the run; what is not ``done`` may still get better.
    """

    file: Path
    size: int
    tensors: Mapping[str, TensorSize] = dataclasses.field(default_factory=dict)
    difference: float | None = None
    needs: str = ""
    step: int = 0
    state: str = "done"


def evaluate(
    run: str | Path | RunOutcome,
    overrides: Overrides = (),
    *,
    step: str | int = "last",
    progress: bool | Observer = True,
) -> Measured:
    """Measure a trained generator, under its own protocol or another; as ``gancompress evaluate``.

    Example::

        print(gancompress.evaluate(outcome, {"weights": "live"}))

    Args:
        run: a run, or its directory; it stays as it was.
        overrides: settings of the recipe's evaluation to change, with or without ``evaluation.`` before them.
        step: checkpoint: ``last``, ``best`` by the recipe's first metric, or a number.
        progress: messages on standard error; False is silent; an :class:`~gancompress.progress.Observer` is told.

    Raises:
        GancompressError: there is no such run, checkpoint or setting, or it cannot be measured.
    """
    from gancompress.experiment.finished import open_run
    from gancompress.progress import Lines, RunProgress

    changes = tuple(f"evaluation.{item.removeprefix('evaluation.')}" for item in expressions(overrides))
    opened = open_run(_directory(run), changes)
    observer = RunProgress(Lines()) if progress is True else progress or None
    file, records = opened.evaluate(str(step), observer)
    return Measured(file, tuple(metrics_of({"metrics": records})), opened.recipe.smoke)


def sample(
    run: str | Path | RunOutcome,
    out: str | Path | None = None,
    *,
    count: int = 100,
    label: int | None = None,
    seed: int = 0,
    step: str | int = "last",
) -> Path:
    """Make images with the averaged generator of a run; as ``gancompress sample``.

    Args:
        run: a run, or its directory.
        out: a ``.png`` for one grid, a directory or a ``.zip`` for single images; default: ``samples.png``, or the
            directory ``samples-class-N`` for one class.
        count: images; a grid fills its last row.
        label: make this class only.
        seed: of the latents.
        step: checkpoint: ``last``, ``best`` or a number.

    Returns:
        Where the images are.

    Raises:
        RunError: there is no such run, checkpoint or class, or ``out`` ends in something else.
    """
    from gancompress.experiment.finished import open_run

    path = Path(out) if out is not None else Path("samples.png" if label is None else f"samples-class-{label}")
    # A folder may be called anything, but not by mistake.
    if path.suffix[1:2].isalpha() and path.suffix not in (".png", ".zip") and not path.is_dir():
        raise RunError(f"unknown ending {path.suffix!r}; end in .png, in .zip, or name a directory", where=str(path))
    return open_run(_directory(run)).sample(path, count=count, label=label, seed=seed, step=str(step))


def export(
    run: str | Path | RunOutcome,
    path: str | Path | None = None,
    *,
    format: Literal["packed", "onnx"] = "packed",
    values: Literal["float32", "bf16"] = "float32",
    step: str | int = "last",
) -> Exported:
    """Write the averaged generator of a run into one file; as ``gancompress export``.

    Args:
        run: a run, or its directory; as ONNX also a file that :func:`gancompress.load` opens, or its directory.
        path: the file; default: ``export/generator.safetensors``, ``generator-bf16.safetensors`` or ``generator.onnx``
            in the run directory; ``.onnx`` beside a file.
        format: ``packed`` keeps what is not zero, for :func:`gancompress.load`; ``onnx`` is dense, for other runtimes.
        values: of a packed file; ``bf16`` halves it again and rounds the weights.
        step: checkpoint: ``last``, ``best`` or a number.

    Raises:
        RunError: there is no such run or checkpoint.
        ExportError: the generator cannot be written so.
    """
    from gancompress.experiment.finished import open_run
    from gancompress.export.packed import export_run, file_name, load_packed
    from gancompress.runs.record import RunRecord

    directory = _directory(run)
    written = written_network(directory)
    if written is not None:
        return _export_written(written, path, format, values, step)
    refuse_foreign(directory, "export")
    name = "generator.onnx" if format == "onnx" else file_name(values)
    file = Path(path) if path is not None else directory / "export" / name
    if format != "onnx" and file.suffix == ".onnx":
        raise ExportError(
            "ends in .onnx and would be no ONNX file: choose the format onnx, or another name", where=str(file)
        )
    opened = open_run(directory)
    at = opened.step(str(step))
    state = RunRecord(directory).status.state  # a damaged status is no reason to keep a whole checkpoint back
    if format == "onnx":
        from gancompress.export.onnx import export_onnx

        _check_onnx_values(values)
        difference = export_onnx(opened.generator(str(at)), file)
        return Exported(file, file.stat().st_size, difference=difference, step=at, state=state)
    tensors = export_run(opened, file, step=str(at), values=values)
    packed = load_packed(file)
    origin, why = packed.architecture.origin, packed.missing
    needs = f"{origin or packed.architecture.backbone} (no graph could be stored: {why})" if why else ""
    return Exported(file, file.stat().st_size, tensors, needs=needs, step=at, state=state)


def _export_written(written: Path, path: str | Path | None, format: str, values: str, step: str | int) -> Exported:
    """Write what a file of ours holds as ONNX; it is packed already."""
    if format != "onnx":
        raise ExportError(
            "is small already, and gancompress.load() opens it anywhere; `gancompress compress … --values bf16` writes "
            "it with rounded weights, `gancompress export … --format onnx` for other runtimes",
            where=str(written),
        )
    from gancompress.export.container import kind_of
    from gancompress.export.network import KIND, load_network
    from gancompress.export.onnx import export_network_onnx, export_onnx
    from gancompress.export.packed import load_packed

    _check_onnx_values(values)
    if step != "last":
        raise ExportError("is one file, without checkpoints to choose from", where=str(written))
    file = Path(path) if path is not None else written.with_suffix(".onnx")
    if kind_of(written) == KIND:
        difference = export_network_onnx(load_network(written).network, file)
    else:
        difference = export_onnx(load_packed(written).generator(), file)
    return Exported(file, file.stat().st_size, difference=difference)


def _check_onnx_values(values: str) -> None:
    if values != "float32":
        raise ExportError(f"values {values} are for the format packed; an ONNX file holds float32")


def _directory(run: str | Path | RunOutcome) -> Path:
    return run.directory if isinstance(run, RunOutcome) else Path(run)
