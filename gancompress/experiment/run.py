"""The composition root: a recipe becomes objects, rounds of training, evaluations, costs and files.

A run is resumed by running it again. Whatever a step depends on is in the last checkpoint; whatever a round starts
from is a pure function of the checkpoint that ended the round before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gancompress.cost.summary import run_cost
from gancompress.data.census import Census, changes
from gancompress.data.classes import data_warnings
from gancompress.errors import CheckpointError, DataError, RunError, working
from gancompress.experiment.acceleration import device_of
from gancompress.experiment.history import History
from gancompress.experiment.interrupt import Interruption
from gancompress.experiment.measure import Evaluator
from gancompress.experiment.networks import build_task
from gancompress.experiment.pinning import pinned
from gancompress.experiment.provenance import environment, note_plugins
from gancompress.experiment.ready import Ready, get_ready, open_images
from gancompress.experiment.session import Session
from gancompress.experiment.shortfall import shortfalls, start, start_notes
from gancompress.methods.channels import kept_channels
from gancompress.progress import Observer, Silent
from gancompress.recipe.identity import directory_name
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import RunRecord, read_run
from gancompress.seeds import kept_global
from gancompress.storage.checkpoint import Snapshot, latest, put_to_use
from gancompress.training.freed import keep_memory
from gancompress.training.groups import Group
from gancompress.units import some

if TYPE_CHECKING:
    from pathlib import Path

    from gancompress.data.base import Dataset, DatasetConfig, ImageSpec
    from gancompress.recipe.schema import Recipe

__all__ = ["Experiment"]


class Experiment:
    """One run of one recipe in one directory.

    Args:
        recipe: what to run.
        root: directory that holds runs.
        observer: told what happens.
        evaluates: measure the generator as the recipe says; off for ``gancompress train``.
        group: processes that train together.
    """

    def __init__(
        self,
        recipe: Recipe,
        root: Path,
        observer: Observer | None = None,
        *,
        evaluates: bool = True,
        group: Group | None = None,
    ) -> None:
        self.recipe = recipe
        self.observer: Observer = observer if observer is not None else Silent()
        self.evaluates = evaluates
        self.group = group if group is not None else Group()
        self._root = root
        self._directory: RunDirectory | None = None

    @property
    def directory(self) -> RunDirectory:
        """The run directory; exists once the run has been found possible."""
        if self._directory is None:
            raise RunError("this run has no directory yet: call run() first")
        return self._directory

    # ------------------------------------------------------------------ the whole run

    def run(self) -> RunRecord:
        """Train, evaluate and cost the recipe, from wherever the directory says it is, and return what it left.

        Raises:
            GancompressError: whatever is wrong with the recipe, the data, the directory or the training.
            KeyboardInterrupt: the run was interrupted; a checkpoint was written first.
        """
        with kept_global(device_of(self.recipe)):  # networks may draw from them, and are seeded for it
            return self._whole_run()

    def _whole_run(self) -> RunRecord:
        if self.recipe.training.threads:
            torch.set_num_threads(self.recipe.training.threads)
        if device_of(self.recipe).type == "cpu":
            keep_memory()
        # whatever can be refused is refused before there is a directory
        self.recipe = pinned(self.recipe)
        images = open_images(self.recipe, self.group, evaluates=self.evaluates)
        there = self._root / directory_name(self.recipe) / "checkpoints"
        dataset, ready = images.dataset, get_ready(self.recipe, images, self.group, there)
        if not self.group.is_main:
            self.group.barrier()
            self._directory = RunDirectory(self._root / directory_name(self.recipe))
            with Interruption() as interruption:
                self._run(dataset, ready, interruption)
            return RunRecord(self.directory.path)
        self._directory = RunDirectory.open(self._root, self.recipe)
        with self.directory.lock(self._say_waiting), Interruption(self._say_stopping) as interruption:
            self.directory.status("running")
            if self.recipe.smoke:
                self.observer.message("smoke run: it draws its own images, and reads none of the recipe's")
            for line in data_warnings(dataset):
                self.observer.message(f"warning: {line}")
            for change in note_plugins(self.directory, self.recipe):
                self.observer.message(f"note: {change}")
            self.group.barrier()
            try:
                self._run(dataset, ready, interruption)
            except KeyboardInterrupt as stop:
                self.directory.status("interrupted", str(stop) or "stopped by a signal")
                raise
            except BaseException as error:
                self.directory.status("failed", f"{type(error).__name__}: {error}")
                raise
            finally:
                self.observer.finish()
            self.directory.status("done")
        return read_run(self.directory.path)

    def _say_stopping(self) -> None:
        self.observer.message("stopping after this step (after its evaluation, if one runs); again to stop at once")

    def _say_waiting(self, holder: str) -> None:
        self.observer.message(
            f"{self.directory.path} is being run by {holder}: waiting for it to end (Ctrl-C gives up)"
        )

    def _run(self, dataset: Dataset[DatasetConfig], ready: Ready, interruption: Interruption) -> None:
        trainer = ready.trainer
        history = History(self.directory, self.observer, writes=self.group.is_main)
        census = dataset.census() if self.group.is_main else None
        resumed = self._resume(ready, history, census)
        total = sum(current.steps for current in ready.rounds)
        self.observer.start(self.recipe.name, str(self.directory.path), total, trainer.position.total)
        task = build_task(self.recipe)
        evaluator = Evaluator(self.recipe.evaluation, dataset, trainer.device, self.observer, task)
        session = Session(
            recipe=self.recipe,
            architecture=ready.architecture,
            trainer=trainer,
            rounds=ready.rounds,
            history=history,
            task=task,
            dataset=dataset,
            evaluator=evaluator if self.evaluates else None,
            observer=self.observer,
            group=self.group,
            interruption=interruption,
            census=census,
        )
        with working():
            if resumed:
                session.catch_up()
            session.train()
            if self.group.is_main:
                self.directory.sync_log()
            self._finish(ready, history)

    def _resume(self, ready: Ready, history: History, census: Census | None) -> bool:
        """Restore the newest good checkpoint, or initialise; return whether there was one."""
        trainer = ready.trainer
        found = latest(self.directory.checkpoints)
        step = found.snapshot.step if found.snapshot is not None else 0
        self.group.assert_same(
            f"step {step}", "the checkpoint to go on from; the output directory must be on a disk that all share"
        )
        for refused in found.refused:
            self.observer.message(f"refused: {refused.reason}")
        if found.path is not None and found.snapshot is not None:
            with put_to_use(found.path):
                _refuse_other_images(found.snapshot, trainer.generator.image)
                groups = {name: dict(group) for name, group in found.snapshot.groups.items()}
                trainer.restore(groups, dict(found.snapshot.scalars))
        elif found.refused:
            raise CheckpointError(
                "no checkpoint of this run is intact; remove the directory to start again",
                where=str(self.directory.path),
            )
        else:
            kept = ready.kept if ready.kept is not None else start(self.recipe, trainer)
            for line in start_notes(self.recipe, trainer.engine, kept) if self.group.is_main else ():
                self.observer.message(line)
        history.resume(step)
        if census is not None and found.snapshot is not None and "data" in found.snapshot.scalars:
            with put_to_use(self.directory.checkpoints / f"{step:08d}"):
                then = Census.from_checkpoint(found.snapshot.scalars["data"], found.snapshot.groups["data"])
            if changed := ", ".join(changes(then, census)):
                self.observer.message(
                    f"warning: the images changed since step {step} of this run: {changed}; its numbers are of two "
                    "datasets from here on"
                )
                history.images_changed(step, changed)
        self.group.barrier()
        return found.snapshot is not None

    def _finish(self, ready: Ready, history: History) -> None:
        trainer = ready.trainer
        for line in shortfalls(trainer.engine) if self.group.is_main else ():
            self.observer.message(f"warning: {line}")
        metrics = history.metrics()
        with trainer.engine.dense():
            engine = trainer.engine
            engine.count_steps()
            budgets = {name: engine.state(name).budgets for name in engine.roles}
            units = {name: engine.budget(name).units for name in engine.roles}
            cost = run_cost(trainer.networks, budgets, trainer.optimizers, trainer.counter, history.seconds, units)
        if ready.memory is not None:
            cost["bytes"]["training"] = ready.memory.to_dict()
        if ready.architecture.widths:
            cost["widths"] = dict(ready.architecture.widths)
        if trainer.engine.method.sees_channels:
            cost["channels"] = {
                role: {
                    group.name: {"width": group.width, "kept": kept_channels(group, masks).nonzero().flatten().tolist()}
                    for group in engine.channels(role)
                }
                for role in engine.roles
                for masks in (engine.state(role).masks,)
            }
        mark = {"smoke": True} if self.recipe.smoke else {}
        metrics, cost = {**mark, **metrics} if metrics else metrics, {**mark, **cost}
        if self.group.is_main:
            if metrics:
                self.directory.write_json("metrics.json", metrics)
            self.directory.write_json("cost.json", cost)
            self.directory.write_json("environment.json", {**mark, **environment(trainer.device)})


def _refuse_other_images(snapshot: Snapshot, image: ImageSpec) -> None:
    """Raise if the images have another shape, or other classes, than those that the networks were trained on."""
    then = snapshot.scalars.get("image", {})
    now = image.to_json()
    kinds = [
        f"{key} {then[key]} then, {now[key]} now" for key in ("channels", "resolution") if then.get(key) != now[key]
    ]
    classes = then.get("classes", [])
    for what, names in (
        ("gone", [name for name in classes if name not in image.classes]),
        ("new", [name for name in image.classes if name not in classes]),
    ):
        if names:
            kinds.append(f"{what} classes: {some([repr(name) for name in names[:3]], len(names))}")
    if then and (kinds or classes != now["classes"]):
        raise DataError(
            f"the images are not those that this run was trained on until step {snapshot.step}: "
            f"{'; '.join(kinds) or 'the classes are in another order'}; put them back, or start another run"
        )
