"""A run that is watched: a live line on a terminal or in a notebook, plain lines in a file or a pipe."""

from __future__ import annotations

import html
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "NotebookLine",
    "NotebookProgress",
    "Observer",
    "PlainProgress",
    "RichProgress",
    "Silent",
    "duration",
    "in_notebook",
    "progress",
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


class Silent:
    """An observer that draws nothing."""

    def start(self, name: str, directory: str, total_steps: int, done: int) -> None:
        """Do nothing."""

    def step(self, done: int, rate: float) -> None:
        """Do nothing."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


def progress() -> Observer:
    """Return the observer that suits where standard error goes."""
    if in_notebook():
        return NotebookProgress()
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def in_notebook() -> bool:
    """Return whether this program runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it long ago
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def duration(seconds: float) -> str:
    """Return seconds as a person writes them: ``42s``, ``3m08s``, ``2h05m``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class _Base:
    """What both displays keep: where the run is and the last words of each kind of record."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.rate = 0.0
        self.losses = ""
        self.metric = ""

    def start(self, name: str, directory: str, total_steps: int, done: int) -> None:
        """Say what runs, where, and whether it goes on."""
        self.total, self.done = total_steps, done
        verb = f"resuming {name} at step {done}/{total_steps}" if done else f"running {name} for {total_steps} steps"
        if 0 < total_steps <= done:
            verb = f"{name} is trained, all {total_steps} steps,"
        self.message(f"{verb} in {directory}")

    def step(self, done: int, rate: float) -> None:
        """Move the position."""
        self.done, self.rate = done, rate

    def record(self, record: Mapping[str, Any]) -> None:
        """Keep what a record says in a few words."""
        if record["kind"] == "train":
            # The step of the record, which may come before the position moves.
            self.done = int(record["step"])
            self.losses = (
                f"loss G {record['loss_generator']:+.3f} D {record['loss_discriminator']:.3f}"
                f"  density G {record['density_generator']:.3g} D {record['density_discriminator']:.3g}"
            )
        elif record["kind"] == "evaluation" and record["metrics"]:
            first = record["metrics"][0]
            self.metric = f"{first['label']} {first['value']:.4g} @{record['step']}"

    def message(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Nothing to tidy."""

    @property
    def remaining(self) -> str:
        """Time left at the current rate, without evaluations."""
        return duration((self.total - self.done) / self.rate) if self.rate > 0 else "?"

    @property
    def speed(self) -> str:
        """Steps per second, or seconds per step when slow."""
        if self.rate <= 0:
            return "-"
        return f"{self.rate:.1f} steps/s" if self.rate >= 1 else f"{1 / self.rate:.1f} s/step"


class PlainProgress(_Base):
    """One line per log record, at most one every few seconds, and one per evaluation.

    Args:
        interval: seconds between two training lines.
    """

    def __init__(self, interval: float = 5.0) -> None:
        super().__init__()
        self._interval = interval
        self._last = float("-inf")

    def record(self, record: Mapping[str, Any]) -> None:
        """Print training lines now and then, evaluations always."""
        super().record(record)
        if record["kind"] == "evaluation":
            self.message(f"step {record['step']}: {self.metric.rsplit(' @', 1)[0]} ({duration(record['seconds'])})")
        elif record["kind"] == "train" and (self.done == self.total or time.monotonic() - self._last >= self._interval):
            self._last = time.monotonic()
            where = f"step {self.done}/{self.total}  {self.speed}  left {self.remaining}"
            self.message(f"{where}  {self.losses}  {self.metric}".rstrip())


class RichProgress(_Base):
    """A live bar with rate, remaining time, losses, densities and the latest metric."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}  left {task.fields[left]}"),
            TextColumn("[dim]{task.fields[losses]}"),
            TextColumn("[green]{task.fields[metric]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("train", total=None, speed="-", left="?", losses="", metric="")

    def start(self, name: str, directory: str, total_steps: int, done: int) -> None:
        """Start the live line."""
        super().start(name, directory, total_steps, done)
        self._progress.update(self._task, description=name, total=total_steps, completed=done)
        self._progress.start()

    def step(self, done: int, rate: float) -> None:
        """Move the bar."""
        super().step(done, rate)
        self._progress.update(
            self._task, completed=done, speed=self.speed, left=self.remaining, losses=self.losses, metric=self.metric
        )

    def record(self, record: Mapping[str, Any]) -> None:
        """Refresh the words; evaluations also stay on the screen as a line."""
        super().record(record)
        if record["kind"] == "evaluation":
            self.message(f"step {record['step']}: {self.metric.rsplit(' @', 1)[0]} ({duration(record['seconds'])})")

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def finish(self) -> None:
        """Remove the live line."""
        self._progress.stop()


class NotebookLine:
    """One line below a cell of a notebook, changed in place: hundreds of lines would stay in the file for ever."""

    def __init__(self) -> None:
        self._text = ""
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Put ``text`` in place of what was there."""
        from IPython.display import display

        if text == self._text:
            return
        self._text = text
        if self._handle is None:
            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return f'<div style="opacity: 0.7; font-family: monospace">{html.escape(self._text)}</div>'


class NotebookProgress(_Base):
    """The line of a run in a notebook.

    Args:
        interval: seconds between two changes.
    """

    def __init__(self, interval: float = 0.5) -> None:
        super().__init__()
        self._line = NotebookLine()
        self._name = ""
        self._interval = interval
        self._last = float("-inf")

    def start(self, name: str, directory: str, total_steps: int, done: int) -> None:
        """Say what runs, and whether it goes on."""
        self._name = name
        super().start(name, directory, total_steps, done)

    def step(self, done: int, rate: float) -> None:
        """Move the position; the line follows now and then."""
        super().step(done, rate)
        if time.monotonic() - self._last >= self._interval:
            self._last = time.monotonic()
            self._line.show(self._words(f"{self.speed}, left {self.remaining}"))

    def message(self, text: str) -> None:
        """Show a message until there is something newer."""
        self._line.show(text)

    def finish(self) -> None:
        """Leave the last state on the page."""
        self._line.show(self._words("ended"))

    def _words(self, state: str) -> str:
        parts = [f"{self._name}: step {self.done}/{self.total}", state, self.metric]
        return "  ".join(filter(None, parts))
