"""Short real runs of one method, watched from outside: what the checks of methods look at."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gancompress.backbones.base import prunable_weights
from gancompress.errors import InvariantError
from gancompress.evaluation.sandbox import forked_rng
from gancompress.experiment.assemble import build_dataset, build_trainer, declared_rounds
from gancompress.experiment.budgets import ROLES, build_method
from gancompress.experiment.run import Experiment
from gancompress.recipe.load import parse_recipe
from gancompress.storage.checkpoint import Snapshot, latest, load, save
from gancompress.training.moments import moments_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from gancompress.experiment.interrupt import Interruption
    from gancompress.experiment.ready import Ready
    from gancompress.methods.base import Round
    from gancompress.recipe.schema import Recipe
    from gancompress.sparsity.state import Budget, Name, Role, SparseState
    from gancompress.testing.conformance import Suite
    from gancompress.training.engine import UpdateReport
    from gancompress.training.groups import Group
    from gancompress.training.loop import Trainer

__all__ = ["Bench", "KitRun", "Watcher", "digest", "run_folder"]

#: small enough for a method to be judged in seconds: 4 steps of a DCGAN of 4 channels on 16 drawn shapes
_RECIPE: Mapping[str, Any] = {
    "name": "conformance",
    "data": {"name": "shapes", "resolution": 16, "images": 16, "classes": 3},
    "model": {"name": "dcgan", "channels": 4, "latent_dim": 8},
    "sparsity": {"generator": {"density": 0.3}, "discriminator": {"density": 0.4}},
    "training": {
        "steps": 4,
        "batch_size": 2,
        "device": "cpu",
        "kernels": "dense",
        "log_every": 3,
        "keep_checkpoints": 99,
        # first moments that are more than the last gradient, for methods that look at them
        "optimizers": {role: {"betas": [0.5, 0.9]} for role in ROLES},
    },
}


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """Yield a folder for runs that is gone afterwards; in memory where there is such a place, for runs sync a lot."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="gancompress-", dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@dataclasses.dataclass
class Watcher:
    """Looks at both networks before and after every training step, and writes down what is wrong.

    Attributes:
        dense_moments: the recipe keeps gradients and moments of masked weights, so these may be anything.
        counts: masks that do not keep what their budget says, or split a unit of the recipe's pattern.
        leaks: tensors that are not 0 off the mask.
        trained: the weights that the optimizer moved when the last step began.
    """

    dense_moments: bool
    counts: list[str] = dataclasses.field(default_factory=list)
    leaks: list[str] = dataclasses.field(default_factory=list)
    trained: dict[Role, dict[str, Tensor]] = dataclasses.field(default_factory=dict)

    def before(self, trainer: Trainer) -> None:
        """Remember the masks that gradients of the coming step are held to."""
        self.trained = {
            role: {name: mask.clone() for name, mask in trainer.engine.state(role).trained.items()} for role in ROLES
        }
        self._look(trainer, gradients=False)

    def after(self, trainer: Trainer) -> None:
        """Look at what the step left."""
        self._look(trainer, gradients=True)

    def _look(self, trainer: Trainer, *, gradients: bool) -> None:
        where = f"{'after' if gradients else 'before'} step {trainer.position.total + (not gradients)}"
        for role in ROLES:
            state = trainer.engine.state(role)
            for name, mask in state.masks.items():
                kept = int(mask.sum())
                if kept != state.budgets[name]:
                    self.counts.append(
                        f"{where} the mask of the {role}'s {name} keeps {kept} weights, its budget is "
                        f"{state.budgets[name]}"
                    )
            try:
                trainer.engine.budget(role).check_units(state.masks, f"{where}, {role}")
            except InvariantError as error:
                self.counts.append(str(error))
            for what, tensor, off in self._suspects(trainer, role, gradients):
                wrong = int(((tensor != 0) & off).sum())
                if wrong:
                    self.leaks.append(f"{where} the {role}'s {what} is not 0 at {wrong} masked positions")

    def _suspects(self, trainer: Trainer, role: Role, gradients: bool) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield every tensor that must be 0 where a mask is False: found here anew, not asked of the engine."""
        weights = prunable_weights(trainer.network(role))
        state = trainer.engine.state(role)
        for name, mask in state.masks.items():
            parameter = weights[name].parameter
            yield f"weight {name}", parameter.detach(), ~mask
            if role == "generator":
                yield f"average of {name}", trainer.ema.parameter(weights[name].key), ~mask
            if self.dense_moments:
                continue
            for _, key, moment in moments_of(trainer.optimizers[role], {name: parameter}):
                yield f"moment {key} of {name}", moment, ~state.trained[name]
            if gradients and parameter.grad is not None:
                # those of a step belong to the masks that it began with
                yield f"gradient of {name}", parameter.grad, ~self.trained[role][name]


@dataclasses.dataclass(frozen=True)
class KitRun:
    """A run that reached its end.

    Attributes:
        rounds: training steps of every round.
        states: sparse state of both networks at the end, as the engine held them.
        budgets: what the recipe asked to be kept, per network.
        snapshot: the last checkpoint.
        files: its files, byte for byte.
        watcher: what was seen on the way.
    """

    rounds: tuple[int, ...]
    states: dict[Role, SparseState]
    budgets: dict[Role, Budget]
    snapshot: Snapshot
    files: dict[str, bytes]
    watcher: Watcher

    def differing(self, other: KitRun) -> list[str]:
        """Return the names of the checkpoint files that are not the same in both."""
        names = sorted(self.files.keys() | other.files.keys())
        return [name for name in names if self.files.get(name) != other.files.get(name)]


class _Watched(Experiment):
    """An experiment that is looked at after every step, and that may be asked to stop after one."""

    stop: int | None = None
    watcher: Watcher | None = None
    trainer: Trainer
    rounds: Sequence[Round]

    def _run(self, dataset: Any, ready: Ready, interruption: Interruption) -> None:
        trainer = self.trainer = ready.trainer
        self.rounds = ready.rounds
        step = trainer.step

        def watched(current: Round) -> list[UpdateReport]:
            if self.watcher is not None:
                self.watcher.before(trainer)
            reports = step(current)
            if self.watcher is not None:
                self.watcher.after(trainer)
            if trainer.position.total == self.stop:
                interruption.requested = True
            return reports

        trainer.step = watched  # type: ignore[method-assign]
        super()._run(dataset, ready, interruption)


class Bench:
    """Trains one method again and again, in folders that are gone afterwards.

    Args:
        suite: of the method.
        overrides: ``key.path=value``, laid over the recipe of the kit.
    """

    def __init__(self, suite: Suite, overrides: Sequence[str] = ()) -> None:
        self.suite = suite
        self.overrides = tuple(overrides)

    @contextlib.contextmanager
    def recipe(self, *overrides: str) -> Iterator[Recipe]:
        """Yield the recipe of the kit; the method has a name that recipes know while the ``with`` block lasts."""
        with self.suite.registered() as name:
            document = {
                **_RECIPE,
                "sparsity": {**_RECIPE["sparsity"], "method": {**self.suite.settings, "name": name}},
            }
            if self.suite.target(self.suite.config()).needs_dense_moments:
                document["sparsity"]["moments"] = "dense"
            yield parse_recipe(document, (*self.overrides, *overrides), "<conformance>").recipe

    def run(self, *overrides: str, stops: Sequence[int] = (), perturb: bool = False) -> KitRun:
        """Train every round to its end.

        Args:
            overrides: laid over the recipe.
            stops: steps after which the run is interrupted, and gone on with from its checkpoint.
            perturb: change one weight of the checkpoint of the last stop by its lowest bit.
        """
        with self.recipe(*overrides) as recipe, run_folder() as folder:
            for index, stop in enumerate(stops):
                first = _Watched(recipe, folder, evaluates=False)
                first.stop = stop
                # a method may depend on nothing but what it is given: other random numbers in every process
                with forked_rng(index), contextlib.suppress(KeyboardInterrupt):
                    first.run()
                if perturb and index == len(stops) - 1:
                    _perturb(first.directory.checkpoints / f"{stop:08d}")
            last = _Watched(recipe, folder, evaluates=False)
            last.watcher = Watcher(recipe.sparsity.moments == "dense")
            with forked_rng(len(stops)):
                last.run()
            return _finished(last)

    def first_round(self, *overrides: str, scramble: int = 0) -> tuple[Trainer, list[tuple[Name, int]]]:
        """Train the first round in memory; return the trainer, and role and step of every topology update."""
        with self.recipe(*overrides) as recipe, forked_rng(scramble):
            trainer = build_trainer(recipe, build_dataset(recipe))
            current = declared_rounds(recipe, trainer)[0]
            trainer.engine.init(trainer.probe)
            done = [(report.role, report.step) for _ in range(current.steps) for report in trainer.step(current)]
            return trainer, done

    def restored(self, finished: KitRun) -> Trainer:
        """Return a fresh trainer that took over the last checkpoint of a run."""
        with self.recipe() as recipe:
            trainer = build_trainer(recipe, build_dataset(recipe))
            snapshot = finished.snapshot
            trainer.restore({name: dict(group) for name, group in snapshot.groups.items()}, dict(snapshot.scalars))
            return trainer

    def in_group(self, folder: Path, group: Group, *overrides: str) -> dict[str, str]:
        """Train every round as one of several processes; return a hash of everything that must agree."""
        with self.recipe(*overrides) as recipe, forked_rng(group.rank):
            run = _Watched(recipe, folder, evaluates=False, group=group)
            run.run()
        hashes = {f"masks of the {role}": run.trainer.engine.state(role).hash() for role in ROLES}
        for role in ROLES:
            hashes[f"weights of the {role}"] = digest(run.trainer.network(role))
        return hashes

    def method(self) -> Any:
        """Return a method object that never saw a network."""
        with self.recipe() as recipe:
            return build_method(recipe)


def digest(network: nn.Module) -> str:
    """Return a hash of all parameters of a network."""
    found = hashlib.blake2b(digest_size=8)
    for _, parameter in sorted(network.named_parameters()):
        found.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _finished(run: _Watched) -> KitRun:
    path = latest(run.directory.checkpoints).path
    assert path is not None
    assert run.watcher is not None
    engine = run.trainer.engine
    return KitRun(
        rounds=tuple(current.steps for current in run.rounds),
        states={role: engine.state(role) for role in ROLES},
        budgets={role: engine.budget(role) for role in ROLES},
        snapshot=load(path),
        files={file.name: file.read_bytes() for file in path.iterdir()},
        watcher=run.watcher,
    )


def _perturb(path: Path) -> None:
    """Change the lowest bit of the largest kept weight of the generator in a checkpoint."""
    snapshot = load(path)
    weights = dict(snapshot.groups["generator"])
    name = next(name for name, weight in weights.items() if weight.is_floating_point() and weight.dim() == 4)
    changed = weights[name].clone()
    index = changed.abs().argmax()
    flat = changed.view(-1)
    flat[index] = torch.nextafter(flat[index], torch.tensor(float("inf")))
    weights[name] = changed
    save(path.parent, Snapshot(snapshot.step, {**snapshot.groups, "generator": weights}, snapshot.scalars))
