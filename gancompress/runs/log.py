"""The log of a run: one JSON record a line, read in bounded memory however long it has become. Imports no torch."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic_core import from_json

from gancompress.errors import RunError
from gancompress.storage.reading import LARGEST_NUMBER, open_regular, tamed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LogDigest", "Record", "digest", "last_step", "lines"]

Record: TypeAlias = dict[str, Any]

#: bytes of the longest line; a few kilobytes are usual
_LONGEST = 1 << 22
#: bytes at the end of a log in which its last whole record lies
_TAIL = 1 << 16
_LAST_STEP = 1 << 53
#: records that are held whole, and points of a curve of those before them; charts draw far fewer
_MOST = 8192
#: keys of a record that say what it is of
_WHERE = ("kind", "step", "role")


def lines(path: Path) -> Iterator[tuple[Record, int]]:
    """Yield every whole record and the position of its end in the file; nothing when there is no file.

    What a crash leaves is damage at the end, which is left out; damage with whole records behind it is not ours.

    Raises:
        RunError: a line before the last whole one is damaged; the message names it.
    """
    stop = number = damaged = 0
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            while line := file.readline(_LONGEST):
                stop += len(line)
                number += 1
                record = _record(line)
                if record is None:
                    damaged = damaged or number
                elif damaged:
                    raise RunError("damaged line in the log; delete that line to go on", where=f"{path}:{damaged}")
                else:
                    yield record, stop
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror}", where=str(path)) from error


def last_step(path: Path) -> int:
    """Return the step of the last whole record; 0 without one. Reads the end of the log only."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            end = file.read(_TAIL).splitlines(keepends=True)
    except OSError:
        return 0
    return next((record["step"] for line in reversed(end) if (record := _record(line)) and "step" in record), 0)


class LogDigest:
    """What a log says, in memory that does not grow with its training steps.

    Attributes:
        evaluations: records of all evaluations, in order.
        samples: file of every sample grid, by step.
        shows: what grids show from left to right; empty where that goes without saying.
        rounds: steps at which a round ended.
        images: what had changed among the images when the run went on from a step.
    """

    def __init__(self) -> None:
        self.evaluations: list[Record] = []
        self.samples: dict[int, str] = {}
        self.shows = ""
        self.rounds: list[int] = []
        self.images: dict[int, str] = {}
        self._tables: dict[tuple[str, str], dict[tuple[str, ...], _Table]] = {}
        self._texts: dict[str, str] = {}

    def add(self, record: Record) -> None:
        """Take in one record."""
        kind, step = record["kind"], record.get("step", 0)
        if kind in ("train", "update"):
            role = record.get("role", "") if kind == "update" else ""
            keys = tuple(record)
            if not isinstance(role, str) or "step" not in keys:
                return
            tables = self._tables.setdefault((kind, role), {})
            table = tables.get(keys)
            if table is None:
                table = tables[keys] = _Table(keys)
            table.add(record)
        elif kind == "evaluation":
            self.evaluations.append(tamed(record, self._texts))
        elif kind == "sample":
            self.samples[step] = str(record.get("file", ""))
            self.shows = str(record.get("shows", ""))
        elif kind == "round":
            self.rounds.append(step)
        elif kind == "images":
            self.images[step] = str(record.get("changes", ""))

    def keys(self, kind: str) -> list[str]:
        """Return what the records of a kind (``train``, ``update``) say of their step, in the order of the log."""
        found = [keys for (one, _), tables in self._tables.items() if one == kind for keys in tables]
        return list(dict.fromkeys(key for keys in found for key in keys if key not in _WHERE))

    def curve(self, kind: str, key: str, role: str = "") -> list[tuple[float, float]]:
        """Return (step, value) by step, NaN where no finite number was logged.

        Of a long log these are the lowest and the highest of every stretch, and its newest lines.

        Args:
            kind: ``train`` or ``update``.
            key: as in the log.
            role: of an update; empty for training.
        """
        tables = [table for keys, table in self._tables.get((kind, role), {}).items() if key in keys]
        points = [point for table in tables for point in table.points(key)]
        return sorted(points, key=lambda point: point[0]) if len(tables) > 1 else points

    def last(self, key: str) -> float | None:
        """Return the last number that the training logged under ``key``; None without one."""
        finite = (point for point in reversed(self.curve("train", key)) if math.isfinite(point[1]))
        return next((value for _, value in finite), None)


class _Table:
    """Records that have the same keys: whole ones, and the extremes of those that came before."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys
        #: values of one record after the other: as lists they would be looked at by every collection of garbage
        self._values: list[Any] = []
        #: (2, extremes): steps and values by key
        self._before: dict[str, NDArray[np.float64]] = {}
        self._stretch = 4

    def add(self, record: Record) -> None:
        """Take in the values of one record."""
        if len(self._values) >= _MOST * len(self._keys):
            self._pack()
        self._values.extend(record.values())

    def _column(self, key: str) -> list[Any]:
        return self._values[self._keys.index(key) :: len(self._keys)]

    def points(self, key: str) -> list[tuple[float, float]]:
        """Return (step, value)."""
        before = self._before[key].tolist() if key in self._before else ([], [])
        newest = zip(map(float, self._column("step")), map(_float, self._column(key)), strict=True)
        return [*zip(*before, strict=True), *newest]

    def _pack(self) -> None:
        import numpy as np  # long logs only

        steps = np.array(self._column("step"), dtype=np.float64)
        for key in {*self._keys}.difference(_WHERE):
            column = self._column(key)
            plain = {*map(type, column)} == {float}
            values = np.array(column if plain else [*map(_float, column)])
            values[~(np.abs(values) <= LARGEST_NUMBER)] = np.nan
            new = _extremes(np.stack([steps, values]), self._stretch)
            self._before[key] = np.concatenate([self._before[key], new], axis=1) if key in self._before else new
        self._values.clear()
        if any(points.shape[1] >= _MOST for points in self._before.values()):
            self._stretch = min(2 * self._stretch, _MOST)
            self._before = {key: _extremes(points, 4) for key, points in self._before.items()}


def _extremes(points: NDArray[np.float64], stretch: int) -> NDArray[np.float64]:
    """Return the lowest and the highest of every ``stretch`` points in their order; both are (2, points)."""
    import numpy as np

    whole = points.shape[1] // stretch
    values = points[1, : whole * stretch].reshape(whole, stretch)
    at = stretch * np.arange(whole)
    low = at + np.where(np.isnan(values), np.inf, values).argmin(1)
    high = at + np.where(np.isnan(values), -np.inf, values).argmax(1)
    kept = np.sort(np.concatenate([low, high, np.arange(whole * stretch, points.shape[1])]))
    found: NDArray[np.float64] = points[:, kept]
    return found


def digest(path: Path) -> LogDigest:
    """Read a log from end to end.

    Raises:
        RunError: see :func:`lines`.
    """
    found = LogDigest()
    for record, _ in lines(path):
        found.add(record)
    return found


def _record(line: bytes) -> Record | None:
    """Return what a line of the log says, or None when it is torn or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = from_json(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    step = record.get("step", 0)
    return record if type(step) is int and 0 <= step < _LAST_STEP else None


def _float(value: Any) -> float:
    """Return a number as a float, NaN for all else."""
    return float(value) if type(value) in (float, int) and abs(value) <= LARGEST_NUMBER else math.nan
