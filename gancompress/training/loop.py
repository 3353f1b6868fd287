"""The training loop: one step of all players, in the order that every page of the documentation gives.

::

    for step:
        n_d times:  D.zero_grad; loss_D.backward; [engine: mask gradients and moments; D.step; re-mask]
        G.zero_grad; loss_G.backward;             [engine: the same for G]
        measure, if the method asked for it
        ema.update(generator, step)               [a newly grown weight starts from its live value]
        for role whose plan says UPDATE:          [method.update on a view; check; broadcast; zero what was dropped]
        log, checkpoint, evaluate                 (the experiment does these between two calls of Trainer.step)
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gancompress.cost.counter import TrainingCounter
from gancompress.methods.base import Measure, Plan, Round
from gancompress.seeds import seed_global
from gancompress.training.batch_norm import global_statistics
from gancompress.training.ema import average_group
from gancompress.training.meters import Meters
from gancompress.training.optimizers import learning_rate, moment_decays

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.recipe.schema import TrainingConfig
    from gancompress.sparsity.state import Name
    from gancompress.training.ema import SparseEMA
    from gancompress.training.engine import Engine, UpdateReport
    from gancompress.training.folding import Folding
    from gancompress.training.graphs import Recorder
    from gancompress.training.groups import Group
    from gancompress.training.play import Play

__all__ = ["Position", "Trainer"]


@dataclasses.dataclass
class Position:
    """Where a run is.

    Attributes:
        round: index of the round.
        step: training steps done in this round.
        before: training steps done in earlier rounds.
        averaged_from: training steps done when the average last started from the live weights.
    """

    round: int = 0
    step: int = 0
    before: int = 0
    averaged_from: int = 0

    @property
    def total(self) -> int:
        """Training steps done since the start of the run; data order, logs and checkpoints count these."""
        return self.before + self.step


@dataclasses.dataclass
class Trainer:
    """All players and everything that changes while they train.

    Attributes:
        generator: the live one that is measured and shipped.
        discriminator: the live one that plays against it.
        optimizers: one per network, by name.
        engine: the sparsity of all networks.
        ema: its moving average.
        counter: what the run has computed so far, for its FLOPs.
        play: what a step computes.
        config: the recipe's training section.
        measure: signals that the method wants, or None.
        group: processes that train together.
        device: where the networks are.
        folding: which convolutions are folded; None folds nothing.
        record: how passes are recorded when the config asks for CUDA graphs; tests imitate it.
        int8: how the generator's layers compute in bytes, once it is trained with their rounding.
        beside: other live networks, by name.
        averages: of the generators among these.
    """

    generator: Generator
    discriminator: Discriminator
    optimizers: dict[Name, Optimizer]
    engine: Engine
    ema: SparseEMA
    counter: TrainingCounter
    play: Play
    config: TrainingConfig
    measure: Measure | None
    group: Group
    device: torch.device
    folding: Folding | None = None
    record: Recorder | None = None
    int8: dict[str, Any] | None = None
    beside: dict[Name, Generator | Discriminator] = dataclasses.field(default_factory=dict)
    averages: dict[Name, SparseEMA] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.position = Position()
        self.play.begin(self)
        self.meters = Meters(self.play.meters, self.device)
        if self.folding is not None:
            self.folding.attach(tuple(self.networks.values()))

    def step(self, current: Round) -> list[UpdateReport]:
        """Train one step of ``current`` and return what the topology updates of that step did.

        Nothing waits for the device, but on the first step, and where masks change.
        """
        self.choose()
        self.position.step += 1
        step, total = self.position.step, self.position.total
        plans = {role: self.engine.plan(role, step, current.steps) for role in self.engine.roles}
        progress = self._progress(step, current.steps)
        self._follow_schedules(progress)
        self.seed_noise("step", total)
        with global_statistics(self.group):
            self.play.step(total, plans)
        for name, average in self.all_averages.items():
            average.update(self.network(name), total - self.position.averaged_from, progress)  # type: ignore[arg-type]
        where = {"step": step, "total_steps": current.steps, "round": self.position.round}
        reports = []
        for role, plan in plans.items():
            if Plan.UPDATE in plan:
                reports.append(self.engine.update(role, **where))
            elif Plan.OBSERVE in plan:
                self.engine.observe(role, **where)
        return reports

    def _progress(self, step: int, steps: int) -> float:
        """Return where schedules are at a step of a round: 0 where they begin and 1 where they end."""
        begin, end = self.config.schedule_from, self.config.schedule_until
        if not begin:
            return (step - 1) / (end * steps)
        return max(0.0, ((step - 1) / steps - begin) / (end - begin))

    def seed_noise(self, *when: str | int) -> None:
        """Let networks that drop out or add noise draw by seed, step and rank, as everything else does."""
        seed_global(self.engine.seed, "network", *when, self.group.rank, device=self.device)

    def choose(self, say: Callable[[str], None] | None = None) -> None:
        """Measure what this run chooses by measurement, if that is still to be done. The first step calls it.

        ``say`` is told before anything that takes seconds.
        """
        folding = self.folding
        if folding is not None and folding.undecided:
            self.play.show()
            world = self.group.world
            batches: dict[nn.Module, int] = {
                self.network(name): self.play.images(name, world) for name in self.engine.roles
            }
            folding.decide(batches, self.group, say)

    def probe(self) -> None:
        """Leave the gradient of every loss on one batch in ``.grad``, stepping no network (SNIP and its kin)."""
        self.play.probe()

    @property
    def networks(self) -> dict[Name, Generator | Discriminator]:
        """The live networks by name, in the order of the engine's."""
        return {"generator": self.generator, "discriminator": self.discriminator, **self.beside}

    @property
    def all_averages(self) -> dict[Name, SparseEMA]:
        """The averages of all generators, by the names of these."""
        return {"generator": self.ema, **self.averages}

    def network(self, name: Name) -> Generator | Discriminator:
        """Return one live network."""
        return self.networks[name]

    def synchronise(self) -> None:
        """Average what ranks accumulate apart (batch-norm statistics), before anyone looks at it."""
        for network in (*self.networks.values(), *(average.module for average in self.all_averages.values())):
            stored = network.state_dict()  # a mean of what is the same everywhere may round
            moving = (buffer for name, buffer in network.named_buffers() if name in stored)
            self.group.mean_(buffer for buffer in moving if buffer.is_floating_point())
        self.group.mean_(value for one in self.play.carried.values() for value in one.scalars.values())

    def is_finite(self) -> bool:
        """Whether every weight of every network is a number; waits for the device."""
        weights = [p.detach() for network in self.networks.values() for p in network.parameters()]
        return bool(torch.stack(torch._foreach_norm(weights)).isfinite().all())

    def average_gradients(self, network: nn.Module) -> None:
        """Average the gradients of a network over the processes that train together."""
        self.group.mean_gradients(network.parameters())

    def _follow_schedules(self, progress: float) -> None:
        self.play.progress = progress
        for name, optimizer in self.optimizers.items():
            config = getattr(self.config.optimizers, self.engine.role(name))
            betas = moment_decays(config, progress)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, progress)
                if betas is not None:
                    group["betas"] = betas

    # ------------------------------------------------------------------ what a checkpoint keeps

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return all tensors in named groups, and all JSON-able scalars, that the next step depends on."""
        self.engine.count_steps()
        engine_tensors, engine_scalars = self.engine.state_dict()
        averages = {average_group(name): average.state_dict() for name, average in self.all_averages.items()}
        sums, counts = self.meters.state()
        groups = {
            **{name: dict(network.state_dict()) for name, network in self.networks.items()},
            **{group: tensors for group, (tensors, _) in averages.items()},
            "sparsity": engine_tensors,
            "meters": {"sums": sums},
        }
        for name, one in self.play.carried.items():
            groups[name] = dict(one.scalars)
        scalars: dict[str, Any] = {
            "position": dataclasses.asdict(self.position),
            "engine": engine_scalars,
            **{group: found for group, (_, found) in averages.items()},
            "meters": counts,
            "ledger": self.counter.to_dict(),
            "image": self.generator.image.to_json(),
        }
        if self.folding is not None:
            scalars["folding"] = dict(self.folding.table)
        if self.int8 is not None:
            scalars["int8"] = self.int8
        for name, optimizer in self.optimizers.items():
            groups[f"optimizer_{name}"], scalars[f"optimizer_{name}"] = _optimizer_state(optimizer)
        return groups, scalars

    def restore(self, groups: dict[str, dict[str, Tensor]], scalars: dict[str, Any]) -> None:
        """Go on from what :meth:`snapshot` returned, bit for bit."""
        for name, network in self.networks.items():
            network.load_state_dict(groups[name])
        for name, average in self.all_averages.items():
            average.load_state_dict(groups[average_group(name)], scalars[average_group(name)])
        self.engine.load_state_dict(groups["sparsity"], scalars["engine"])
        self.meters.load(groups["meters"]["sums"], scalars["meters"])
        for name, one in self.play.carried.items():
            one.restore(groups[name])
        if self.folding is not None:
            self.folding.restore(scalars.get("folding"))
        self.int8 = scalars.get("int8")
        for name, optimizer in self.optimizers.items():
            _load_optimizer(optimizer, groups[f"optimizer_{name}"], scalars[f"optimizer_{name}"])
        vars(self.counter).update(vars(TrainingCounter.from_dict(scalars["ledger"])))
        self.position = Position(**scalars["position"])


def _optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                scalars[f"{index}.{key}"] = value
    # some optimizers count their steps per group
    scalars["groups"] = [
        {key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]
    ]
    return tensors, scalars


def _load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    state = copy.copy(optimizer.state_dict())
    saved_groups = scalars.get("groups", [{}] * len(state["param_groups"]))
    state["param_groups"] = [
        {**group, **saved} for group, saved in zip(state["param_groups"], saved_groups, strict=True)
    ]
    values: dict[int, dict[str, Any]] = {}
    for name, value in (*tensors.items(), *((n, v) for n, v in scalars.items() if n != "groups")):
        index, key = name.split(".", 1)
        values.setdefault(int(index), {})[key] = value
    state["state"] = values
    optimizer.load_state_dict(state)
