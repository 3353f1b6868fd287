"""What happens between two training steps of a run: log, checkpoint, evaluate, draw samples, change rounds."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

import torch

from gancompress.errors import CheckpointError, RunError
from gancompress.experiment.initial import load_initial
from gancompress.experiment.measure import metric_record
from gancompress.experiment.networks import build_networks
from gancompress.experiment.rounding import Rounding
from gancompress.storage.checkpoint import Snapshot, checkpoints, load, prune, remove, save
from gancompress.training.ema import average_group
from gancompress.training.loop import Position, Trainer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gancompress.architecture.description import Architecture
    from gancompress.data.base import Dataset, DatasetConfig
    from gancompress.data.census import Census
    from gancompress.experiment.history import History
    from gancompress.experiment.interrupt import Interruption
    from gancompress.experiment.measure import Evaluator
    from gancompress.methods.base import Round
    from gancompress.progress import Observer
    from gancompress.recipe.schema import Recipe
    from gancompress.tasks.base import Task, TaskConfig
    from gancompress.training.engine import UpdateReport
    from gancompress.training.groups import Group

__all__ = ["DIVERGED", "Session"]

#: what runs say that ended so, which others like them would too
DIVERGED = "the training diverged"

#: seconds between two checkpoints where the recipe does not count steps
CHECKPOINT_SECONDS = 600.0
#: between two looks at the clock that processes must agree about
_CLOCK_STEPS = 10
#: scalar of a checkpoint that the next one replaces
_PASSING = "passing"
#: of every topology update
_LOGGED = ("role", "round", "updates", "grown", "dropped", "churn", "exploration", "density")


@dataclasses.dataclass(kw_only=True)
class Session:
    """The part of a run that happens between two calls of ``Trainer.step``.

    Attributes:
        recipe: what is run.
        architecture: what the networks are.
        trainer: its position is where the run is.
        rounds: all of them.
        history: the log of the run, in its directory.
        task: what the generator is trained for.
        dataset: the images.
        evaluator: measures the generator; None for a run that is only trained.
        observer: told how far it is.
        group: processes that train together.
        interruption: signals that came.
        census: which images these are, on the process that writes checkpoints.
    """

    recipe: Recipe
    architecture: Architecture
    trainer: Trainer
    rounds: Sequence[Round]
    history: History
    task: Task[TaskConfig]
    dataset: Dataset[DatasetConfig]
    evaluator: Evaluator | None
    observer: Observer
    group: Group
    interruption: Interruption
    census: Census | None = None

    def __post_init__(self) -> None:
        self.directory = self.history.directory
        self.total = sum(current.steps for current in self.rounds)
        self._began = self._mark = self._saved = time.perf_counter()
        self._first = self.position.total
        self._passing: set[int] = set()
        self._rounding = Rounding(self.trainer)

    @property
    def position(self) -> Position:
        """Where the run is."""
        return self.trainer.position

    def train(self) -> None:
        """Train every round that is left."""
        if self.group.is_main:
            self._passing = self._passing_on_disk()
            self._forget()
        if self.position.total < self.total:
            self.trainer.choose(self.observer.message)
        self._mark = self._began = time.perf_counter()  # timing kernels is no training
        while True:
            current = self.rounds[self.position.round]
            self._teach(current)
            while self.position.step < current.steps:
                if self._rounds(current):
                    self._rounding.begin()
                reports = self.trainer.step(current)
                self._after_step(current, reports)
            if self.position.round + 1 == len(self.rounds):
                break
            self._begin_round(self.position.round + 1)
        self._rounding.end()
        if self.group.is_main:
            self._forget()  # the last evaluation may have been the best

    def _rounds(self, current: Round) -> bool:
        """Whether the generator is to be trained with the rounding of bytes."""
        last = self.position.round + 1 == len(self.rounds)
        return self.recipe.training.values == "int8" and last and 2 * self.position.step >= current.steps

    def catch_up(self) -> None:
        """Do what was due at the restored step but was cut off after its checkpoint."""
        if self.position.total:
            self._look(self._ends_round())

    # ------------------------------------------------------------------ after a step

    def _after_step(self, current: Round, reports: list[UpdateReport]) -> None:
        training, step = self.recipe.training, self.position.total
        ends = self.position.step == current.steps
        for report in reports:
            record = {name: getattr(report, name) for name in _LOGGED}
            self.history.log({"kind": "update", "step": step, **record, **report.notes})
        if step % training.log_every == 0 or ends:
            self._log_training()
        if ends:
            self.history.log({"kind": "round", "step": step, "round": self.position.round, "name": current.name})
        self.observer.step(step, self._rate())
        stop = self._asked_to_stop()
        looks = self._due(training.sample_every) or self._evaluation_due(ends)
        if ends or looks or self._due(training.checkpoint_every) or self._rewound_to():
            self.checkpoint()
        elif stop or self._checkpoint_time():
            # when it comes is chance, so it must leave no trace: neither in the numbers nor in what is kept at the end
            self.checkpoint(passing=True)
        if (looks or ends) and not stop:
            self.history.trained(time.perf_counter() - self._mark)
            self._look(ends)
            self._mark = time.perf_counter()
            # a signal may have come while looking took its time
            stop = self._asked_to_stop()
        if stop:
            # whoever starts the ranks ends all when one ends: none may before the first has written its checkpoint
            self.group.barrier()
            raise KeyboardInterrupt(
                f"interrupted; the checkpoint of step {step} is kept, the same command goes on from there"
            )

    def _asked_to_stop(self) -> bool:
        """Whether a signal came to any rank: it must stop all of them at the same step."""
        return self.group.any(self.interruption.requested)

    def _due(self, every: int) -> bool:
        return bool(every) and self.position.total % every == 0

    def _checkpoint_time(self) -> bool:
        """Whether the last checkpoint is so old that losing all since would hurt; the first rank's clock decides."""
        if self.recipe.training.checkpoint_every or (self.group.world > 1 and self.position.total % _CLOCK_STEPS):
            return False
        return self.group.any(self.group.is_main and time.perf_counter() - self._saved >= CHECKPOINT_SECONDS)

    def _ends_round(self) -> bool:
        return self.position.step == self.rounds[self.position.round].steps

    def _evaluation_due(self, ends: bool) -> bool:
        return self.evaluator is not None and (ends or self._due(self.recipe.evaluation.every))

    def _look(self, ends: bool) -> None:
        """Evaluate and draw samples, if that is due and not done yet. Training time stands still meanwhile.

        The first rank looks; the others wait here, where waiting may take hours, and not within a step.
        """
        if self.group.is_main:
            self._look_alone(ends)
        self.group.barrier()

    def _look_alone(self, ends: bool) -> None:
        step = self.position.total
        if self.evaluator is not None and self._evaluation_due(ends) and not self.history.is_evaluated(step):
            self._evaluate(self.evaluator)
        due = self._due(self.recipe.training.sample_every) or step == self.total
        if due and not self.history.sampled(step):
            path = self.directory.sample_path(step)
            with contextlib.ExitStack() as stack:
                averages = self.trainer.all_averages.items()
                generators = {name: stack.enter_context(average.measured()) for name, average in averages}
                self.task.grid(generators, self.dataset, path, self.recipe.evaluation.seed)
            name = path.relative_to(self.directory.path).as_posix()
            shows = {"shows": self.task.shows} if self.task.shows else {}
            self.history.log({"kind": "sample", "step": step, "file": name, **shows})

    def _evaluate(self, evaluator: Evaluator) -> None:
        """Measure the generator as it is now and log it; training goes on as if nothing had happened."""
        trainer = self.trainer
        with trainer.engine.dense(), trainer.ema.measured() as average:
            outcome = evaluator(average if evaluator.config.weights == "ema" else trainer.generator)
        self.history.evaluated(
            {
                "kind": "evaluation",
                "step": self.position.total,
                "round": self.position.round,
                "metrics": [metric_record(result) for result in outcome.results],
                "protocol": outcome.protocol.to_json(),
                **{f"density_{role}": trainer.engine.state(role).density for role in trainer.engine.roles},
                "seconds": outcome.seconds,
            }
        )

    def _log_training(self) -> None:
        now = time.perf_counter()
        seconds = self.history.trained(now - self._mark)
        self._mark = now
        means = self._means()
        record: dict[str, Any] = {
            "kind": "train",
            "step": self.position.total,
            "round": self.position.round,
            **means,
            **{f"density_{role}": self.trainer.engine.state(role).density for role in self.trainer.engine.roles},
            "learning_rate": self.trainer.optimizers["generator"].param_groups[0]["lr"],
            "seconds": seconds,
            "rate": self._rate(),
        }
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged(f"{bad[0]} is {means[bad[0]]} at step {self.position.total}")
        self.history.log(record)

    @staticmethod
    def _diverged(what: str) -> RunError:
        return RunError(f"{what}: {DIVERGED}; a lower learning rate, another loss or a denser discriminator may help")

    def _means(self) -> dict[str, float]:
        """Read the meters, averaged over ranks, so that one rank's NaN stops all."""
        means, group = self.trainer.meters.read(), self.group
        if group.world == 1:
            return means
        values = group.mean(torch.tensor(list(means.values()), dtype=torch.float64, device=group.device))
        return dict(zip(means, values.tolist(), strict=True))

    def _rate(self) -> float:
        """Steps per second of this process, evaluations included."""
        return (self.position.total - self._first) / max(time.perf_counter() - self._began, 1e-9)

    # ------------------------------------------------------------------ checkpoints and rounds

    def checkpoint(self, *, passing: bool = False) -> None:
        """Write the state of the run; every rank calls it, the first one writes.

        The next checkpoint replaces one made in passing.
        """
        self._saved = time.perf_counter()
        if not passing:
            self.trainer.synchronise()
        if not self.trainer.is_finite():
            # a checkpoint of it would push the good ones out
            raise self._diverged(f"a weight is not finite at step {self.position.total}")
        if not self.group.is_main:
            return
        groups, scalars = self.trainer.snapshot()
        scalars["architecture"] = self.architecture.built(self.trainer.networks).to_json()
        self.directory.sync_log()
        self._keep_aside(groups)
        if self.census is not None:
            groups["data"], scalars["data"] = self.census.tensors, self.census.scalars
        if passing:
            scalars[_PASSING] = True
        save(self.directory.checkpoints, Snapshot(self.position.total, groups, scalars))
        self._forget(passing=passing)
        if passing:
            self._passing.add(self.position.total)

    def _forget(self, *, passing: bool = False) -> None:
        """Delete the checkpoints that are no longer needed.

        Args:
            passing: the newest is one that passes, which pushes no other one out.
        """
        for step in self._passing - {self.position.total}:
            remove(self.directory.checkpoints / f"{step:08d}")
            self._passing.remove(step)
        if not passing and self.position.total not in self._passing:
            best = self.history.best_step
            keep, protect = self.recipe.training.keep_checkpoints, () if best is None else (best,)
            prune(self.directory.checkpoints, keep, protect=protect)

    def _passing_on_disk(self) -> set[int]:
        """Return the steps of the checkpoints that were to be replaced by the next one."""
        found = set()
        for path in checkpoints(self.directory.checkpoints):
            with contextlib.suppress(CheckpointError):  # left for a person to look at
                if _PASSING in load(path, groups=()).scalars:
                    found.add(int(path.name))
        return found

    def _keep_aside(self, groups: dict[str, dict[str, Tensor]]) -> None:
        """Keep what later rounds need; before the checkpoint, so that none is resumed from without it."""
        if self._rewound_to():
            weights = {name: groups[name] for name in self.trainer.networks}
            save(self.directory.path / "rewind", Snapshot(self.position.total, weights, {}))
        if len(self.rounds) > 1 and self._ends_round():
            averages = map(average_group, self.trainer.all_averages)
            kept = {name: groups[name] for name in (*self.trainer.networks, *averages, "sparsity")}
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
        for role, network in trainer.networks.items():
            start = getattr(upcoming, trainer.engine.role(role))
            if start == "rewind" and upcoming.rewind_step:
                saved = load(self.directory.path / "rewind" / f"{upcoming.rewind_step:08d}", groups=(role,))
                network.load_state_dict(saved.groups[role])
            elif start != "keep":
                number = index if start == "reinitialise" else 0
                fresh = build_networks(self.architecture, self.recipe.seed, number)
                if start == "rewind":
                    load_initial(self.recipe, fresh.named)
                network.load_state_dict(fresh.of(role).state_dict())
            trainer.engine.set_state(role, states[role], reset_moments=True, keep=start == "keep")
        done, averaged_from = trainer.position.total, trainer.position.averaged_from
        if upcoming.generator != "keep":
            for average in trainer.all_averages.values():
                average.reset()
            averaged_from = done
        trainer.position = Position(round=index, step=0, before=done, averaged_from=averaged_from)

    def _teach(self, current: Round) -> None:
        """Load the teacher of a round that distils: the discriminator that ended the first round."""
        self.trainer.play.teach(None, current.distillation)
        if not current.distillation or self.position.round == 0:
            return
        saved = load(self.directory.path / "rounds" / f"{self.rounds[0].steps:08d}", groups=("discriminator",))
        teacher = build_networks(self.architecture, self.recipe.seed).discriminator
        teacher.load_state_dict(saved.groups["discriminator"])
        self.trainer.play.teach(teacher.to(self.trainer.device).eval().requires_grad_(False), current.distillation)
