"""Weights & Biases: into files that ``wandb sync`` sends, or, when asked to, straight to its server."""

from __future__ import annotations

import importlib.util
import os
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from gancompress.components.registry import TRACKERS
from gancompress.tracking.base import TrackedRun, Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["WeightsAndBiases"]

_MODES = ("offline", "online")
#: seconds that a server may take to answer before the run goes on without it
_PATIENCE = 30


@TRACKERS.register("wandb")
class WeightsAndBiases(Tracker):
    """A run of Weights & Biases with the id of ours, in the project ``gancompress`` or that of ``WANDB_PROJECT``.

    ``wandb``, or ``wandb:offline``, writes files into ``tracking/wandb/`` of the run directory and needs neither
    network nor account; ``wandb sync`` sends them later. ``wandb:online`` sends everything at once.
    """

    _run: Any

    @classmethod
    def available(cls) -> str | None:
        """Return what to install."""
        there = importlib.util.find_spec("wandb") is not None
        return None if there else "wandb is not installed: pip install 'gancompress[wandb]'"

    @classmethod
    def refuses(cls, option: str) -> str | None:
        """Return that there are two modes."""
        return None if option in ("", *_MODES) else f"is wandb:{' or wandb:'.join(_MODES)}, not wandb:{option}"

    def open(self, run: TrackedRun) -> None:
        """Begin the run, or add to it.

        Raises:
            OSError: the server cannot be reached.
            wandb.Error: it does not know who asks, or cannot be understood.
        """
        import wandb

        online = self.option == "online"
        if online:
            _reach(str(wandb.setup().settings.base_url))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "gancompress"),
            name=run.name,
            id=run.id,
            dir=str(run.folder),
            mode="online" if online else "offline",
            config=dict(run.recipe),
            settings=wandb.Settings(console="off", silent=True, init_timeout=_PATIENCE),
            resume="allow" if online else None,  # files of one id are one run when they are sent
        )
        # its own count of steps takes no number of a step that is past
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers."""
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, path: Path) -> None:
        """Log the image."""
        import wandb

        self._run.log({"step": step, name: wandb.Image(str(path))})

    def close(self) -> None:
        """Write, or send, what is left."""
        self._run.finish()


def _reach(server: str) -> None:
    """Ask a server for anything, once: wandb itself tries for minutes where nobody answers, whatever its timeout.

    Raises:
        OSError: nobody answers.
    """
    try:
        urllib.request.urlopen(server, timeout=_PATIENCE).close()
    except urllib.error.HTTPError as error:
        error.close()  # it answered
    except urllib.error.URLError as error:
        # of certificates wandb may know more than Python does
        if isinstance(error.reason, OSError) and not isinstance(error.reason, ssl.SSLError):
            raise OSError(f"nobody answers at {server} ({error.reason})") from error
