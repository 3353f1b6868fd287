"""Finished runs as they are shipped: exported, evaluated with the values of the file, and timed side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from gancompress.comparison.choices import VALUES
from gancompress.comparison.exported import SHIPPED, exported_name, read_exported, shipped_record
from gancompress.comparison.plan import this_machine
from gancompress.comparison.shipped import Clock
from gancompress.errors import GancompressError
from gancompress.experiment.finished import open_run
from gancompress.experiment.measure import Evaluator, metric_record
from gancompress.experiment.networks import build_task
from gancompress.export.loading import compiled_file
from gancompress.export.packed import export_run, file_name, load_packed
from gancompress.progress import Silent
from gancompress.storage.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Cell, Grid
    from gancompress.data.base import Dataset
    from gancompress.export.packed import Values

__all__ = ["evaluate_exported", "exported_file", "ship"]


def exported_file(folder: ComparisonFolder, cell: Cell, values: str) -> Path:
    """Write the generator of a finished run into a file, unless it is there already."""
    run = open_run(folder.run_path(cell))
    path = folder.run_path(cell) / "export" / file_name(values)
    if path.is_file():
        source = load_packed(path).source
        if (source.get("step"), source.get("values")) == (run.step("last"), values):
            return path
    export_run(run, path, values=cast("Values", values))
    return path


def evaluate_exported(grid: Grid, folder: ComparisonFolder, dataset: Dataset[Any], say: Callable[[str], None]) -> None:
    """Evaluate the exported files of finished runs whose rows ask for other values than they were trained with.

    A run that cannot be exported so is left without numbers, and ``say`` is told why.
    """
    for row in grid.rows:
        values = row.choice.values
        for cell in row.cells if values != VALUES[0] else ():
            if folder.status(cell).state != "done":
                continue
            try:
                _evaluate(folder, cell, values, dataset, say)
            except GancompressError as error:
                say(f"warning: {cell.name} with the values {values}: {error}")


def _evaluate(
    folder: ComparisonFolder, cell: Cell, values: str, dataset: Dataset[Any], say: Callable[[str], None]
) -> None:
    run = open_run(folder.run_path(cell))
    step = run.step("last")
    if read_exported(run.directory.path, step, values) is not None:
        return
    say(f"evaluating {cell.name} with the values {values}")
    path = exported_file(folder, cell, values)
    network = compiled_file(path)
    # norms are merged into the weights with their running averages, spectral norms with what they divide by
    config = run.recipe.evaluation.model_copy(update={"batch_norm": "running", "weights": "ema"})
    evaluator = Evaluator(config, dataset, torch.device("cpu"), Silent(), build_task(run.recipe))
    measured = evaluator(network, exported_from=run.generator())
    (run.directory.path / "evaluations").mkdir(exist_ok=True)
    run.directory.write_json(
        exported_name(step, values),
        {
            **({"smoke": True} if run.recipe.smoke else {}),
            "step": step,
            "values": values,
            "bytes": path.stat().st_size,
            "metrics": [metric_record(result) for result in measured.results],
            "protocol": measured.protocol.to_json(),
        },
    )


def ship(grid: Grid, folder: ComparisonFolder, batch: int, *, force: bool, say: Callable[[str], None]) -> None:
    """Export a finished run of every row and time all of them together; rows that were are not timed again.

    Without a quiet machine there are no times, and ``say`` is told so.
    """
    cells = [next((cell for cell in row.cells if folder.status(cell).state == "done"), None) for row in grid.rows]
    known = shipped_record(folder.path)
    runs = [cell.directory if cell is not None else "" for cell in cells]
    if known.get("runs") == runs and known.get("machine") == this_machine() and known.get("batch") == batch:
        return
    files: list[Path | None] = []
    for row, cell in zip(grid.rows, cells, strict=True):
        try:
            files.append(exported_file(folder, cell, row.choice.values) if cell is not None else None)
        except GancompressError as error:
            say(f"warning: {row.choice.label} is not timed: {error}")
            files.append(None)
    there = [path for path in files if path is not None]
    if not there:
        return
    say(f"timing {len(there)} generators as they are shipped")
    try:
        costs = iter(Clock(there[0], batch, force)(there))
    except GancompressError as error:
        say(f"warning: not timed: {error}")
        return
    rows: list[dict[str, Any] | None] = []
    for path in files:
        cost = next(costs) if path is not None else None
        rows.append(
            None
            if path is None or cost is None
            else {
                "bytes": path.stat().st_size,
                "milliseconds": cost.amount,
                "unsure": cost.spread,
                "runtime": cost.runtime,
            }
        )
    write_json(folder.path / SHIPPED, {"machine": this_machine(), "batch": batch, "runs": runs, "rows": rows})
