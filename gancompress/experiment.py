"""The composition root: a recipe becomes objects, rounds of training, evaluations, costs and files.

A run is resumed by running it again. Whatever a step depends on is in the last checkpoint; whatever a round starts
from is a pure function of the checkpoint that ended the round before it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

import torch

from gancompress.assemble import (
    ROLES,
    build_backbone,
    build_dataset,
    build_networks,
    build_trainer,
    chosen_widths,
    declared_rounds,
)
from gancompress.cost.summary import run_cost
from gancompress.environment import environment
from gancompress.errors import CheckpointError, RunError
from gancompress.evaluation.extractors import Extractor, build_extractor
from gancompress.evaluation.samples import sample_grid
from gancompress.initial import load_initial
from gancompress.interrupt import Interruption
from gancompress.measure import check_extractor, measure, metric_record, say_once
from gancompress.observer import Observer, Silent
from gancompress.recipe.identity import directory_name
from gancompress.training.checkpoint import Snapshot, checkpoints, latest, load, save
from gancompress.training.groups import Group
from gancompress.training.loop import Position, Trainer
from gancompress.training.rundir import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.methods.base import Round
    from gancompress.recipe.schema import Recipe
    from gancompress.training.engine import UpdateReport

__all__ = ["Experiment", "RunResult"]


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a finished run leaves behind.

    Attributes:
        directory: the run directory.
        metrics: contents of ``metrics.json``; empty when nothing was evaluated.
        cost: contents of ``cost.json``.
    """

    directory: Path
    metrics: dict[str, Any]
    cost: dict[str, Any]


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
        self._evaluated: dict[int, dict[str, Any]] = {}
        self._sampled: set[int] = set()

    @property
    def directory(self) -> RunDirectory:
        """The run directory; exists once the run has been found possible."""
        if self._directory is None:
            raise RunError("this run has no directory yet: call run() first")
        return self._directory

    # ------------------------------------------------------------------ the whole run

    def run(self) -> RunResult:
        """Train, evaluate and cost the recipe, from wherever the directory says it is.

        Raises:
            GancompressError: whatever is wrong with the recipe, the data, the directory or the training.
            KeyboardInterrupt: the run was interrupted; a checkpoint was written first.
        """
        if self.recipe.training.threads:
            torch.set_num_threads(self.recipe.training.threads)
        # whatever can be refused is refused before there is a directory
        if self.evaluates:
            check_extractor(self.recipe.evaluation.extractor)
        dataset = build_dataset(self.recipe)
        dataset.prepare()
        trainer = build_trainer(self.recipe, dataset, self.group)
        if not checkpoints(self._root / directory_name(self.recipe) / "checkpoints"):
            load_initial(self.recipe, trainer.network("generator"), trainer.network("discriminator"))
        rounds = declared_rounds(self.recipe, trainer)
        if not self.group.is_main:
            self.group.barrier()
            self._directory = RunDirectory(self._root / directory_name(self.recipe))
            with Interruption() as interruption:
                return self._run(dataset, trainer, rounds, interruption)
        self._directory = RunDirectory.open(self._root, self.recipe)
        with self.directory.lock(), Interruption(self._say_stopping) as interruption:
            self.directory.status("running")
            self.group.barrier()
            try:
                result = self._run(dataset, trainer, rounds, interruption)
            except KeyboardInterrupt as stop:
                self.directory.status("interrupted", str(stop) or "stopped by a signal")
                raise
            except BaseException as error:
                self.directory.status("failed", f"{type(error).__name__}: {error}")
                raise
            finally:
                self.observer.finish()
            self.directory.status("done")
        return result

    def _say_stopping(self) -> None:
        self.observer.message("stopping after this step (after its evaluation, if one runs); again to stop at once")

    def _run(
        self,
        dataset: Dataset[DatasetConfig],
        trainer: Trainer,
        rounds: Sequence[Round],
        interruption: Interruption,
    ) -> RunResult:
        resumed = self._resume(trainer)
        total = sum(current.steps for current in rounds)
        self.observer.start(self.recipe.name, str(self.directory.path), total, trainer.position.total)
        run = _Session(self, dataset, trainer, rounds, interruption)
        if resumed:
            run.catch_up()
        run.train()
        return self._finish(dataset, trainer)

    def _resume(self, trainer: Trainer) -> bool:
        """Restore the newest good checkpoint, or initialise; return whether there was one."""
        found = latest(self.directory.checkpoints)
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

    def _finish(self, dataset: Dataset[DatasetConfig], trainer: Trainer) -> RunResult:
        metrics = self.metrics()
        with trainer.engine.dense():
            cost = run_cost(trainer, self._seconds)
        widths = chosen_widths(self.recipe, dataset.spec)
        if widths:
            cost["widths"] = {role: width.to_dict() for role, width in widths.items()}
        if self.group.is_main:
            if metrics:
                self.directory.write_json("metrics.json", metrics)
            self.directory.write_json("cost.json", cost)
            self.directory.write_json("environment.json", environment(trainer.device))
        return RunResult(self.directory.path, metrics, cost)

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


class _Session:
    """The part of a run that happens between two calls of ``Trainer.step``."""

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset[DatasetConfig],
        trainer: Trainer,
        rounds: Sequence[Round],
        interruption: Interruption,
    ) -> None:
        self.experiment = experiment
        self.recipe = experiment.recipe
        self.directory = experiment.directory
        self.dataset = dataset
        self.trainer = trainer
        self.rounds = rounds
        self.interruption = interruption
        self.total = sum(current.steps for current in rounds)
        self._mark = time.perf_counter()
        self._began = self._mark
        self._first = trainer.position.total

    @property
    def position(self) -> Position:
        """Where the run is."""
        return self.trainer.position

    def train(self) -> None:
        """Train every round that is left."""
        while True:
            current = self.rounds[self.position.round]
            self._teach(current)
            while self.position.step < current.steps:
                reports = self.trainer.step(current)
                self._after_step(current, reports)
            if self.position.round + 1 == len(self.rounds):
                return
            self._begin_round(self.position.round + 1)

    def catch_up(self) -> None:
        """Do what was due at the restored step but was cut off after its checkpoint."""
        if self.position.total:
            self._look(self._ends_round())

    # ------------------------------------------------------------------ after a step

    def _after_step(self, current: Round, reports: list[UpdateReport]) -> None:
        training, step = self.recipe.training, self.position.total
        ends = self.position.step == current.steps
        for report in reports:
            notes = self.trainer.engine.method.notes(report.role, report.step, current.steps)
            self.experiment.log({"kind": "update", "step": step, **_update_record(report), **notes})
        if step % training.log_every == 0 or ends:
            self._log_training()
        if ends:
            self.experiment.log({"kind": "round", "step": step, "round": self.position.round, "name": current.name})
        self.experiment.observer.step(step, self._rate())
        stop = self._asked_to_stop(ends)
        looks = self._due(training.sample_every) or self._evaluation_due(ends)
        if ends or stop or looks or self._due(training.checkpoint_every) or self._rewound_to():
            self.checkpoint()
        if (looks or ends) and not stop:
            self.experiment.trained(time.perf_counter() - self._mark)
            self._look(ends)
            self._mark = time.perf_counter()
            # a signal may have come while looking took its time
            stop = self._asked_to_stop(ends)
        if stop:
            raise KeyboardInterrupt(
                f"interrupted; the checkpoint of step {step} is kept, the same command goes on from there"
            )

    def _asked_to_stop(self, ends: bool) -> bool:
        """Several ranks agree when they log: a signal that reaches one of them must stop all at the same step."""
        group = self.experiment.group
        if group.world == 1:
            return self.interruption.requested
        if not (ends or self._due(self.recipe.training.log_every)):
            return False
        return bool(group.mean(torch.tensor(float(self.interruption.requested), device=group.device)) > 0)

    def _due(self, every: int) -> bool:
        return bool(every) and self.position.total % every == 0

    def _ends_round(self) -> bool:
        return self.position.step == self.rounds[self.position.round].steps

    def _evaluation_due(self, ends: bool) -> bool:
        return self.experiment.evaluates and (ends or self._due(self.recipe.evaluation.every))

    def _look(self, ends: bool) -> None:
        """Evaluate and draw samples, if that is due and not done yet. Training time stands still meanwhile."""
        step = self.position.total
        if not self.experiment.group.is_main:
            return
        if self._evaluation_due(ends) and not self.experiment.is_evaluated(step):
            self.experiment.evaluate(self.dataset, self.trainer)
        due = self._due(self.recipe.training.sample_every) or step == self.total
        if due and not self.experiment.sampled(step):
            path, generator = self.directory.sample_path(step), self.trainer.ema.module
            sample_grid(
                generator,
                path,
                latent_dim=generator.latent_dim,
                num_classes=generator.num_classes,
                seed=self.recipe.evaluation.seed,
                device=self.trainer.device,
            )
            name = path.relative_to(self.directory.path).as_posix()
            self.experiment.log({"kind": "sample", "step": step, "file": name})

    def _log_training(self) -> None:
        now = time.perf_counter()
        seconds = self.experiment.trained(now - self._mark)
        self._mark = now
        means = self._means()
        record: dict[str, Any] = {
            "kind": "train",
            "step": self.position.total,
            "round": self.position.round,
            **means,
            **{f"density_{role}": self.trainer.engine.state(role).density for role in ROLES},
            "learning_rate": self.trainer.optimizers["generator"].param_groups[0]["lr"],
            "seconds": seconds,
            "rate": self._rate(),
        }
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged(f"{bad[0]} is {means[bad[0]]} at step {self.position.total}")
        self.experiment.log(record)

    @staticmethod
    def _diverged(what: str) -> RunError:
        return RunError(
            f"{what}: the training diverged; a lower learning rate, another loss or a denser discriminator may help"
        )

    def _means(self) -> dict[str, float]:
        """Read the meters, averaged over ranks, so that one rank's NaN stops all."""
        means, group = self.trainer.meters.read(), self.experiment.group
        if group.world == 1:
            return means
        values = group.mean(torch.tensor(list(means.values()), dtype=torch.float64, device=group.device))
        return dict(zip(means, values.tolist(), strict=True))

    def _rate(self) -> float:
        """Steps per second of this process, evaluations included."""
        return (self.position.total - self._first) / max(time.perf_counter() - self._began, 1e-9)

    # ------------------------------------------------------------------ checkpoints and rounds

    def checkpoint(self) -> None:
        """Write the state of the run; every rank calls it, the first one writes."""
        self.trainer.synchronise()
        if not self.trainer.is_finite():
            # a checkpoint of it would push the good ones out
            raise self._diverged(f"a weight is not finite at step {self.position.total}")
        if not self.experiment.group.is_main:
            return
        groups, scalars = self.trainer.snapshot()
        self._keep_aside(groups)
        best = self.experiment.best_step
        save(
            self.directory.checkpoints,
            Snapshot(self.position.total, groups, scalars),
            keep=self.recipe.training.keep_checkpoints,
            protect=() if best is None else (best,),
        )

    def _keep_aside(self, groups: dict[str, dict[str, Tensor]]) -> None:
        """Keep what later rounds need; before the checkpoint, so that none is resumed from without it."""
        if self._rewound_to():
            weights = {name: groups[name] for name in ("generator", "discriminator")}
            save(self.directory.path / "rewind", Snapshot(self.position.total, weights, {}))
        if len(self.rounds) > 1 and self._ends_round():
            kept = {name: groups[name] for name in ("generator", "discriminator", "ema", "sparsity")}
            save(self.directory.path / "rounds", Snapshot(self.position.total, kept, {"round": self.position.round}))

    def _rewound_to(self) -> bool:
        """Return whether a later round restores the weights of this step."""
        return self.position.round == 0 and any(
            "rewind" in (later.generator, later.discriminator) and later.rewind_step == self.position.step
            for later in self.rounds[1:]
        )

    def _begin_round(self, index: int) -> None:
        """Ask the method for the next masks, then put weights where the round says they start."""
        upcoming, trainer = self.rounds[index], self.trainer
        states = trainer.engine.next_round(upcoming, index)
        for role in ROLES:
            network = trainer.network(role)
            start = getattr(upcoming, role)
            if start == "rewind" and upcoming.rewind_step:
                saved = load(self.directory.path / "rewind" / f"{upcoming.rewind_step:08d}")
                network.load_state_dict(saved.groups[role])
            elif start != "keep":
                backbone = build_backbone(self.recipe, self.dataset.spec)
                fresh = build_networks(backbone, self.recipe.seed, index if start == "reinitialise" else 0)
                if start == "rewind":
                    load_initial(self.recipe, fresh.generator, fresh.discriminator)
                network.load_state_dict(fresh.of(role).state_dict())
            trainer.engine.set_state(role, states[role], reset_moments=True)
        done, averaged_from = trainer.position.total, trainer.position.averaged_from
        if upcoming.generator != "keep":
            trainer.ema.reset()
            averaged_from = done
        trainer.position = Position(round=index, step=0, before=done, averaged_from=averaged_from)

    def _teach(self, current: Round) -> None:
        """Load the teacher of a round that distils: the discriminator that ended the first round."""
        self.trainer.objective.teacher = None
        self.trainer.objective.distillation = current.distillation
        if not current.distillation or self.position.round == 0:
            return
        saved = load(self.directory.path / "rounds" / f"{self.rounds[0].steps:08d}")
        backbone = build_backbone(self.recipe, self.dataset.spec)
        teacher = build_networks(backbone, self.recipe.seed).discriminator
        teacher.load_state_dict(saved.groups["discriminator"])
        self.trainer.objective.teacher = teacher.to(self.trainer.device).eval().requires_grad_(False)


def _badness(evaluation: dict[str, Any]) -> float:
    """Order evaluations by their first metric, the best first."""
    first = evaluation["metrics"][0]
    value = float(first["value"])
    return -value if first["higher_is_better"] else value


def _update_record(report: UpdateReport) -> dict[str, Any]:
    return {
        "role": report.role,
        "round": report.round,
        "updates": report.updates,
        "grown": report.grown,
        "dropped": report.dropped,
        "churn": report.churn,
        "exploration": report.exploration,
        "density": report.density,
    }
