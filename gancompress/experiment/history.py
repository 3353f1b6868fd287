"""What a run has logged so far: training time, evaluations and sample grids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gancompress.runs.best import best_evaluation, of_other_protocol
from gancompress.runs.log import digest
from gancompress.runs.record import metrics_of

if TYPE_CHECKING:
    from gancompress.progress import Observer
    from gancompress.runs.directory import RunDirectory

__all__ = ["History"]


class History:
    """The log of a run that goes on, and what follows from it.

    Args:
        directory: the run directory.
        observer: shown every record.
        writes: write and show records; only the first of several processes does.
    """

    def __init__(self, directory: RunDirectory, observer: Observer, *, writes: bool = True) -> None:
        self.directory = directory
        self.seconds = 0.0
        self._observer = observer
        self._writes = writes
        self._evaluated: dict[int, dict[str, Any]] = {}
        self._sampled: set[int] = set()
        self._images: dict[int, str] = {}

    def resume(self, step: int) -> None:
        """Cut the log back to a checkpoint and take over what it says; 0 starts afresh."""
        if not self._writes:
            return
        self.directory.truncate_log(step)
        said = digest(self.directory.log_path)
        self.seconds = said.last("seconds") or 0.0
        # One that another hand has changed beyond use counts as not done.
        self._evaluated |= {record.get("step", 0): record for record in said.evaluations if metrics_of(record)}
        self._sampled |= said.samples.keys()
        self._images |= said.images

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to ``log.jsonl`` and show it."""
        if self._writes:
            self.directory.log(record)
            self._observer.record(record)

    def images_changed(self, step: int, changes: str) -> None:
        """Log it, unless the log says it: what is found at a resume is found at the next one again."""
        if self._images.get(step) != changes:
            self.log({"kind": "images", "step": step, "changes": changes})

    def trained(self, seconds: float) -> float:
        """Add training time and return the total, over all the times this run was started."""
        self.seconds += seconds
        return self.seconds

    def evaluated(self, record: dict[str, Any]) -> None:
        """Log an evaluation and keep it."""
        self._evaluated[record["step"]] = record
        self.log(record)

    def is_evaluated(self, step: int) -> bool:
        """Return whether the log holds an evaluation of ``step``."""
        return step in self._evaluated

    def sampled(self, step: int) -> bool:
        """Return whether the grid of ``step`` is drawn and logged; it counts as such from now on."""
        before = step in self._sampled
        self._sampled.add(step)
        return before

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The records of all evaluations by step."""
        return [self._evaluated[step] for step in sorted(self._evaluated)]

    @property
    def best_step(self) -> int | None:
        """Step of the best evaluation so far, see :mod:`gancompress.runs.best`."""
        best = best_evaluation(self.evaluations)
        return None if best is None else int(best["step"])

    def metrics(self) -> dict[str, Any]:
        """Return every evaluation so far, the best and the last, as ``metrics.json`` holds them."""
        evaluations = self.evaluations
        if not evaluations:
            return {}
        last, others = evaluations[-1], of_other_protocol(evaluations)
        return {
            "primary": metrics_of(last)[0].label,
            # A list of runs reads no further than to the evaluations.
            **({"of_other_protocol": others} if others else {}),
            "best": best_evaluation(evaluations) or last,
            "last": last,
            "evaluations": evaluations,
            "protocol": last.get("protocol"),
        }
