"""Work that is watched: a live line on a terminal or in a notebook, plain lines in a file or a pipe."""

from __future__ import annotations

import contextlib
import html
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Cell, Grid
    from gancompress.comparison.runner import Outcome

__all__ = [
    "Bar",
    "ComparisonProgress",
    "Display",
    "Lines",
    "NotebookLine",
    "Observer",
    "RunProgress",
    "Silent",
    "Watcher",
    "display",
    "duration",
    "in_notebook",
]


class Observer(Protocol):
    """Receives the events of a run, in order, from rank 0."""

    def start(self, name: str, directory: str, total_steps: int, done: int) -> None:
        """A run starts, or goes on after ``done`` of ``total_steps`` training steps."""

    def step(self, done: int, rate: float) -> None:
        """``done`` training steps are over; ``rate`` is steps per second since the start of this process."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A line was appended to ``log.jsonl``; ``record["kind"]`` is train, update, evaluation, sample or round."""

    def message(self, text: str) -> None:
        """Something a person should know, in one line."""

    def finish(self) -> None:
        """The run ended, well or not; called once."""


class Watcher(Protocol):
    """Told what happens to the runs of a comparison."""

    def started(self, cell: Cell) -> None:
        """A run starts, or goes on."""

    def ended(self, outcome: Outcome) -> None:
        """A run ended."""

    def waiting(self, steps: Mapping[str, int]) -> None:
        """Time passes; ``steps`` are those done by the running ones, by name."""


class Silent:
    """An observer and a watcher that show nothing."""

    def _nothing(self, *_: object) -> None:
        """Do nothing."""

    start = step = record = message = finish = started = ended = waiting = _nothing


def duration(seconds: float) -> str:
    """Return seconds as a person writes them: ``42s``, ``3m08s``, ``2h05m``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


# --------------------------------------------------------------------------- where it is shown


class Display(Protocol):
    """A place for lines that stay and one line that changes.

    Attributes:
        live: it has a line that changes, so that every step may be shown.
    """

    live: bool

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def show(self, text: str, done: int, total: int) -> None:
        """Show how far it is; may be called as often as there is something new."""

    def end(self, text: str = "") -> None:
        """End the line that changes; ``text`` is its last state."""


def display(interval: float = 5.0, *, at_once: bool = True) -> Display:
    """Return the display that suits where standard error goes.

    Args:
        interval: seconds between two lines where there is none that changes.
        at_once: the first of them comes without waiting.
    """
    if in_notebook():
        return NotebookLine()
    return Bar() if sys.stderr.isatty() else Lines(interval, at_once=at_once)


def in_notebook() -> bool:
    """Return whether this program runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it long ago
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


class _Pause:
    """Lets something happen at most once every ``interval`` seconds."""

    def __init__(self, interval: float, *, at_once: bool = True) -> None:
        self._interval = interval
        self._last = float("-inf") if at_once else time.monotonic()

    def over(self) -> bool:
        """Whether it may happen now; if so, the next pause begins."""
        now = time.monotonic()
        if now - self._last < self._interval:
            return False
        self._last = now
        return True


class Lines:
    """Plain lines on standard error.

    Args:
        interval: seconds between two lines about how far it is; the last one always comes.
        at_once: the first of them comes without waiting.
    """

    live = False

    def __init__(self, interval: float = 5.0, *, at_once: bool = True) -> None:
        self._pause = _Pause(interval, at_once=at_once)
        self._last = ""

    def say(self, text: str) -> None:
        """Print a line, if anybody still reads: Ctrl-C ends the `tee` behind a run before it ends the run."""
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)

    def show(self, text: str, done: int, total: int) -> None:
        """Print a line now and then, and never the same one twice: a run at its last step still has to be measured."""
        if text != self._last and (self._pause.over() or done == total):
            self._last = text
            self.say(text.rstrip())

    def end(self, text: str = "") -> None:
        """Nothing to tidy."""


class Bar:
    """A live bar on a terminal, below the lines that stay."""

    live = True

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console(stderr=True)
        columns = BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("", total=None)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, text: str, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.start()
        self._progress.update(self._task, description=text, completed=done, total=total)

    def end(self, text: str = "") -> None:
        """Remove the bar."""
        self._progress.stop()


class NotebookLine:
    """One line below a cell of a notebook, changed in place: hundreds of lines would stay in the file for ever."""

    live = True

    def __init__(self) -> None:
        self._text = ""
        self._handle: Any = None
        self._pause = _Pause(0.5)

    def say(self, text: str) -> None:
        """Put ``text`` in place of what was there."""
        from IPython.display import display as show

        if text == self._text:
            return
        self._text = text
        if self._handle is None:
            self._handle = show(self, display_id=True)
        else:
            self._handle.update(self)

    def show(self, text: str, done: int, total: int) -> None:
        """Change the line now and then."""
        if self._pause.over():
            self.say(text)

    def end(self, text: str = "") -> None:
        """Leave the last state on the page."""
        if text:
            self.say(text)

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return f'<div style="opacity: 0.7; font-family: monospace">{html.escape(self._text)}</div>'


# --------------------------------------------------------------------------- what is shown


class RunProgress:
    """Shows a run: rate, remaining time, losses, densities and the latest metric."""

    def __init__(self, on: Display | None = None) -> None:
        self._on = on if on is not None else display()
        self._name = self._losses = self._metric = ""
        self._done = self._total = 0
        self._rate = 0.0

    def start(self, name: str, directory: str, total_steps: int, done: int) -> None:
        """Say what runs, where, and whether it goes on."""
        self._name, self._total, self._done = name, total_steps, done
        verb = f"resuming {name} at step {done}/{total_steps}" if done else f"running {name} for {total_steps} steps"
        if 0 < total_steps <= done:
            verb = f"{name} is trained, all {total_steps} steps,"
        self.message(f"{verb} in {directory}")

    def step(self, done: int, rate: float) -> None:
        """Move the position."""
        self._done, self._rate = done, rate
        if self._on.live:
            self._show(self._name)

    def record(self, record: Mapping[str, Any]) -> None:
        """Keep what a record says in a few words; evaluations stay as a line."""
        if record["kind"] == "train":
            # The step of the record, which may come before the position moves.
            self._done = int(record["step"])
            self._losses = (
                f"loss G {record['loss_generator']:+.3f} D {record['loss_discriminator']:.3f}"
                f"  density G {record['density_generator']:.3g} D {record['density_discriminator']:.3g}"
            )
            if not self._on.live:
                self._show(f"step {self._done}/{self._total}")
        elif record["kind"] == "evaluation":
            for first in record["metrics"][:1]:
                self._metric = f"{first['label']} {first['value']:.4g}"
            self._on.say(f"step {record['step']}: {self._metric} ({duration(record['seconds'])})")
            self._metric += f" @{record['step']}"

    def message(self, text: str) -> None:
        """Show a line that stays."""
        self._on.say(text)

    def finish(self) -> None:
        """End the live line."""
        self._on.end(_joined(f"{self._name}: step {self._done}/{self._total}", "ended", self._metric))

    def _show(self, where: str) -> None:
        speed = (
            f"{self._rate:.1f} steps/s" if self._rate >= 1 else f"{1 / self._rate:.1f} s/step" if self._rate else "-"
        )
        left = duration((self._total - self._done) / self._rate) if self._rate > 0 else "?"
        self._on.show(_joined(where, speed, f"left {left}", self._losses, self._metric), self._done, self._total)


class ComparisonProgress:
    """Shows a comparison: a line per run that starts or ends, and how far the running ones are."""

    def __init__(self, grid: Grid, folder: ComparisonFolder, on: Display | None = None) -> None:
        self._on = on if on is not None else display(20.0, at_once=False)
        self._folder = folder
        self._steps = {cell.name: row.price.steps for row in grid.rows for cell in row.cells}
        self._already = {
            cell.name: self._steps[cell.name] if folder.status(cell).state == "done" else folder.step(cell)
            for cell in grid.cells
        }
        self._ended = {name for name, done in self._already.items() if done >= self._steps[name]}
        self._now = dict(self._already)
        self._began = time.monotonic()

    def started(self, cell: Cell) -> None:
        """Say which run starts or goes on, or that another process has it."""
        already, status = self._already[cell.name], self._folder.status(cell)
        if status.state == "running":
            self._on.say(f"{cell.name}: process {status.pid} on {status.host} runs it: waiting for it to end")
        self._on.say(f"{cell.name}: {self._steps[cell.name]} steps{f', from step {already}' if already else ''}")

    def ended(self, outcome: Outcome) -> None:
        """Say how a run ended."""
        name, reason = outcome.cell.name, f": {outcome.reason}" if outcome.reason else ""
        self._ended.add(name)
        self._now[name] = self._steps[name]
        count = f"({len(self._ended)}/{len(self._steps)})"
        self._on.say(f"{name}: {outcome.state} in {duration(outcome.seconds)}{reason} {count}")

    def waiting(self, steps: Mapping[str, int]) -> None:
        """Say how far the running ones are, and the time left if steps go on as fast as they went."""
        self._now.update(steps)
        done, total = sum(self._now.values()), sum(self._steps.values())
        gone = done - sum(self._already.values())
        left = duration((time.monotonic() - self._began) * (total - done) / gone) if gone > 0 else "?"
        if steps:
            running = ", ".join(f"{name} {step}/{self._steps[name]}" for name, step in steps.items())
            self._on.show(f"{running}; left {left}", done, total)

    def message(self, text: str) -> None:
        """Say what is done beside the runs."""
        self._on.say(text)

    def end(self) -> None:
        """End the live line."""
        self._on.end()


def _joined(*parts: str) -> str:
    return "  ".join(filter(None, parts))
