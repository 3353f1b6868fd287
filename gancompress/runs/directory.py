"""A run is a directory: who owns it, where everything lies, how it is written so that it survives. Imports no torch.

::

    runs/<name>-<id>/
      recipe.yaml         fully resolved; running it again resumes or reproduces
      status.json         pending | running | interrupted | done | failed, with the reason
      log.jsonl           one record per line, appended; cut back to the checkpoint on resume
      checkpoints/        see gancompress.storage.checkpoint
      samples/  metrics.json  cost.json  environment.json  report.html
      .lock               held by the process that runs it
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import json
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from gancompress.errors import RecipeError, RunError
from gancompress.recipe.document import LARGEST_RECIPE, dump_yaml, flat, parse_yaml
from gancompress.runs.log import last_step, lines
from gancompress.runs.status import State, Status, status_of
from gancompress.storage.atomic import finite, sweep, sync, write_file, write_json
from gancompress.storage.locks import hold, is_held
from gancompress.storage.reading import parse_head, parse_json, read_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from gancompress.recipe.schema import Recipe

__all__ = ["RunDirectory", "directories"]

_RECIPE, _STATUS, _LOG, _LOCK = "recipe.yaml", "status.json", "log.jsonl", ".lock"
#: Recipe keys that change no number, so that they may differ between a directory and the recipe that opens it.
_WORDS = {
    "name", "description", "published", "changed", "model.weights", "discriminator.weights", "training.init_from.path",
    "training.distillation.teacher",
}  # fmt: skip


class RunDirectory:
    """Paths, status, log and small files of one run.

    The constructor looks at an existing directory; :meth:`open` finds or makes the one of a recipe.

    Raises:
        RunError: there is no run there.
    """

    def __init__(self, path: Path) -> None:
        if not (path / _RECIPE).is_file():
            what = f"no {_RECIPE} in it" if path.is_dir() else "no such directory"
            raise RunError(f"not a run directory ({what}); {_instead_of(path)}", where=str(path))
        self.path = path

    # ------------------------------------------------------------------ opening

    @classmethod
    def open(cls, root: Path, recipe: Recipe) -> RunDirectory:
        """Return the directory of ``recipe`` under ``root``, made if it is not there.

        Raises:
            RunError: the directory belongs to another recipe, or cannot be made.
        """
        from gancompress.recipe.identity import run_id

        identity = run_id(recipe)
        return cls.claim(root / f"{recipe.name}-{identity}", recipe.model_dump(mode="json"), identity)

    @classmethod
    def claim(cls, path: Path, recipe: Mapping[str, Any], identity: str) -> RunDirectory:
        """Return ``path`` as the directory of ``recipe``, resolved and plain, made if it is not there.

        Raises:
            RunError: the directory belongs to another recipe, holds something else, or cannot be made.
        """
        if (path / _RECIPE).exists():
            directory = cls(path)
            directory._refuse_other(recipe, identity)
            directory._restore_status(identity)
            return directory
        status = cls._status_left(path, identity)
        try:
            path.mkdir(parents=True, exist_ok=True)
            # The status first: what has a recipe is a run, and a run always has an id.
            if status is None:
                write_json(path / _STATUS, dataclasses.asdict(Status(id=identity, updated=_now())))
            write_file(path / _RECIPE, dump_yaml(recipe))
        except OSError as error:
            raise RunError(f"cannot make the run directory: {error.strerror}", where=str(path)) from error
        return cls(path)

    @staticmethod
    def _status_left(path: Path, identity: str) -> Status | None:
        """Return the status of a directory without a recipe: its maker died, or somebody removed the recipe.

        Raises:
            RunError: the directory holds something else.
        """
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} if path.is_dir() else set()
        status = Status()
        with contextlib.suppress(RunError):
            status = status_of(_read_object(path / _STATUS), str(path / _STATUS))
        if status.id not in ("", identity):
            raise RunError(
                f"this directory belongs to another recipe ({status.id}, not {identity}) whose {_RECIPE} is gone; "
                "choose another directory for runs, or remove this one",
                where=str(path),
            )
        if names - {_STATUS} and not status.id:
            raise RunError(f"this directory is not empty and has no {_RECIPE}; choose another", where=str(path))
        return status if status.id else None

    def _refuse_other(self, recipe: Mapping[str, Any], identity: str) -> None:
        mine, theirs = self._identity(identity), identity
        old, new = flat(self.recipe()), flat(json.loads(json.dumps(recipe)))
        keys = (old.keys() | new.keys()) - _WORDS
        if mine == theirs:
            # Equal but for defaults. A setting that another version of gancompress has and this one lacks, or the other
            # way round, stands at its default; a default that changed changes the numbers.
            keys &= old.keys() & new.keys()
        differing = [
            f"{key}: {_shown(old, key)} there, {_shown(new, key)} here"
            for key in sorted(keys)
            if old.get(key, _ABSENT) != new.get(key, _ABSENT)
        ]
        if differing or mine not in (theirs, _UNKNOWN):
            shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
            whose = f"another recipe ({mine}, not {theirs})" if mine != theirs else f"{mine} with other defaults"
            raise RunError(
                f"this run directory belongs to {whose}{': ' + shown if shown else ''}; "
                "give the recipe another name or use another directory for runs",
                where=str(self.path),
            )

    def _identity(self, expected: str) -> str:
        """Return whose run this is. Without a readable status the directory's name may say it."""
        with contextlib.suppress(RunError):
            if identity := self.read_status().id:
                return identity
        return expected if self.path.name.endswith(f"-{expected}") else _UNKNOWN

    def _restore_status(self, identity: str) -> None:
        """Write a status that is damaged or gone anew: the checkpoints hold the run, and they are fine without it."""
        try:
            if self.read_status().id:
                return
            what = f"{_STATUS} was missing"
        except RunError:
            what = f"{_STATUS} was damaged"
        reason = f"{what} and has been written anew"
        _log.warning("%s: %s; the run goes on from its checkpoints", self.path, reason)
        self.write_json(_STATUS, dataclasses.asdict(Status("interrupted", reason, identity, updated=_now())))

    # ------------------------------------------------------------------ paths

    @property
    def checkpoints(self) -> Path:
        """Directory of the checkpoints; may not exist yet."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Directory of the sample grids; may not exist yet."""
        return self.path / "samples"

    def sample_path(self, step: int) -> Path:
        """Return where the sample grid of a training step lies; its directory is made."""
        self.samples.mkdir(exist_ok=True)
        return self.samples / f"{step:08d}.png"

    @property
    def log_path(self) -> Path:
        """The log; may not exist yet."""
        return self.path / _LOG

    # ------------------------------------------------------------------ one process at a time

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the run, so that no other process can run it, and remove what dead processes left half-written.

        The lock of a process that died is free.

        Args:
            waiting: told who runs it, and then it is waited for; None refuses instead.

        Raises:
            RunError: another process runs it and is not waited for; the message names it.
        """
        from gancompress.storage.checkpoint import clean

        with hold(self.path / _LOCK, waiting):
            for name in (".", "samples", "evaluations", "export"):
                sweep(self.path / name)
            for name in ("checkpoints", "rewind", "rounds"):
                clean(self.path / name)
            yield

    def status(self, state: State, reason: str | None = None) -> None:
        """Write how the run is doing. The time of the first start is kept.

        Raises:
            RunError: the disk refuses.
        """
        try:
            before = self.read_status()
        except RunError:  # damaged while it ran: what matters is what is written now
            before = Status(id=self._identity(self.path.name.rpartition("-")[2]))
        started = before.started or (_now() if state == "running" else None)
        status = Status(state, reason, before.id, os.getpid(), socket.gethostname(), started, _now())
        self.write_json(_STATUS, dataclasses.asdict(status))

    def read_status(self) -> Status:
        """Return how the run is doing; one that says running while nobody holds its lock was interrupted.

        Raises:
            RunError: ``status.json`` is damaged.
        """
        status = status_of(self.read_json(_STATUS), str(self.path / _STATUS))
        # Not its process: another may have its number by now, and another machine's cannot be seen.
        if status.state == "running" and not is_held(self.path / _LOCK):
            return dataclasses.replace(status, state="interrupted", reason="its process is gone")
        return status

    # ------------------------------------------------------------------ small files

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file of the run in one instant; non-finite numbers become null.

        Raises:
            RunError: the disk is full or refuses; the old file is untouched.
        """
        try:
            write_json(self.path / name, value)
        except OSError as error:
            raise RunError(f"cannot write: {error.strerror}", where=str(self.path / name)) from error

    def read_json(self, name: str, until: str = "") -> dict[str, Any]:
        """Return a JSON file of the run; empty when it is not there.

        Args:
            name: of the file.
            until: of a large file, what stands before this key is enough: the rest is not looked at.

        Raises:
            RunError: it is damaged.
        """
        return _read_object(self.path / name, until)

    def recipe(self) -> dict[str, Any]:
        """Return the resolved recipe as plain values.

        Raises:
            RunError: ``recipe.yaml`` is damaged.
        """
        path = self.path / _RECIPE
        try:
            return parse_yaml(read_whole(path, LARGEST_RECIPE).decode(), str(path)).data
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise RunError(f"cannot be read: {reason}", where=str(path)) from error
        except RecipeError as error:
            raise RunError(error.message, where=error.where) from error

    # ------------------------------------------------------------------ log

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to ``log.jsonl``: a whole line, handed to the system at once.

        Args:
            record: JSON-able values with at least ``kind`` and ``step``.

        Raises:
            RunError: the disk is full or refuses.
        """
        path = self.log_path
        # A null for NaN: a log that only Python can parse is no log.
        line = json.dumps(finite(record), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with path.open("ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as error:
            raise RunError(f"cannot write: {error.strerror}", where=str(path)) from error

    def sync_log(self) -> None:
        """Wait until the disk has the log: a checkpoint that outlives a power cut needs what was logged before it.

        Raises:
            RunError: the disk refuses.
        """
        path = self.path / _LOG
        try:
            if path.exists():
                sync(path)
                sync(self.path)
        except OSError as error:
            raise RunError(f"cannot write: {error.strerror}", where=str(path)) from error

    def read_log(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the records in order, those of ``kinds`` only if given. A torn end is left out.

        Raises:
            RunError: a line before the last whole one is damaged; the message names it.
        """
        return [record for record, _ in lines(self.log_path) if not kinds or record["kind"] in kinds]

    def last_step(self) -> int:
        """Return the step of the last whole record; 0 without one. Reads the end of the log only."""
        return last_step(self.log_path)

    def truncate_log(self, step: int) -> int:
        """Cut the log off at the first record of a later step, or at a torn end, so that the run can go on from there.

        What stays is not rewritten, so nothing can be lost in between.

        Args:
            step: step of the checkpoint; records of that step stay. 0 for a run that starts afresh.

        Returns:
            How many bytes were cut off.

        Raises:
            RunError: a line before the last whole one is damaged.
        """
        path, end, kept = self.log_path, 0, step > 0
        if not path.exists():
            return 0
        for record, stop in lines(path):
            kept = kept and record.get("step", 0) <= step
            end = stop if kept else end
        size = path.stat().st_size
        if size > end:
            with path.open("r+b") as file:
                file.truncate(end)
                os.fsync(file.fileno())
        return size - end


def _instead_of(path: Path) -> str:
    """Say which run may have been meant: one in ``path``, or beside it."""
    root = path if path.is_dir() else path.parent
    runs = [run.path.name for run in directories(root)]  # the one touched last first
    # an id says nothing about which run is meant, the name before it does
    name = path.name.rpartition("-")[0]
    meant = [run for run in runs if name and run.rpartition("-")[0] == name]
    meant = meant or difflib.get_close_matches(path.name, runs, n=1)
    if meant:
        return f"did you mean {root / meant[0]}? `gancompress ls` lists the runs"
    return f"the last run here is {root / runs[0]}" if runs else "`gancompress ls` lists the runs"


def directories(root: Path) -> list[RunDirectory]:
    """Return all runs under ``root``, the one touched last first."""
    runs = [RunDirectory(path) for path in root.iterdir() if (path / _RECIPE).is_file()] if root.is_dir() else []

    def touched(run: RunDirectory) -> tuple[str, str]:
        try:
            return run.read_status().updated or "", run.path.name
        except RunError:
            return "", run.path.name

    return sorted(runs, key=touched, reverse=True)


def _read_object(path: Path, until: str = "") -> dict[str, Any]:
    """Return the JSON object in a file, an empty one where there is none."""
    try:
        return parse_head(path, until) if until else parse_json(read_whole(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise RunError(f"cannot be read as JSON: {error}", where=str(path)) from error


_ABSENT = object()
#: identity of a run whose status does not say it
_UNKNOWN = "unknown"
_log = logging.getLogger(__name__)


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "nothing"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
