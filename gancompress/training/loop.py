"""The training loop: one step of both players, in the order that every page of the documentation gives.

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
from gancompress.training.forward_backward import ForwardBackward
from gancompress.training.meters import Meters
from gancompress.training.objective import Objective, frozen, unchanged
from gancompress.training.optimizers import learning_rate, moment_decays

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.optim import Optimizer

    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.recipe.schema import TrainingConfig
    from gancompress.sparsity.state import Name
    from gancompress.training.batches import Latents, RealBatch
    from gancompress.training.ema import SparseEMA
    from gancompress.training.engine import Engine, UpdateReport
    from gancompress.training.feed import Source
    from gancompress.training.folding import Folding
    from gancompress.training.graphs import Recorder
    from gancompress.training.groups import Group

__all__ = ["Position", "Trainer"]

METERS = ("loss_generator", "loss_discriminator", "d_real", "d_fake")
#: before the name of a term that is learned from a teacher
_TAUGHT = "distillation_"


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
    """Both players and everything that changes while they train.

    Attributes:
        generator: live generator.
        discriminator: live discriminator.
        optimizers: one per network, by name.
        engine: the sparsity of both networks.
        ema: moving average of the generator.
        counter: what the run has computed so far, for its FLOPs.
        objective: losses.
        source: batches.
        config: the recipe's training section.
        measure: signals that the method wants, or None.
        group: processes that train together.
        device: where the networks are.
        folding: which convolutions are folded; None folds nothing.
        record: how passes are recorded when the config asks for CUDA graphs; tests imitate it.
        int8: how the generator's layers compute in bytes, once it is trained with their rounding.
    """

    generator: Generator
    discriminator: Discriminator
    optimizers: dict[Name, Optimizer]
    engine: Engine
    ema: SparseEMA
    counter: TrainingCounter
    objective: Objective
    source: Source
    config: TrainingConfig
    measure: Measure | None
    group: Group
    device: torch.device
    folding: Folding | None = None
    record: Recorder | None = None
    int8: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.position = Position()
        taught = self.objective.taught
        self._terms = tuple(f"{_TAUGHT}{term}" for term in (() if taught is None else taught.weights))
        self._teacher_macs = None if taught is None else taught.macs()
        for one in self.objective.carried.values():
            one.start(self.device)
        followed = ("ada_probability",) if self.objective.adaptive is not None else ()
        self.meters = Meters((*METERS, *self._terms, *followed), self.device)
        players = self.generator, self.discriminator
        self._forward_backward = ForwardBackward(*players, self.objective, self.config, self.record)
        if self.folding is not None:
            self.folding.attach(players)

    def step(self, current: Round) -> list[UpdateReport]:
        """Train one step of ``current`` and return what the topology updates of that step did.

        Nothing waits for the device, but on the first step, and where masks change.
        """
        self.choose()
        self.position.step += 1
        step, total = self.position.step, self.position.total
        plans = {role: self.engine.plan(role, step, current.steps) for role in self.engine.roles}
        progress = (step - 1) / (self.config.schedule_until * current.steps)
        self._follow_schedules(progress)
        self._seed_noise("step", total)
        with global_statistics(self.group):
            self._play(total, plans)
        self.ema.update(self.generator, total - self.position.averaged_from, progress)
        where = {"step": step, "total_steps": current.steps, "round": self.position.round}
        reports = []
        for role, plan in plans.items():
            if Plan.UPDATE in plan:
                reports.append(self.engine.update(role, **where))
            elif Plan.OBSERVE in plan:
                self.engine.observe(role, **where)
        return reports

    def _play(self, total: int, plans: dict[Name, Plan]) -> None:
        """Let the discriminator take its steps and the generator its one, and measure if that is due."""
        for k in range(self.config.discriminator_steps):
            last = k == self.config.discriminator_steps - 1
            real = self._discriminator_step(total, k, plans["discriminator"] if last else Plan.NOTHING)
        due = self.measure is not None and total % self.measure.every == 0
        latents = self.source.latents(self._generator_batch, "generator", total)
        d_fake = self._signal(latents) if due else None
        self._generator_step(latents, total, plans["generator"], real)
        if d_fake is not None:
            self._measure(real, latents, d_fake)

    def _seed_noise(self, *when: str | int) -> None:
        """Let networks that drop out or add noise draw by seed, step and rank, as everything else does."""
        seed_global(self.objective.seed, "network", *when, self.group.rank, device=self.device)

    def choose(self, say: Callable[[str], None] | None = None) -> None:
        """Measure what this run chooses by measurement, if that is still to be done. The first step calls it.

        ``say`` is told before anything that takes seconds.
        """
        folding = self.folding
        if folding is not None and folding.undecided:
            self._forward_backward.show(self.device)
            world = self.group.world
            batches: dict[nn.Module, int] = {
                self.network(role): self._forward_backward.images(self.engine.role(role), world)
                for role in self.engine.roles
            }
            folding.decide(batches, self.group, say)

    @property
    def networks(self) -> dict[Name, Generator | Discriminator]:
        """The live networks by name, in the order of the engine's."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def network(self, name: Name) -> Generator | Discriminator:
        """Return one live network."""
        return self.networks[name]

    def synchronise(self) -> None:
        """Average what ranks accumulate apart (batch-norm statistics), before anyone looks at it."""
        for network in (*self.networks.values(), self.ema.module):
            self.group.mean_(buffer for buffer in network.buffers() if buffer.is_floating_point())
        self.group.mean_(value for one in self.objective.carried.values() for value in one.scalars.values())

    def is_finite(self) -> bool:
        """Whether every weight of every network is a number; waits for the device."""
        weights = [p.detach() for network in self.networks.values() for p in network.parameters()]
        return bool(torch.stack(torch._foreach_norm(weights)).isfinite().all())

    # ------------------------------------------------------------------ the two players

    def _discriminator_step(self, total: int, k: int, plan: Plan) -> RealBatch:
        config = self.config
        draw = (total - 1) * config.discriminator_steps + k
        real = self.source.real(config.batch_size, draw)
        latents = self.source.latents(config.batch_size, "discriminator", draw)
        self.engine.expect("discriminator", plan)
        for terms in self._forward_backward.discriminator(real, latents, draw):
            self.meters.add("loss_discriminator", terms.loss)
            self.meters.add("d_real", terms.d_real)
            self.meters.add("d_fake", terms.d_fake)
        self._count_extras(draw)
        self._average_gradients(self.discriminator)
        self.engine.step("discriminator", plan)
        adaptive = self.objective.adaptive
        if adaptive is not None:
            adaptive.adjust(draw, config.batch_size, self.group)
            self.meters.add("ada_probability", adaptive.scalars["probability"])
        return real

    @property
    def _generator_batch(self) -> int:
        return self.config.generator_batch_size or self.config.batch_size

    def _generator_step(self, latents: Latents, total: int, plan: Plan, real: RealBatch) -> None:
        self.engine.expect("generator", plan)
        for terms in self._forward_backward.generator(latents, total, self._to_compare(real, total)):
            for name, term in zip(("loss_generator", *self._terms), terms, strict=True):
                self.meters.add(name, term)
        self._count_teacher(self.engine.state("discriminator").budgets)
        if self.objective.follows_paths(total):
            self.counter.follow_paths(self.engine.state("generator").budgets, self._images_of_paths)
        self._average_gradients(self.generator)
        self.engine.step("generator", plan)

    @property
    def _images_of_paths(self) -> int:
        paths, parts = self.objective.path_length, self.config.accumulate * self.group.world
        return 0 if paths is None else parts * paths.images(self._generator_batch // parts)

    def _to_compare(self, real: RealBatch, total: int) -> RealBatch | None:
        """Return real images for a generator step whose loss compares, and charge the look that D takes at them.

        Args:
            real: the last batch that the discriminator trained on, which does if as many are wanted.
            total: training step of the run.
        """
        if not self.objective.loss.compares:
            return None
        self.counter.compare(self.engine.state("discriminator").budgets)
        if self._generator_batch == self.config.batch_size:
            return real
        return self.source.real(self._generator_batch, total - 1)

    def probe(self) -> None:
        """Leave the gradient of both losses on one batch in ``.grad``, stepping neither network (SNIP and its kin)."""
        config = self.config
        real = self.source.real(config.batch_size, 0)
        latents = self.source.latents(config.batch_size, "probe")
        for network in self.networks.values():
            network.zero_grad(set_to_none=True)
        self._seed_noise("probe")
        carried = {value: value.clone() for one in self.objective.carried.values() for value in one.scalars.values()}
        with global_statistics(self.group):
            with torch.no_grad():
                fake = self.objective.generate(self.generator, latents)
            self.objective.discriminator(self.discriminator, real, fake, latents.labels, 0).loss.backward()  # type: ignore[no-untyped-call]
            with frozen(self.discriminator):
                loss = self.objective.generator(self.generator, self.discriminator, latents, 1, real=real)
                loss.backward()  # type: ignore[no-untyped-call]
        if self.objective.loss.compares:
            self.counter.compare({})
        if self.objective.follows_paths(1):
            self.counter.follow_paths({}, self._images_of_paths)
        self._count_teacher({})
        for value, before in carried.items():  # a look changes nothing
            value.copy_(before)
        for network in self.networks.values():
            self._average_gradients(network)

    def _signal(self, latents: Latents) -> Tensor:
        """Return the mean logit of the generator's images as they are, without augmentation."""
        with torch.no_grad(), self.objective.autocast(self.device):
            images = unchanged(self.generator, latents.z, latents.labels).float()
            return unchanged(self.discriminator, images, latents.labels).float().mean()

    def _measure(self, real: RealBatch, latents: Latents, d_fake: Tensor) -> None:
        """Record D on real images and on the same latents before and after the generator step (ADAPT, section 4.1).

        All three are computed alike: what a step happens to compute is augmented, and in micro-batches.
        """
        with torch.no_grad(), self.objective.autocast(self.device):
            d_real = unchanged(self.discriminator, real.images, real.labels).float().mean()
        values = self.group.mean(torch.stack((d_real, d_fake, self._signal(latents))))
        self.engine.record(d_real=values[0], d_fake=values[1], d_fake_after=values[2])

    def _count_extras(self, draw: int) -> None:
        """Charge what a discriminator step computes beyond its plain forward and backward pass."""
        budgets = self.engine.state("discriminator").budgets
        penalties = self.objective.penalties(draw)
        if penalties:
            self.counter.penalty(budgets, penalties)
        if self.objective.teacher is not None:
            self.counter.count_extra("distillation", "discriminator", {}, 2 * self.config.batch_size)

    def _count_teacher(self, budgets: Mapping[str, int]) -> None:
        """Charge what a generator step computes of a teacher; ``budgets`` are the discriminator's."""
        taught = self.objective.taught
        if taught is not None and self._teacher_macs is not None:
            self.counter.teach(self._teacher_macs, budgets if taught.judged else None)

    def _average_gradients(self, network: nn.Module) -> None:
        self.group.mean_gradients(network.parameters())

    def _follow_schedules(self, progress: float) -> None:
        self.objective.progress = progress
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
        ema_tensors, ema_scalars = self.ema.state_dict()
        sums, counts = self.meters.state()
        groups = {
            **{name: dict(network.state_dict()) for name, network in self.networks.items()},
            "ema": ema_tensors,
            "sparsity": engine_tensors,
            "meters": {"sums": sums},
        }
        for name, one in self.objective.carried.items():
            groups[name] = dict(one.scalars)
        scalars: dict[str, Any] = {
            "position": dataclasses.asdict(self.position),
            "engine": engine_scalars,
            "ema": ema_scalars,
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
        self.ema.load_state_dict(groups["ema"], scalars["ema"])
        self.engine.load_state_dict(groups["sparsity"], scalars["engine"])
        self.meters.load(groups["meters"]["sums"], scalars["meters"])
        for name, one in self.objective.carried.items():
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
