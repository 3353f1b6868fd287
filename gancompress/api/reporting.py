"""The report of a run while it runs: made again after every evaluation, and when the run ends otherwise than well."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.progress import Observer

__all__ = ["Reporting"]


class Reporting:
    """Tells another observer everything, and keeps ``report.html`` of the run directory.

    Args:
        observer: is told first; None for nobody.
    """

    def __init__(self, observer: Observer | None) -> None:
        self._observer: Observer = observer or Silent()
        self._directory: Path | None = None
        self.step, self.message = self._observer.step, self._observer.message

    def start(self, name: str, directory: str, total_steps: int, done: int) -> None:
        """Remember the directory."""
        self._observer.start(name, directory, total_steps, done)
        self._directory = Path(directory)

    def record(self, record: Mapping[str, Any]) -> None:
        """Make the report after an evaluation."""
        self._observer.record(record)
        if record.get("kind") == "evaluation":
            self._build()

    def finish(self) -> None:
        """Make the report: of a run that ends well it is made once more, of all others it is the last."""
        self._observer.finish()
        self._build()

    def _build(self) -> None:
        from gancompress.report.html import build_report

        if self._directory is not None:
            with contextlib.suppress(Exception):  # the run is worth more than its page, which is made at the end again
                build_report(self._directory)
