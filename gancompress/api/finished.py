"""What is done with a run that ended: measured again, sampled from, exported."""

from __future__ import annotations

import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gancompress.api.commands import expressions
from gancompress.api.int8 import Judge
from gancompress.api.network_player import pixels_of
from gancompress.api.networks import Calibration, read_calibration, refuse_foreign, written_network
from gancompress.api.outcomes import RunOutcome
from gancompress.errors import ExportError, RunError, located
from gancompress.report.summary import plain_metrics
from gancompress.runs.record import metrics_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.api.commands import Overrides
    from gancompress.experiment.finished import OpenedRun
    from gancompress.export.packed import Packed, TensorSize, Values
    from gancompress.progress import Observer
    from gancompress.quantization.ranges import RangeRule
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
        quality: of an int8 file: PSNR to the same weights in float32, which layers stay in float, and of a run every
            metric before and after, under its own protocol.
        removed: how many empty channels were left out, and of how many, by the names of the layers that make them; None
            where nobody looked for them.
        beside: what was written beside a page: the generator alone, and the module that sites run it with.
    """

    file: Path
    size: int
    tensors: Mapping[str, TensorSize] = dataclasses.field(default_factory=dict)
    difference: float | None = None
    needs: str = ""
    step: int = 0
    state: str = "done"
    quality: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    removed: Mapping[str, tuple[int, int]] | None = None
    beside: tuple[Path, ...] = ()


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
    truncation: float = 1.0,
    inputs: str | Path | None = None,
) -> Path:
    """Make images with the averaged generator of a run, or the one of a file; as ``gancompress sample``.

    Args:
        run: a run, or its directory; or a file that :func:`gancompress.load` opens as a generator.
        out: a ``.png`` for one grid, a directory or a ``.zip`` for single images; default: ``samples.png``, or the
            directory ``samples-class-N`` for one class.
        count: images; a grid fills its last row.
        label: make this class only.
        seed: of the latents.
        step: checkpoint: ``last``, ``best`` or a number.
        truncation: draws the styles of a generator that has them towards their average: 1 leaves them as they are.
        inputs: folder of images, for a generator that makes images of images; default: those that the run holds out,
            else those of training. A grid shows them beside what becomes of them, and the target of a pair.

    Returns:
        Where the images are.

    Raises:
        RunError: there is no such run, checkpoint or class, or ``out`` ends in something else.
        BackboneError: the generator has no average of styles, and ``truncation`` is not 1.
    """
    from gancompress.api.file_samples import sample_file
    from gancompress.experiment.finished import open_run

    path = Path(out) if out is not None else Path("samples.png" if label is None else f"samples-class-{label}")
    # A folder may be called anything, but not by mistake.
    if path.suffix[1:2].isalpha() and path.suffix not in (".png", ".zip") and not path.is_dir():
        raise RunError(f"unknown ending {path.suffix!r}; end in .png, in .zip, or name a directory", where=str(path))
    folder = None if inputs is None else Path(inputs)
    source = _directory(run)
    sampled = partial(sample_file, source) if source.is_file() else open_run(source).sample
    return sampled(path, count=count, label=label, seed=seed, step=str(step), truncation=truncation, inputs=folder)


def export(
    run: str | Path | RunOutcome,
    path: str | Path | None = None,
    *,
    format: Literal["packed", "onnx", "web"] = "packed",
    values: Literal["float32", "bf16", "int8"] | None = None,
    step: str | int = "last",
    range: RangeRule = "mse",
    calibration: Calibration | None = None,
    pixels: tuple[float, float] | None = None,
    evaluate: bool = True,
    compact: bool | None = None,
    progress: bool | Observer = True,
) -> Exported:
    """Write the averaged generator of a run into one file; as ``gancompress export``.

    Args:
        run: a run, or its directory; as ONNX or for the web also a file that :func:`gancompress.load` opens, or its
            directory; as int8 also a compressed network from elsewhere.
        path: the file; default: ``export/generator.safetensors``, ``generator-bf16.safetensors``, ``generator.onnx`` or
            ``generator.html`` in the run directory; ``.onnx`` or ``.html`` beside a file.
        format: ``packed`` keeps what is not zero, for :func:`gancompress.load`; ``onnx`` is dense, for other runtimes;
            ``web`` is a page that holds the generator and runs it, and what sites need to do so.
        values: of a packed file or a page; ``bf16`` halves it again and rounds the weights, ``int8`` halves that once
            more and computes in bytes, calibrated on the run's own latents. Default: ``float32``, of a page ``bf16``.
        step: checkpoint: ``last``, ``best`` or a number.
        range: for int8: how the ends of what a layer reads are chosen: ``mse``, ``percentile`` or ``max``.
        calibration: for int8 of a compressed network from elsewhere, and for what its page shows first: photographs or
            inputs, as in :func:`gancompress.compress`.
        pixels: black and white of such a network's images. Default: what it was compressed with, or 0 and 1.
        evaluate: for int8: measure the run's metrics of the generator in float32 and in int8.
        compact: leave out the channels that its images do not depend on, as masks have emptied them; the images stay.
            Default: for runs whose method empties whole channels.
        progress: messages on standard error; False is silent; an :class:`~gancompress.progress.Observer` is told.

    Raises:
        RunError: there is no such run or checkpoint.
        ExportError: the generator cannot be written so.
    """
    from gancompress.experiment.finished import open_run
    from gancompress.export.compact import compact as compact_generator
    from gancompress.export.packed import export_run, file_name, frees_channels, load_packed
    from gancompress.progress import Lines, RunProgress, Silent
    from gancompress.report.html import build_report
    from gancompress.runs.record import RunRecord
    from gancompress.storage.atomic import write_json

    directory = _directory(run)
    written = written_network(directory)
    if written is not None:
        pixels = pixels or pixels_of(written)
        if compact:
            raise ExportError("empty channels are left out of the files of runs: give the run", where=str(written))
        if values == "int8" and format == "packed":
            return _export_int8(written, path, calibration, range, pixels)
        if format == "web":
            return _page_of(written, path, values, calibration, pixels)
        if calibration is not None:
            raise ExportError("calibration inputs are for int8, and for the format web", where=str(written))
        return _export_written(written, path, format, values or "float32", step)
    refuse_foreign(directory, "export")
    opened = open_run(directory)
    if calibration is not None:
        raise ExportError("a run is calibrated on its own latents: leave calibration out", where=str(directory))
    values = values or ("bf16" if format == "web" else "float32")
    name = {"onnx": "generator.onnx", "web": "generator.html"}.get(format) or file_name(values)
    file = Path(path) if path is not None else directory / "export" / name
    if format != "onnx" and file.suffix == ".onnx":
        raise ExportError(
            "ends in .onnx and would be no ONNX file: choose the format onnx, or another name", where=str(file)
        )
    at = opened.step(str(step))
    state = RunRecord(directory).status.state  # a damaged status is no reason to keep a whole checkpoint back
    if format == "onnx":
        from gancompress.export.onnx import export_onnx

        _check_onnx_values(values)
        generator, built = opened.rebuild(opened.snapshot(str(at), ("ema",)))
        removed = None
        if frees_channels(opened.recipe) if compact is None else compact:
            with located(str(directory)):
                compacted = compact_generator(generator, built, {})
            generator, removed = compacted.generator, compacted.removed
        difference = export_onnx(generator, file)
        return Exported(file, file.stat().st_size, difference=difference, step=at, state=state, removed=removed)
    if format == "web":
        return _export_page(opened, file, str(at), values, range, compact, state)
    judge = Judge(opened, evaluate, RunProgress(Lines()) if progress is True else progress or Silent())
    tensors = export_run(opened, file, step=str(at), values=values, rule=range, judge=judge, compacted=compact)
    packed = load_packed(file)
    origin, why = packed.architecture.origin, packed.missing
    needs = f"{origin or packed.architecture.backbone} (no graph could be stored: {why})" if why else ""
    quality = packed.source.get("quality", {})
    if quality:
        (directory / "export").mkdir(exist_ok=True)  # the file may lie elsewhere
        write_json(directory / "export" / "int8.json", {"file": file.name, "step": at, **quality})
        build_report(directory)
    return Exported(
        file, file.stat().st_size, tensors, needs=needs, step=at, state=state, quality=quality,
        removed=_removed(packed),
    )  # fmt: skip


def _removed(packed: Packed) -> dict[str, tuple[int, int]] | None:
    listed = packed.source.get("removed")
    return None if listed is None else {name: (gone, width) for name, gone, width in listed}


def _export_page(
    opened: OpenedRun, file: Path, step: str, values: Values, rule: RangeRule, compact: bool | None, state: str
) -> Exported:
    """Write a run's generator as a page, and what sites need beside it."""
    from gancompress.export.packed import export_run, load_packed
    from gancompress.web.make import write_site

    with tempfile.TemporaryDirectory() as folder:
        packed_file = Path(folder) / "generator.safetensors"
        tensors = export_run(opened, packed_file, step=step, values=values, rule=rule, compacted=compact)
        packed = load_packed(packed_file)
    examples = opened.first_inputs() if packed.translates else ()
    with located(str(opened.directory.path)):
        site = write_site(
            packed, file, opened.directory.path.resolve().name, [f"step {int(step):,}"], examples=examples
        )
    beside = (site.blob, *site.module)
    return Exported(
        site.page,
        site.page.stat().st_size,
        tensors,
        step=int(step),
        state=state,
        removed=_removed(packed),
        beside=beside,
    )


def _export_int8(
    written: Path,
    path: str | Path | None,
    calibration: Calibration | None,
    rule: RangeRule,
    pixels: tuple[float, float],
) -> Exported:
    """Write a compressed network from elsewhere once more, in bytes."""
    from gancompress.export.container import kind_of
    from gancompress.export.network import KIND, load_network
    from gancompress.foreign.in_bytes import save_in_bytes

    if kind_of(written) != KIND:
        raise ExportError("is the file of a run: give the run, whose latents set the ranges", where=str(written))
    if calibration is None:
        raise ExportError(
            "int8 of a network that was never calibrated: give calibration inputs, as photographs", where=str(written)
        )
    loaded = load_network(written)
    if loaded.ranges:
        raise ExportError("is in int8 already", where=str(written))
    file = Path(path) if path is not None else written.with_name(f"{written.stem}-int8.safetensors")
    inputs = read_calibration(calibration, loaded.network, pixels)
    kept = {key: value for key, value in loaded.source.items() if key in ("name", "method")}
    with located(str(written)):
        quality = save_in_bytes(loaded.network, loaded.masks, file, inputs, kept, rule, pixels)
    return Exported(file, file.stat().st_size, quality=quality)


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


def _page_of(
    written: Path,
    path: str | Path | None,
    values: str | None,
    calibration: Calibration | None,
    pixels: tuple[float, float],
) -> Exported:
    """Write what a file of ours holds as a page, in its own values or rounded to bf16."""
    from gancompress.api.network_player import write_network_page
    from gancompress.export.container import kind_of
    from gancompress.export.network import KIND, load_network
    from gancompress.export.packed import load_packed
    from gancompress.web.make import write_site

    page = Path(path) if path is not None else written.with_suffix(".html")
    if kind_of(written) == KIND:
        if values == "int8":
            raise ExportError(
                "a page holds what the file holds: `--format packed --values int8 --calibration …` makes one in int8, "
                "whose page computes in bytes",
                where=str(written),
            )
        inputs = read_calibration(calibration, load_network(written).network, pixels)
        site = write_network_page(written, page, inputs, pixels, rounds=values != "float32")
    elif calibration is not None:
        raise ExportError(
            "holds a generator of gancompress, and calibration is for networks from elsewhere", where=str(written)
        )
    else:
        with located(str(written)):
            site = write_site(load_packed(written), page, written.stem)
    return Exported(site.page, site.page.stat().st_size, beside=(site.blob, *site.module))


def _check_onnx_values(values: str) -> None:
    if values != "float32":
        raise ExportError(f"values {values} are for the format packed; an ONNX file holds float32")


def _directory(run: str | Path | RunOutcome) -> Path:
    return run.directory if isinstance(run, RunOutcome) else Path(run)
