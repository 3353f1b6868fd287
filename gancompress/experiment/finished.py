"""Finished runs, opened again: their recipe, their checkpoints, their generator."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from gancompress.data.folder import Folder, FolderConfig
from gancompress.errors import GancompressError, RunError, located, working
from gancompress.evaluation.samples import sample_grid, save_images
from gancompress.experiment.acceleration import device_of
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.measure import Evaluator, check_evaluation, check_measurable, metric_record
from gancompress.experiment.networks import build_task, stored_architecture
from gancompress.progress import Observer, Silent
from gancompress.recipe.load import load_recipe
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import RunRecord
from gancompress.storage.checkpoint import Snapshot, checkpoints, load, put_to_use
from gancompress.tasks.images import ImageInputs, apply, draw_groups
from gancompress.training.ema import load_average

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from torch import Tensor

    from gancompress.architecture.description import Architecture
    from gancompress.backbones.base import Generator
    from gancompress.data.domains import Domains
    from gancompress.recipe.schema import Recipe

__all__ = ["OpenedRun", "check_samples", "folder_of_images", "open_run", "write_samples", "write_translated"]


@dataclasses.dataclass(frozen=True)
class OpenedRun:
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
            best = RunRecord(self.directory.path).best
            if best is None:
                raise RunError("this run was never evaluated, so no step is the best; use step last")
            wanted = best[0]
        elif which.isdigit():
            wanted = int(which)
        else:
            raise RunError(f"step {which!r} is neither 'last', 'best' nor a number")
        if wanted not in steps:
            kept = ", ".join(str(step) for step in steps)
            raise RunError(f"no checkpoint of step {wanted} in {self.directory.path}; there are: {kept}")
        return wanted

    def snapshot(self, which: str = "last", groups: Collection[str] | None = None) -> Snapshot:
        """Read a checkpoint, all of it or some groups, and verify what is read.

        Raises:
            CheckpointError: it is truncated or altered.
        """
        return load(self.directory.checkpoints / f"{self.step(which):08d}", groups=groups)

    def _where(self, step: int) -> str:
        return str(self.directory.checkpoints / f"{step:08d}")

    def generator(self, which: str = "last", weights: Literal["ema", "live"] = "ema") -> Generator:
        """Rebuild the generator of a checkpoint, in eval mode, without touching the dataset."""
        return self.rebuild(self.snapshot(which, ("ema" if weights == "ema" else "generator",)), weights)[0]

    def rebuild(self, snapshot: Snapshot, weights: Literal["ema", "live"] = "ema") -> tuple[Generator, Architecture]:
        """Rebuild the generator of a snapshot, in eval mode; return what the networks are with it."""
        with put_to_use(self.directory.checkpoints / f"{snapshot.step:08d}"):
            architecture = stored_architecture(snapshot.scalars, self.recipe)
            with torch.random.fork_rng(devices=[]):
                network = architecture.generator()
            groups = snapshot.groups
            if weights == "ema":
                load_average(network, groups["ema"])
            else:
                network.load_state_dict(dict(groups["generator"]))
        return network.eval(), architecture

    def evaluate(self, which: str = "last", observer: Observer | None = None) -> tuple[Path, list[dict[str, Any]]]:
        """Measure a checkpoint as the recipe's evaluation section says (changed by what the run was opened with).

        Returns:
            The file in ``evaluations/`` that keeps the result, and one record per metric.
        """
        config, step = self.recipe.evaluation, self.step(which)
        check_evaluation(config)
        dataset, task = build_dataset(self.recipe), build_task(self.recipe)
        check_measurable(config, dataset, task)
        device = device_of(self.recipe)
        network = self.generator(str(step), config.weights).to(device)
        watching = observer if observer is not None else Silent()
        with working(), located(self._where(step)):
            outcome = Evaluator(config, dataset, device, watching, task)(network)
        records = [metric_record(result) for result in outcome.results]
        (self.directory.path / "evaluations").mkdir(exist_ok=True)
        name = f"evaluations/{step:08d}-{outcome.protocol.hash}.json"
        self.directory.write_json(
            name,
            {
                **({"smoke": True} if self.recipe.smoke else {}),
                "step": step,
                "metrics": records,
                "protocol": outcome.protocol.to_json(),
                "seconds": outcome.seconds,
            },
        )
        return self.directory.path / name, records

    def sample(
        self,
        out: Path,
        *,
        count: int = 100,
        label: int | None = None,
        seed: int = 0,
        step: str = "last",
        truncation: float = 1.0,
        inputs: Path | None = None,
    ) -> Path:
        """Write images of the averaged generator: a grid into a ``.png``, single images into a folder or a ``.zip``.

        A generator that eats images is fed ``inputs``, a folder of them, or those that the run holds out; no image is
        made twice.
        """
        network = self.generator(step)
        if truncation != 1:
            network.truncate(truncation)
        check_samples(network, out, label, inputs)
        with located(self._where(self.step(step))):
            if network.translates:
                return self.translate(network, out, count, seed, inputs)
            return write_samples(network, out, count, label, seed)

    def first_inputs(self, count: int = 2) -> list[Tensor]:
        """Return the first images that the run holds out as its generator is fed them, (1, C, H, W) in [-1, 1] each.

        None where the data are not there any more: a generator needs them no longer.
        """
        try:
            given = ImageInputs(self._held_out().source)
        except GancompressError:
            return []
        return [given(index, index + 1) for index in range(count)]

    def _held_out(self) -> Domains[Any]:
        return cast("Domains[Any]", build_dataset(self.recipe)).held_out

    def translate(self, network: Generator, out: Path, count: int, seed: int = 0, inputs: Path | None = None) -> Path:
        """Write what a generator makes of images; in a grid beside these, and beside the target of a pair."""
        if inputs is not None:
            return write_translated(network, out, count, seed, folder_of_images(network, inputs))
        domains = self._held_out()
        wanted = ImageInputs(domains.target) if domains.paired else None
        return write_translated(network, out, count, seed, ImageInputs(domains.source), wanted)


def check_samples(network: Generator, out: Path, label: int | None, inputs: Path | None) -> None:
    """Refuse what a generator cannot be asked for, before it is computed.

    Raises:
        RunError: there is no such class, a grid is to show one class, or a generator of latents is given images.
    """
    classes = network.num_classes
    if label is not None and label >= classes:
        known = f"0 to {classes - 1}" if classes else "none: the generator is unconditional"
        raise RunError(f"there is no class {label}; known: {known}")
    if out.suffix == ".png" and label is not None:
        raise RunError("a grid shows every class; for one class name a folder or a .zip as output")
    if inputs is not None and not network.translates:
        raise RunError("this generator makes images of latents: leave inputs out")


def write_samples(network: Generator, out: Path, count: int, label: int | None, seed: int) -> Path:
    """Write images of latents: a grid into a ``.png``, single images into a folder or a ``.zip``."""
    if out.suffix == ".png":
        return sample_grid(network, out, rows=-(-count // 10), seed=seed)
    return save_images(network, out, count=count, classes=network.image.classes, only_class=label, seed=seed)


def folder_of_images(network: Generator, path: Path) -> ImageInputs:
    """Return the images of a folder, of the size that a generator takes."""
    settings = {"resolution": network.image.resolution, "channels": network.image.channels, "labelled": False}
    return ImageInputs(Folder(FolderConfig(path=str(path), **settings)))


def write_translated(
    network: Generator, out: Path, count: int, seed: int, given: ImageInputs, wanted: ImageInputs | None = None
) -> Path:
    """Write what a generator makes of images; in a grid beside these, and beside what was wanted."""
    count = min(count, len(given))
    if out.suffix != ".png":
        return save_images(network, out, count=count, seed=seed, inputs=given)
    shown = given(0, count)
    made = apply(network, shown, seed)
    return draw_groups((shown, made) if wanted is None else (shown, made, wanted(0, count)), out)


def open_run(path: Path, overrides: Sequence[str] = ()) -> OpenedRun:
    """Open a run directory, with settings of its recipe changed as by ``--set``.

    Raises:
        RunError: it is no run directory, or has no checkpoint yet.
    """
    directory = RunDirectory(path)
    if not checkpoints(directory.checkpoints):
        raise RunError("this run has no checkpoint yet; finish it with `gancompress run`", where=str(path))
    return OpenedRun(directory, load_recipe(path / "recipe.yaml", overrides).recipe)
