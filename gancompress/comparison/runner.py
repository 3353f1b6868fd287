"""Cells run one beside the other, each in a process of its own: one that dies takes no other with it."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gancompress.components.plugins import plugin_options
from gancompress.errors import GancompressError, RunError
from gancompress.experiment.interrupt import ENDS_WITH_STDIN, Interruption

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gancompress.comparison.folder import ComparisonFolder
    from gancompress.comparison.grid import Cell
    from gancompress.progress import Watcher

__all__ = [
    "InThisProcess",
    "LocalProcesses",
    "Outcome",
    "Runner",
    "Submitted",
    "cell_command",
    "cell_environment",
    "cores",
    "run_missing",
]

#: seconds between two looks at the running processes
_PATIENCE = 0.2
#: exit code of a run that was interrupted
_INTERRUPTED = 130


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a cell that was started now ended.

    Attributes:
        cell: the cell.
        state: ``done``, ``failed`` or ``interrupted``.
        reason: what went wrong, in one line; empty when nothing did.
        seconds: measured by the clock, evaluations included.
    """

    cell: Cell
    state: str
    reason: str = ""
    seconds: float = 0.0


class Runner(Protocol):
    """A way to run cells."""

    def run(self, folder: ComparisonFolder, cells: Sequence[Cell], watcher: Watcher) -> list[Outcome]:
        """Run all cells; a failing one does not keep the others.

        Raises:
            KeyboardInterrupt: stopped by a signal, after the running cells wrote their checkpoints.
        """


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cell_command(folder: ComparisonFolder, cell: Cell) -> list[str]:
    """Return the command that runs a cell; a person may type it too."""
    recipe, runs = folder.recipe_path(cell).resolve(), folder.runs.resolve()
    return [sys.executable, "-P", "-m", "gancompress", "run", str(recipe), "--out", str(runs), *plugin_options()]


def cell_environment(threads: int) -> dict[str, str]:
    """Return the environment of a cell's process: its threads, this very gancompress, no module of the directory."""
    here = str(Path(__file__).resolve().parents[2])
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONSAFEPATH": "1",
    }


def run_missing(folder: ComparisonFolder, cells: Sequence[Cell], runner: Runner, watcher: Watcher) -> list[Outcome]:
    """Run the cells that are not done yet.

    Returns:
        How those that were run now ended.
    """
    missing = [cell for cell in cells if folder.status(cell).state != "done"]
    return runner.run(folder, missing, watcher) if missing else []


class LocalProcesses:
    """Processes on this machine.

    Args:
        jobs: how many at once.
        threads: CPU threads of each; default: the cores shared between them.
    """

    def __init__(self, jobs: int, threads: int | None = None) -> None:
        self.jobs = max(1, jobs)
        self.threads = threads or max(1, cores() // self.jobs)

    def run(self, folder: ComparisonFolder, cells: Sequence[Cell], watcher: Watcher) -> list[Outcome]:
        """Run all cells, ``jobs`` at once; Ctrl-C lets the running ones write their checkpoints first."""
        waiting, outcomes = list(cells), []
        running: list[_Process] = []
        with Interruption() as interruption:
            try:
                while (waiting and not interruption.requested) or running:
                    while waiting and len(running) < self.jobs and not interruption.requested:
                        running.append(_Process(folder, waiting.pop(0), self.threads))
                        watcher.started(running[-1].cell)
                    time.sleep(_PATIENCE)
                    if interruption.requested:
                        for process in running:
                            process.ask_to_stop()
                    for process in [process for process in running if process.ended]:
                        running.remove(process)
                        outcomes.append(process.outcome())
                        watcher.ended(outcomes[-1])
                    watcher.waiting({process.cell.name: folder.step(process.cell) for process in running})
            finally:
                for process in running:
                    process.kill()
        if interruption.requested:
            raise KeyboardInterrupt
        return outcomes


class _Process:
    """One cell's process, in a session of its own: Ctrl-C at the terminal reaches the comparison alone.

    It ends with this process, however that ends: its standard input is a pipe that closes then.
    """

    def __init__(self, folder: ComparisonFolder, cell: Cell, threads: int) -> None:
        self.folder, self.cell = folder, cell
        self._stopping = False
        self._began = time.monotonic()
        try:
            with folder.log_path(cell).open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    cell_command(folder, cell),
                    env={**cell_environment(threads), ENDS_WITH_STDIN: "1"},
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise RunError(f"cannot start {cell.name}: {error.strerror}", where=str(folder.path)) from error

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def ask_to_stop(self) -> None:
        """Ask once: a second signal would stop the run before its checkpoint."""
        if not self._stopping and not self.ended:
            self._stopping = True
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        if not self.ended:
            self._process.kill()
            self._process.wait()

    def outcome(self) -> Outcome:
        """Return how the process ended: from its exit code, else from its own status, else from its own last words."""
        code, seconds = self._process.returncode, time.monotonic() - self._began
        if self._process.stdin is not None:
            self._process.stdin.close()
        if code == 0:
            return Outcome(self.cell, "done", "", seconds)
        if code == _INTERRUPTED:
            return Outcome(self.cell, "interrupted", "stopped by a signal", seconds)
        if code < 0:
            name = signal.Signals(-code).name
            reason = f"killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
        else:
            reason = self._own_status() or self._last_words() or f"exit code {code}"
        return Outcome(self.cell, "failed", reason, seconds)

    def _own_status(self) -> str:
        """Return why this very process failed, as it wrote down; another may have written there before it."""
        status = self.folder.status(self.cell)
        own = status.state == "failed" and (status.pid, status.host) == (self._process.pid, socket.gethostname())
        return (status.reason or "") if own else ""

    def _last_words(self) -> str:
        """Return the last line of what this very process said; the log holds what others said before it."""
        try:
            with self.folder.log_path(self.cell).open("rb") as log:
                log.seek(self._log_start)
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class InThisProcess:
    """One cell after the other in this process: for notebooks and tests."""

    def run(self, folder: ComparisonFolder, cells: Sequence[Cell], watcher: Watcher) -> list[Outcome]:
        """Run all cells in turn."""
        from gancompress.experiment.run import Experiment

        outcomes = []
        for cell in cells:
            watcher.started(cell)
            began = time.monotonic()
            try:
                Experiment(cell.recipe, folder.runs).run()
                outcome = Outcome(cell, "done", "", time.monotonic() - began)
            except GancompressError as error:
                outcome = Outcome(cell, "failed", str(error), time.monotonic() - began)
            outcomes.append(outcome)
            watcher.ended(outcome)
        return outcomes


class Submitted:
    """Jobs of a cluster, through submitit (the extra ``slurm``).

    Args:
        cluster: ``slurm``; ``local`` runs the jobs as processes here, ``debug`` in this process.
        threads: CPU threads of each cell.
        parameters: what submitit passes to the cluster, such as ``slurm_partition`` or ``timeout_min``.
    """

    def __init__(self, cluster: str, threads: int = 1, parameters: Mapping[str, Any] | None = None) -> None:
        self.cluster, self.threads = cluster, threads
        self.parameters = dict(parameters or {})

    def run(self, folder: ComparisonFolder, cells: Sequence[Cell], watcher: Watcher) -> list[Outcome]:
        """Submit every cell and wait for all of them; Ctrl-C cancels what is left."""
        jobs = self._submit(folder, cells, watcher)
        outcomes: list[Outcome] = []
        waiting = dict(jobs)
        began = time.monotonic()
        with Interruption() as interruption:
            while waiting:
                for cell, job in [(cell, job) for cell, job in waiting.items() if self._ended(job)]:
                    del waiting[cell]
                    outcomes.append(self._outcome(folder, cell, job, time.monotonic() - began))
                    watcher.ended(outcomes[-1])
                if interruption.requested:
                    for job in waiting.values():
                        job.cancel()
                    raise KeyboardInterrupt
                watcher.waiting({cell.name: folder.step(cell) for cell in waiting})
                if waiting:
                    time.sleep(_PATIENCE if self.cluster != "slurm" else 5.0)
        return outcomes

    def _submit(self, folder: ComparisonFolder, cells: Sequence[Cell], watcher: Watcher) -> Iterator[tuple[Cell, Any]]:
        try:
            import submitit
        except ImportError:
            raise RunError(
                "running on a cluster needs submitit: pip install 'gancompress[slurm]', or use the executor local"
            ) from None
        executor = submitit.AutoExecutor(folder=folder.path / "cluster", cluster=self.cluster)
        try:
            executor.update_parameters(**{"cpus_per_task": self.threads, **self.parameters})
        except (TypeError, NameError, ValueError) as error:
            raise RunError(f"cluster: submitit refuses these settings: {error}") from error
        # the job that starts a cell is a Python of its own, and takes its environment from this process
        os.environ["PYTHONSAFEPATH"] = "1"
        jobs = []
        for cell in cells:
            command = submitit.helpers.CommandFunction(
                cell_command(folder, cell), verbose=False, env=cell_environment(self.threads)
            )
            jobs.append((cell, executor.submit(command)))
            watcher.started(cell)
        return iter(jobs)

    def _ended(self, job: Any) -> bool:
        return bool(job.done())

    def _outcome(self, folder: ComparisonFolder, cell: Cell, job: Any, seconds: float) -> Outcome:
        error = job.exception()
        if error is None:
            return Outcome(cell, "done", "", seconds)
        # submitit hands on what the process said after the name of its own error; of a job that died it says that alone
        lines = str(error).splitlines()
        said = next((line for line in lines if "FailedJobError: " in line), "")
        reason = said.partition("FailedJobError: ")[2].strip() or next(filter(None, map(str.strip, lines)), "")
        return Outcome(cell, "failed", reason or f"see {folder.path / 'cluster'}", seconds)
