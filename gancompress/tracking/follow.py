"""An observer of a run that tells trackers what it is told, and one observer more."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.components.registry import TRACKERS
from gancompress.errors import ComponentError, GancompressError
from gancompress.runs.directory import RunDirectory
from gancompress.runs.log import lines
from gancompress.storage.atomic import whole_file
from gancompress.storage.reading import LARGEST_NUMBER
from gancompress.tracking.base import TrackedRun, Tracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gancompress.progress import Observer

__all__ = ["Following", "open_trackers", "scalars_of"]

#: folder of a run directory with one folder per tracker
FOLDER = "tracking"
#: what a tracker was told last
_TOLD = "told.json"
#: keys of a record that are no numbers to follow
_PLACE = ("kind", "step", "role", "round")


def open_trackers(names: Sequence[str]) -> list[tuple[str, Tracker]]:
    """Return the trackers that ``--track`` asks for, by name, none of them open yet.

    Args:
        names: each ``NAME`` or ``NAME:OPTION``.

    Raises:
        ComponentError: there is no such tracker, it does not know the option, or it is named twice.
    """
    found: dict[str, Tracker] = {}
    for one in names:
        name, _, option = one.partition(":")
        kind = TRACKERS.get(name)
        if (reason := kind.refuses(option)) is not None:
            raise ComponentError(f"tracker {name} {reason}")
        if name in found:
            raise ComponentError(f"tracker {name} is named twice")
        found[name] = kind(option)
    return list(found.items())


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record of the log under the names that trackers show.

    Training gives ``train/…``, an update of masks ``masks/ROLE/…`` (its churn among them), an evaluation
    ``evaluation/METRIC``. Numbers that are not finite are left out.
    """
    kind = record["kind"]
    if kind == "evaluation":
        metrics = record.get("metrics", ())
        values = {f"evaluation/{one['key']}": one["value"] for one in metrics if "key" in one and "value" in one}
        values |= {f"evaluation/{key}": value for key, value in record.items() if key.startswith("density_")}
    elif kind == "update":
        values = {f"masks/{record.get('role', '')}/{key}": record[key] for key in record if key not in _PLACE}
    elif kind == "train":
        values = {f"train/{key}": record[key] for key in record if key not in _PLACE}
    else:
        values = {}
    return {name: float(value) for name, value in values.items() if _is_finite(value)}


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= LARGEST_NUMBER


class _Followed:
    """One open tracker, and what it was told already.

    A run that was interrupted repeats the steps since its checkpoint, with the same numbers; they are told once.
    """

    def __init__(self, name: str, tracker: Tracker, directory: RunDirectory) -> None:
        self.name, self.tracker = name, tracker
        self._directory = directory.path
        folder = directory.path / FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        self._note = folder / _TOLD
        self._step, self._told = -1, set[str]()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(self._note.read_text(encoding="utf-8"))
            self._step, self._told = int(told["step"]), set(map(str, told["records"]))
        recipe = directory.recipe()
        run = TrackedRun(str(recipe.get("name", "")), directory.path.name, folder, recipe)
        self.tracker.open(run)

    def tell(self, record: Mapping[str, Any]) -> None:
        """Show a record, unless it was shown before."""
        step = int(record.get("step", 0))
        what = f"{record['kind']}/{record.get('role', '')}"
        if step < self._step or (step == self._step and what in self._told):
            return
        if record["kind"] == "sample":
            self.tracker.image(step, "samples", self._directory / str(record["file"]))
        elif values := scalars_of(record):
            self.tracker.scalars(step, values)
        else:
            return
        self._told = {*self._told, what} if step == self._step else {what}
        self._step = step

    def note(self) -> None:
        """Keep what was told; what a power cut takes of it is told twice."""
        with whole_file(self._note, one_of_many=True) as aside:
            aside.write_text(json.dumps({"step": self._step, "records": sorted(self._told)}), encoding="utf-8")


class Following:
    """An observer that passes everything on to another one, and the log's records to trackers.

    A tracker that fails is said once and left alone from then on; the run knows nothing of it.

    Args:
        observer: the other one.
        trackers: by name, not open yet.
    """

    def __init__(self, observer: Observer, trackers: Sequence[tuple[str, Tracker]]) -> None:
        self._observer, self._asked = observer, list(trackers)
        self._open: list[_Followed] = []

    def start(self, name: str, directory: str, total_steps: int, done: int) -> None:
        """Open the trackers and tell each what it has missed of the log."""
        self._observer.start(name, directory, total_steps, done)
        run = RunDirectory(Path(directory))
        asked, self._asked = self._asked, []
        for called, tracker in asked:
            if (reason := tracker.available()) is not None:
                self._without(called, reason)
                continue
            followed = None
            with self._left_on_failure(called):
                followed = _Followed(called, tracker, run)
                self._open.append(followed)
            if followed is not None:
                with self._left_on_failure(called, followed):
                    for record, _ in lines(run.log_path):
                        followed.tell(record)
                    followed.note()

    def step(self, done: int, rate: float) -> None:
        """Pass it on."""
        self._observer.step(done, rate)

    def record(self, record: Mapping[str, Any]) -> None:
        """Pass a line of the log on, and tell it to every tracker."""
        self._observer.record(record)
        for followed in list(self._open):
            with self._left_on_failure(followed.name, followed):
                followed.tell(record)
                followed.note()

    def message(self, text: str) -> None:
        """Pass it on."""
        self._observer.message(text)

    def finish(self) -> None:
        """Close the trackers."""
        while self._open:
            followed = self._open.pop()
            with self._left_on_failure(followed.name):
                followed.tracker.close()
        self._observer.finish()

    @contextlib.contextmanager
    def _left_on_failure(self, name: str, followed: _Followed | None = None) -> Iterator[None]:
        """Leave a tracker alone whatever it raises, and say so; it is closed if it was open."""
        try:
            yield
        except Exception as error:
            words = str(error) if isinstance(error, GancompressError) else f"{type(error).__name__}: {error}"
            self._without(name, words)
            if followed is not None and followed in self._open:
                self._open.remove(followed)
                with contextlib.suppress(Exception):
                    followed.tracker.close()

    def _without(self, name: str, reason: str) -> None:
        said = " ".join(reason.split())
        self.message(f"warning: {name} does not follow this run: {said}; it goes on, and log.jsonl has everything")
