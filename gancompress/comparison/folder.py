"""The directory of a comparison.

::

    compare/
      <name>-<id>/
        comparison.json       what is compared, what is held equal, what it was expected to cost
        cells/<cell>.yaml     every cell's recipe, fully resolved; <cell>.log is what its process said
        shipped.json          bytes and times of the exported generators, one run of every row
        compare.json  compare.csv  cells.csv  compare.html
      runs/<cell>-<id>/       an ordinary run directory each
      plans/<name>-<id>.json  what generators were found to cost before training, where that is held equal
      plans/<name>-<id>/      recipes and logs of the runs that were trained to find it, where masks decide

Runs lie beside the comparisons: another seed, method or density is another comparison, and the runs that both ask for,
which their recipes name, are trained once.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Any

from gancompress.errors import RunError
from gancompress.recipe.identity import resolved_yaml
from gancompress.runs.directory import RunDirectory
from gancompress.runs.status import Status
from gancompress.storage.atomic import write_file, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.comparison.grid import Cell, Grid
    from gancompress.comparison.price import Price

__all__ = ["ComparisonFolder"]

_RECORD = "comparison.json"


class ComparisonFolder:
    """Paths and files of one comparison; :meth:`open` makes the directory.

    Args:
        path: the directory.
        runs: of the run directories; default: ``runs`` beside it.

    Attributes:
        path: the directory.
        runs: of the run directories, shared with the comparisons beside this one.
    """

    def __init__(self, path: Path, runs: Path | None = None) -> None:
        self.path = path
        self.runs = path.parent / "runs" if runs is None else runs

    @classmethod
    def of(cls, root: Path, grid: Grid) -> ComparisonFolder:
        """Return where a grid belongs under ``root``; nothing is made."""
        return cls(root / f"{grid.base.name}-{grid.id}")

    def open(self, grid: Grid) -> None:
        """Make the directory and write every cell's recipe, or leave them as they are.

        Raises:
            RunError: the disk refuses.
        """
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            self.runs.mkdir(exist_ok=True)
            for cell in grid.cells:
                path = self.recipe_path(cell)
                if not path.exists():
                    write_file(path, resolved_yaml(cell.recipe))
            if not (self.path / _RECORD).exists():
                write_json(self.path / _RECORD, _record(grid))
        except OSError as error:
            raise RunError(f"cannot make the comparison: {error.strerror}", where=str(self.path)) from error

    @property
    def cells(self) -> Path:
        """Directory of the recipes and logs."""
        return self.path / "cells"

    def recipe_path(self, cell: Cell) -> Path:
        """Return the file of a cell's recipe."""
        return self.cells / f"{cell.name}.yaml"

    def log_path(self, cell: Cell) -> Path:
        """Return the file of what a cell's process says."""
        return self.cells / f"{cell.name}.log"

    def run_path(self, cell: Cell) -> Path:
        """Return the run directory of a cell, which may not exist yet."""
        return self.runs / cell.directory

    def status(self, cell: Cell) -> Status:
        """Return how a cell is doing; ``pending`` when it was never started.

        One that ended without being evaluated (``gancompress train``) counts as pending too.
        """
        path = self.run_path(cell)
        try:
            status = RunDirectory(path).read_status()
        except RunError:
            return Status()
        if status.state == "done" and not (path / "metrics.json").is_file():
            return Status("pending", "trained, but not evaluated")
        return status

    def step(self, cell: Cell) -> int:
        """Return the last step that a cell logged; 0 when it did not start. Reads the end of the log only."""
        path = self.run_path(cell)
        return RunDirectory(path).last_step() if (path / "recipe.yaml").is_file() else 0


def _record(grid: Grid) -> dict[str, Any]:
    return {
        "format": 1,
        **({"smoke": True} if grid.base.smoke else {}),
        "name": grid.base.name,
        "id": grid.id,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "budget": {"held_equal": grid.held.axis, "flops": grid.held.flops},
        "density_of": grid.density_of,
        "seeds": list(grid.seeds),
        "evaluations": grid.evaluations,
        "recipe": grid.base.model_dump(mode="json"),
        "dense": price_record(grid.dense),
        **({} if grid.plan is None else {"plan": dataclasses.asdict(grid.plan)}),
        "rows": [
            {
                "method": row.choice.label,
                "density": row.density,
                "expected": price_record(row.price),
                "cells": [
                    {"name": cell.name, "seed": cell.seed, "run": cell.directory, "steps": row.price.steps}
                    for cell in row.cells
                ],
            }
            for row in grid.rows
        ],
    }


def price_record(price: Price) -> dict[str, Any]:
    """Return a price as JSON-able values."""
    record = dataclasses.asdict(price)
    return {**record, "rounds": [{"name": name, "steps": steps} for name, steps in price.rounds]}
