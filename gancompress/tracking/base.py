"""What a tracker is: a place outside the run directory's own files where curves and images of a run are shown."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["TrackedRun", "Tracker"]


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker is opened for.

    Attributes:
        name: of the recipe.
        id: the run's own, the same whenever it goes on, so that the tracker's run is the same too.
        folder: the tracker's own folder in the run directory; it exists.
        recipe: plain and fully resolved.
    """

    name: str
    id: str
    folder: Path
    recipe: Mapping[str, Any]


class Tracker(abc.ABC):
    """Shows a run while it trains. Subclass it and register it; ``--track NAME:OPTION`` asks for it.

    It is told everything once and in order, whatever interruptions the run had: what was logged before it was asked for
    comes first. Whatever it raises ends the following and never the run. Nothing that it does may draw from a global
    random state.

    Args:
        option: what follows the colon.
    """

    def __init__(self, option: str = "") -> None:
        self.option = option

    @classmethod
    def available(cls) -> str | None:
        """Return why it cannot be used here, with what mends it; None when it can. Costs no import of what it needs."""
        return None

    @classmethod
    def refuses(cls, option: str) -> str | None:
        """Return why ``option`` says nothing that it knows; None when it does."""
        return f"takes no option, got {option!r}" if option else None

    @abc.abstractmethod
    def open(self, run: TrackedRun) -> None:
        """Begin, or go on with, the run of that id. Called once, before all else."""

    @abc.abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers at a training step, each under its name: ``train/g_loss``, ``masks/generator/churn``, ….

        Every number is finite. Called several times for one step, with other names each time.
        """

    @abc.abstractmethod
    def image(self, step: int, name: str, path: Path) -> None:
        """Show an image, a PNG."""

    def close(self) -> None:  # noqa: B027 -- nothing to do for most
        """Bring everything to where it is shown. Called once, whatever happened after :meth:`open`."""
