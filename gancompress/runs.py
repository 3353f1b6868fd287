"""Finished runs, opened again: their recipe, their checkpoints, their generator."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from gancompress.assemble import build_networks, make_backbone
from gancompress.data.base import ImageSpec
from gancompress.errors import RunError
from gancompress.recipe.load import load_recipe
from gancompress.training.checkpoint import Snapshot, checkpoints, load
from gancompress.training.rundir import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.backbones.base import Generator
    from gancompress.recipe.schema import Recipe

__all__ = ["FinishedRun", "open_run"]

_MODULE = "module."


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run directory with at least one checkpoint.

    Attributes:
        directory: the run directory.
        recipe: what was run.
    """

    directory: RunDirectory
    recipe: Recipe

    def step(self, which: str = "last") -> int:
        """Return the step that ``which`` means: ``last``, ``best`` (by the recipe's first metric) or a number.

        Raises:
            RunError: there is no such checkpoint; the message lists those that there are.
        """
        steps = [int(path.name) for path in checkpoints(self.directory.checkpoints)]
        if which == "last":
            return steps[-1]
        if which == "best":
            metrics = self.directory.read_json("metrics.json")
            if not metrics:
                raise RunError("this run was never evaluated, so no step is the best; use --step last")
            wanted = int(metrics["best"]["step"])
        elif which.isdigit():
            wanted = int(which)
        else:
            raise RunError(f"step {which!r} is neither 'last', 'best' nor a number")
        if wanted not in steps:
            kept = ", ".join(str(step) for step in steps)
            raise RunError(f"no checkpoint of step {wanted} in {self.directory.path}; there are: {kept}")
        return wanted

    def snapshot(self, which: str = "last") -> Snapshot:
        """Read and verify a checkpoint.

        Raises:
            CheckpointError: it is truncated or altered.
        """
        return load(self.directory.checkpoints / f"{self.step(which):08d}")

    def generator(self, which: str = "last", weights: Literal["ema", "live"] = "ema") -> Generator:
        """Rebuild the generator of a checkpoint, in eval mode, without touching the dataset."""
        snapshot = self.snapshot(which)
        network = build_networks(make_backbone(self.recipe, image_spec(snapshot.scalars)), self.recipe.seed).generator
        if weights == "ema":
            state = {
                name.removeprefix(_MODULE): tensor
                for name, tensor in snapshot.groups["ema"].items()
                if name.startswith(_MODULE)
            }
        else:
            state = dict(snapshot.groups["generator"])
        network.load_state_dict(state)
        return network.eval()


def image_spec(scalars: Any) -> ImageSpec:
    """Return the image spec that a checkpoint carries."""
    image = scalars["image"]
    return ImageSpec(int(image["channels"]), int(image["resolution"]), tuple(image["classes"]))


def open_run(path: Path) -> FinishedRun:
    """Open a run directory.

    Raises:
        RunError: it is no run directory, or has no checkpoint yet.
    """
    if not (path / "recipe.yaml").is_file():
        raise RunError("not a run directory: it has no recipe.yaml", where=str(path))
    directory = RunDirectory(path)
    if not checkpoints(directory.checkpoints):
        raise RunError("this run has no checkpoint yet; finish it with `gancompress run`", where=str(path))
    return FinishedRun(directory, load_recipe(str(path / "recipe.yaml")).recipe)
