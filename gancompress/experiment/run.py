"""The composition root: a recipe becomes objects, rounds of training, evaluations, costs and files.

A run is resumed by running it again. Whatever a step depends on is in the last checkpoint; whatever a round starts
from is a pure function of the checkpoint that ended the round before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

from gancompress.cost.summary import run_cost
from gancompress.errors import CheckpointError, RunError
from gancompress.evaluation.extractors import Extractor, build_extractor
from gancompress.experiment.assemble import (
    ROLES,
    build_backbone,
    build_dataset,
    build_trainer,
    chosen_widths,
    declared_rounds,
    device_of,
)
from gancompress.experiment.environment import environment
from gancompress.experiment.initial import load_initial
from gancompress.experiment.interrupt import Interruption
from gancompress.experiment.measure import check_evaluation, measure, metric_record, say_once
from gancompress.experiment.memory import MemoryEstimate, check_images, check_memory, check_networks
from gancompress.experiment.provenance import note_plugins
from gancompress.experiment.session import Session
from gancompress.progress import Observer, Silent
from gancompress.recipe.identity import directory_name
from gancompress.runs.directory import RunDirectory
from gancompress.runs.record import RunRecord, read_run
from gancompress.storage.checkpoint import checkpoints, latest
from gancompress.training.groups import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.methods.base import Round
    from gancompress.recipe.schema import Recipe
    from gancompress.training.loop import Trainer

__all__ = ["Experiment"]

T = TypeVar("T")


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
        self._extractor: Extractor | None = None
        self._seconds = 0.0
        self._memory: MemoryEstimate | None = None
        self._evaluated: dict[int, dict[str, Any]] = {}
        self._sampled: set[int] = set()

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
        if self.recipe.training.threads:
            torch.set_num_threads(self.recipe.training.threads)
        # whatever can be refused is refused before there is a directory
        if self.evaluates:
            check_evaluation(self.recipe.evaluation)
        dataset = build_dataset(self.recipe)
        images = self._first(lambda: check_images(dataset, self.group.neighbours)) or 0
        dataset.prepare()
        backbone, device = build_backbone(self.recipe, dataset.spec), device_of(self.recipe)
        self._first(lambda: check_networks(self.recipe, backbone, device, self.group.neighbours))
        trainer = build_trainer(self.recipe, dataset, self.group)
        processes = self.group.neighbours
        self._memory = self._first(lambda: check_memory(self.recipe, trainer, images=images, processes=processes))
        if not checkpoints(self._root / directory_name(self.recipe) / "checkpoints"):
            load_initial(self.recipe, trainer.network("generator"), trainer.network("discriminator"))
        rounds = declared_rounds(self.recipe, trainer)
        if not self.group.is_main:
            self.group.barrier()
            self._directory = RunDirectory(self._root / directory_name(self.recipe))
            with Interruption() as interruption:
                self._run(dataset, trainer, rounds, interruption)
            return RunRecord(self.directory.path)
        self._directory = RunDirectory.open(self._root, self.recipe)
        with self.directory.lock(), Interruption(self._say_stopping) as interruption:
            self.directory.status("running")
            for change in note_plugins(self.directory, self.recipe):
                self.observer.message(f"note: {change}")
            self.group.barrier()
            try:
                self._run(dataset, trainer, rounds, interruption)
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

    def _first(self, check: Callable[[], T]) -> T | None:
        """Let rank 0 check something while the others wait: what is free must not change meanwhile."""
        self.group.barrier()
        found = check() if self.group.is_main else None
        self.group.barrier()
        return found

    def _say_stopping(self) -> None:
        self.observer.message("stopping after this step (after its evaluation, if one runs); again to stop at once")

    def _run(
        self,
        dataset: Dataset[DatasetConfig],
        trainer: Trainer,
        rounds: Sequence[Round],
        interruption: Interruption,
    ) -> None:
        resumed = self._resume(trainer)
        total = sum(current.steps for current in rounds)
        self.observer.start(self.recipe.name, str(self.directory.path), total, trainer.position.total)
        run = Session(self, dataset, trainer, rounds, interruption)
        if resumed:
            run.catch_up()
        run.train()
        self._finish(dataset, trainer)

    def _resume(self, trainer: Trainer) -> bool:
        """Restore the newest good checkpoint, or initialise; return whether there was one."""
        found = latest(self.directory.checkpoints)
        step = found.snapshot.step if found.snapshot is not None else 0
        self.group.assert_same(f"step {step}", "the checkpoint to go on from; --out must be on a disk that all share")
        for refused in found.refused:
            self.observer.message(f"refused: {refused.reason}")
        if found.snapshot is None:
            if found.refused:
                raise CheckpointError(
                    "no checkpoint of this run is intact; remove the directory to start again",
                    where=str(self.directory.path),
                )
            trainer.engine.init(trainer.probe)
            self._cut_log(0)
            return False
        trainer.restore(
            {name: dict(group) for name, group in found.snapshot.groups.items()}, dict(found.snapshot.scalars)
        )
        self._cut_log(found.snapshot.step)
        if not self.group.is_main:  # the first rank goes on to write it
            return True
        for record in self.directory.read_log():
            if record["kind"] == "train":
                self._seconds = record["seconds"]
            elif record["kind"] == "evaluation":
                self._evaluated[record["step"]] = record
            elif record["kind"] == "sample":
                self._sampled.add(record["step"])
        return True

    def _cut_log(self, step: int) -> None:
        if self.group.is_main:
            self.directory.truncate_log(step)
        self.group.barrier()

    def _finish(self, dataset: Dataset[DatasetConfig], trainer: Trainer) -> None:
        metrics = self.metrics()
        with trainer.engine.dense():
            cost = run_cost(trainer, self._seconds)
        if self._memory is not None:
            cost["bytes"]["training"] = self._memory.to_dict()
        widths = chosen_widths(self.recipe, dataset.spec)
        if widths:
            cost["widths"] = {role: width.to_dict() for role, width in widths.items()}
        mark = {"smoke": True} if self.recipe.smoke else {}
        metrics, cost = {**mark, **metrics} if metrics else metrics, {**mark, **cost}
        if self.group.is_main:
            if metrics:
                self.directory.write_json("metrics.json", metrics)
            self.directory.write_json("cost.json", cost)
            self.directory.write_json("environment.json", {**mark, **environment(trainer.device)})

    # ------------------------------------------------------------------ evaluation

    def metrics(self) -> dict[str, Any]:
        """Return every evaluation so far, the best and the last, as ``metrics.json`` holds them."""
        evaluations = [self._evaluated[step] for step in sorted(self._evaluated)]
        if not evaluations:
            return {}
        best = self._best()
        return {
            "primary": evaluations[-1]["metrics"][0]["label"],
            "best": best,
            "last": evaluations[-1],
            "evaluations": evaluations,
            "protocol": evaluations[-1]["protocol"],
        }

    @property
    def best_step(self) -> int | None:
        """Step of the best evaluation so far, by the first metric of the recipe."""
        return int(self._best()["step"]) if self._evaluated else None

    def _best(self) -> dict[str, Any]:
        """Return the best evaluation among those of a generator as sparse as the last.

        An earlier, denser one of a pruning method is not what the run is about.
        """
        last = self._evaluated[max(self._evaluated)]
        alike = [e for e in self._evaluated.values() if e.get("density_generator") == last.get("density_generator")]
        return min(alike, key=_badness)

    def evaluate(self, dataset: Dataset[DatasetConfig], trainer: Trainer) -> dict[str, Any]:
        """Measure the generator as it is now and log it; training goes on as if nothing had happened."""
        config = self.recipe.evaluation
        if self._extractor is None:
            self._extractor = build_extractor(
                config.extractor, dataset, device=trainer.device, progress=say_once(self.observer)
            )
        network = trainer.ema.module if config.weights == "ema" else trainer.generator
        with trainer.engine.dense():
            outcome = measure(network, dataset, config, self._extractor, trainer.device)
        record: dict[str, Any] = {
            "kind": "evaluation",
            "step": trainer.position.total,
            "round": trainer.position.round,
            "metrics": [metric_record(result) for result in outcome.results],
            "protocol": outcome.protocol.to_json(),
            **{f"density_{role}": trainer.engine.state(role).density for role in ROLES},
            "seconds": outcome.seconds,
        }
        self._evaluated[trainer.position.total] = record
        self.log(record)
        return record

    def is_evaluated(self, step: int) -> bool:
        """Return whether the log holds an evaluation of ``step``."""
        return step in self._evaluated

    def sampled(self, step: int) -> bool:
        """Return whether the grid of ``step`` is drawn and logged; it counts as such from now on."""
        before = step in self._sampled
        self._sampled.add(step)
        return before

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to ``log.jsonl`` and show it."""
        if self.group.is_main:
            self.directory.log(record)
            self.observer.record(record)

    def trained(self, seconds: float) -> float:
        """Add training time and return the total, over all the times this run was started."""
        self._seconds += seconds
        return self._seconds


def _badness(evaluation: dict[str, Any]) -> float:
    """Order evaluations by their first metric, the best first."""
    first = evaluation["metrics"][0]
    value = float(first["value"])
    return -value if first["higher_is_better"] else value
