"""What a run tells whoever watches it. Silent by default; the command line draws it, a notebook may too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Observer", "Silent"]


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
