"""A comparison on the terminal: a line per cell that starts or ends, and on a terminal a live bar."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from gancompress.progress import NotebookLine, duration, in_notebook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Cell, Grid
    from gancompress.comparison.runner import Outcome

__all__ = ["NotebookWatcher", "PlainWatcher", "RichWatcher", "SilentWatcher", "watcher"]


class PlainWatcher:
    """Lines for a file or a pipe.

    Args:
        grid: what is compared.
        folder: where.
        interval: seconds between two lines about running cells.
    """

    def __init__(self, grid: Grid, folder: ComparisonFolder, interval: float = 20.0) -> None:
        self.steps = {cell.name: row.price.steps for row in grid.rows for cell in row.cells}
        self.already = {cell.name: self._steps_of(folder, cell) for cell in grid.cells}
        self.done = {name: steps for name, steps in self.already.items() if steps >= self.steps[name]}
        self.running: dict[str, int] = {}
        self._began = self._said = time.monotonic()
        self._interval = interval

    def _steps_of(self, folder: ComparisonFolder, cell: Cell) -> int:
        return self.steps[cell.name] if folder.status(cell).state == "done" else folder.step(cell)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def started(self, cell: Cell) -> None:
        """Say which cell starts or goes on."""
        self.running[cell.name] = self.already[cell.name]
        goes_on = f", from step {self.already[cell.name]}" if self.already[cell.name] else ""
        self.say(f"{cell.name}: {self.steps[cell.name]} steps{goes_on}")

    def ended(self, outcome: Outcome) -> None:
        """Say how a cell ended."""
        name = outcome.cell.name
        self.running.pop(name, None)
        self.done[name] = self.steps[name]
        reason = f": {outcome.reason}" if outcome.reason else ""
        self.say(f"{name}: {outcome.state} in {duration(outcome.seconds)}{reason} ({len(self.done)}/{len(self.steps)})")

    def waiting(self, steps: Mapping[str, int]) -> None:
        """Say now and then how far the running cells are."""
        self.running = dict(steps)
        if steps and time.monotonic() - self._said >= self._interval:
            self._said = time.monotonic()
            parts = ", ".join(f"{name} {step}/{self.steps[name]}" for name, step in steps.items())
            self.say(f"{parts}; left {self.left}")

    @property
    def total(self) -> int:
        """Steps of all cells."""
        return sum(self.steps.values())

    @property
    def finished(self) -> int:
        """Steps that are over."""
        waiting = sum(self.already[name] for name in self.steps if name not in self.done and name not in self.running)
        return sum(self.done.values()) + sum(self.running.values()) + waiting

    @property
    def left(self) -> str:
        """Time left, if steps go on as fast as they went."""
        before = sum(self.already.values())
        gone = self.finished - before
        if gone <= 0:
            return "?"
        return duration((time.monotonic() - self._began) * (self.total - self.finished) / gone)


class RichWatcher(PlainWatcher):
    """The same above a live bar over the steps of all cells."""

    def __init__(self, grid: Grid, folder: ComparisonFolder) -> None:
        super().__init__(grid, folder, interval=float("inf"))
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("[bold]compare"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("steps  left {task.fields[left]}"),
            TextColumn("[dim]{task.fields[running]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("compare", total=self.total, left="?", running="")
        self._progress.start()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def waiting(self, steps: Mapping[str, int]) -> None:
        """Move the bar."""
        super().waiting(steps)
        running = "  ".join(f"{name} {step}" for name, step in steps.items())
        self._progress.update(self._task, completed=self.finished, left=self.left, running=running)

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class NotebookWatcher(PlainWatcher):
    """One line below the cell of a notebook."""

    def __init__(self, grid: Grid, folder: ComparisonFolder) -> None:
        super().__init__(grid, folder, interval=1.0)
        self._line = NotebookLine()

    def say(self, text: str) -> None:
        """Put ``text`` in place of what was there."""
        self._line.show(text)


class SilentWatcher:
    """A watcher that draws nothing."""

    def started(self, cell: Cell) -> None:
        """Do nothing."""

    def ended(self, outcome: Outcome) -> None:
        """Do nothing."""

    def waiting(self, steps: Mapping[str, int]) -> None:
        """Do nothing."""


@contextlib.contextmanager
def watcher(grid: Grid, folder: ComparisonFolder) -> Iterator[PlainWatcher]:
    """Yield the watcher that suits where standard error goes."""
    if in_notebook():
        yield NotebookWatcher(grid, folder)
        return
    if not sys.stderr.isatty():
        yield PlainWatcher(grid, folder)
        return
    rich = RichWatcher(grid, folder)
    try:
        yield rich
    finally:
        rich.stop()
