"""How long a comparison will take: from its finished cells, or from a few dense steps timed now."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from gancompress.experiment.assemble import build_dataset, build_trainer
from gancompress.methods.base import Round
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import mapping, number

if TYPE_CHECKING:
    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Cell, Grid

__all__ = ["Estimate", "estimate", "seconds_per_dense_step"]

#: timed after one step that warms everything up
_STEPS = 4


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Time until a comparison ends.

    Attributes:
        seconds: for what is not done yet.
        measured: it rests on finished cells of every row rather than on dense steps.
        how: what it rests on, in words.
    """

    seconds: float
    measured: bool
    how: str


def estimate(grid: Grid, folder: ComparisonFolder, jobs: int) -> Estimate:
    """Estimate the time of the cells that are not done, with ``jobs`` of them at once."""
    rates: dict[tuple[str, float | None, float], float] = {}
    waiting: list[tuple[tuple[str, float | None, float], int]] = []
    own = {cell.directory for cell in grid.cells}
    for row in grid.rows:
        key = (row.choice.trained.label, row.group, row.width)
        for cell in row.cells:
            if cell.directory not in own:
                continue  # trained for another row already
            own.discard(cell.directory)
            if folder.status(cell).state == "done":
                rates[key] = _seconds(folder, cell) / row.price.steps
            else:
                waiting.append((key, max(0, row.price.steps - folder.step(cell))))
    if not waiting:
        return Estimate(0.0, True, "everything is done")
    measured = all(key in rates for key, _ in waiting)
    dense = 0.0 if measured else seconds_per_dense_step(grid)
    seconds = sum(steps * rates.get(key, dense) for key, steps in waiting)
    how = (
        "from finished runs; evaluations not included"
        if measured
        else f"as if every step took as long as a dense one, {dense * 1e3:.3g} ms here; evaluations not included"
    )
    return Estimate(seconds / max(1, min(jobs, len(waiting))), measured, how)


def seconds_per_dense_step(grid: Grid) -> float:
    """Train a few steps of the dense recipe in this process, in memory, and return the seconds of one."""
    recipe = grid.rows[0].cells[0].recipe
    trainer = build_trainer(recipe, build_dataset(recipe))
    trainer.engine.init(trainer.probe)
    current = Round("timing", recipe.training.steps)
    trainer.step(current)
    began = time.perf_counter()
    for _ in range(_STEPS):
        trainer.step(current)
    float(next(trainer.generator.parameters()).detach().sum())  # waits for a GPU
    return (time.perf_counter() - began) / _STEPS


def _seconds(folder: ComparisonFolder, cell: Cell) -> float:
    cost = RunDirectory(folder.run_path(cell)).read_json("cost.json")
    return number(mapping(cost.get("time")).get("training_seconds")) or 0.0
