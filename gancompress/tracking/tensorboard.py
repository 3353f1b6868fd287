"""TensorBoard: event files in the run directory, for ``tensorboard --logdir runs``."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from gancompress.components.registry import TRACKERS
from gancompress.tracking.base import TrackedRun, Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["TensorBoard"]


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """Event files in ``tracking/tensorboard/`` of the run directory; several are one run to TensorBoard."""

    _writer: Any

    @classmethod
    def available(cls) -> str | None:
        """Return what to install."""
        there = importlib.util.find_spec("tensorboard") is not None
        return None if there else "tensorboard is not installed: pip install 'gancompress[tensorboard]'"

    def open(self, run: TrackedRun) -> None:
        """Add an event file to those that are there."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder))
        if len(list(run.folder.glob("events.*"))) == 1:
            words = "\n".join(f"    {line}" for line in _lines(run.recipe))
            self._writer.add_text("recipe", words, 0)
            self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write each number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def image(self, step: int, name: str, path: Path) -> None:
        """Write the pixels."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._writer.add_image(name, pixels, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _lines(node: Any, path: str = "") -> list[str]:
    """Return a plain mapping as lines ``key.path: value``."""
    if isinstance(node, dict):
        return [line for key, value in node.items() for line in _lines(value, f"{path}.{key}".lstrip("."))]
    return [f"{path}: {node}"]
