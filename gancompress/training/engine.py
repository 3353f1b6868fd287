"""The engine: the only code that makes sparsity happen. Methods decide, the engine does.

The order of one training step, the same in code and in the documentation::

    for step in 1 .. T:
        plan = {role: engine.plan(role, step, T)}; engine.expect(role, plan) before the backward pass it is meant for
        n_d times:  D.zero_grad; loss_D.backward; engine.step("discriminator", plan if last of n_d else NOTHING)
        G.zero_grad; loss_G.backward;             engine.step("generator", plan)
                                                  # step = [mask gradients; optimizer.step; re-mask; clock += 1]
        every measure.every steps:                engine.record(d_real, d_fake, d_fake_after)
        ema.update(generator, step)
        for role whose plan says OBSERVE:         engine.observe(role, step=step, total_steps=T, round=r)
        for role whose plan says UPDATE:          engine.update(role, step=step, total_steps=T, round=r)
                                                  # = [method.update on a view; check; broadcast; grown/dropped;
                                                  #    zero weights, moments and average of what was dropped]
        log, checkpoint, evaluate

Gradients are averaged over ranks before ``engine.step``. Between updates nothing waits for the device.

Rounds: ``states = engine.next_round(round, index)`` asks the method while the weights are still those that the last
round ended with; the caller then restores weights as the round says (keep, rewind, reinitialise) and hands each state
to ``engine.set_state``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.errors import CheckpointError, InvariantError, MethodError
from gancompress.methods.base import Method, MethodConfig, NetView, Plan, Round
from gancompress.seeds import generator
from gancompress.training.decisions import answer, below, check_counts, decide_together, pack, unpack, validate
from gancompress.training.groups import Group
from gancompress.training.masking import Change, MaskedNetwork, Moments, RoleParts
from gancompress.training.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gancompress.channels.groups import ChannelGroup
    from gancompress.cost.counter import TrainingCounter
    from gancompress.sparsity.state import Budget, Name, Role, SparseState
    from gancompress.training.ema import SparseEMA
    from gancompress.training.execution import Execution

__all__ = ["Engine", "RoleParts", "UpdateReport"]


@dataclasses.dataclass(frozen=True)
class UpdateReport:
    """What one topology update did.

    Attributes:
        role: name of the network whose masks they are.
        round: index of the round.
        step: training step of the round.
        updates: topology updates of this network so far.
        grown: weights kept now and masked before.
        dropped: weights masked now and kept before.
        nonzeros: kept weights.
        size: prunable weights.
        exploration: share of weights that were ever kept (the exploration rate of ITOP, Liu et al., 2021, section 3).
        layers: kept weights per tensor.
        notes: what the method wants logged beside it.
    """

    role: Name
    round: int
    step: int
    updates: int
    grown: int
    dropped: int
    nonzeros: int
    size: int
    exploration: float
    layers: Mapping[str, int]
    notes: Mapping[str, float]

    @property
    def density(self) -> float:
        """Exact share of kept weights."""
        return self.nonzeros / self.size

    @property
    def churn(self) -> float:
        """Share of kept weights that are new."""
        return self.grown / self.nonzeros if self.nonzeros else 0.0


class Engine:
    """Holds networks to their masks, and lets the method change these.

    Networks have names, and every network plays on a side, its role: a method is asked by role, so that two generators
    are planned for alike, and answers for each by itself. Of a pair, each network is called by its role.

    Args:
        method: decides which weights are kept.
        parts: by name: network, optimizer, budget and weights.
        seed: the recipe's seed.
        moments: optimizer moments off the mask: exactly 0 (``masked``), not even stored (``compact``, the same results
            bit for bit), or as in published codes (``dense``).
        check_every: topology updates between two checks of all invariants.
        group: processes that train together.
        ema: averages, which follow the masks of their networks: by name, or that of the network called generator.
        counter: counts what the training costs.
        execution: computes masked layers on the sparse kernels; None computes everything dense.

    Raises:
        MethodError: the method watches two networks play against each other, and these are more.
        InvariantError: a network that is on no side, or that the counter does not know.
    """

    def __init__(
        self,
        method: Method[MethodConfig],
        parts: Mapping[Name, RoleParts],
        *,
        seed: int,
        moments: Moments = "masked",
        check_every: int = 1,
        group: Group | None = None,
        ema: SparseEMA | Mapping[Name, SparseEMA] | None = None,
        counter: TrainingCounter | None = None,
        execution: Execution | None = None,
    ) -> None:
        self.method = method
        self.seed = seed
        self.check_every = check_every
        self.group = group if group is not None else Group()
        self.counter = counter
        averages = ema if isinstance(ema, Mapping) else {} if ema is None else {"generator": ema}
        self._nets: dict[Name, MaskedNetwork] = {
            name: MaskedNetwork(name, part, moments, averages.get(name), execution) for name, part in parts.items()
        }
        if method.sees_both and len(parts) > 2:
            raise MethodError(
                f"method {type(method).__name__} watches two networks play against each other; "
                f"it cannot serve {len(parts)} ({', '.join(parts)})"
            )
        if counter is not None and not {*parts} <= {*counter.names}:
            raise InvariantError(
                f"what training costs is counted for {', '.join(counter.names)}, not for {', '.join(parts)}"
            )
        self.execution = execution
        device = next(iter(next(iter(parts.values())).network.parameters())).device
        self._signals = Signals(method.measure, device)
        self._updated: dict[Name, tuple[int, int]] = {}
        self._uncounted: dict[Name, int] = dict.fromkeys(self._nets, 0)

    # ------------------------------------------------------------------ what others ask

    def role(self, name: Name) -> Role:
        """Return the side that one network plays on."""
        return self._nets[name].role

    @property
    def roles(self) -> tuple[Name, ...]:
        """What the networks are called, in order; of a pair, by their roles."""
        return tuple(self._nets)

    def state(self, role: Name) -> SparseState:
        """Return the sparse state of one network."""
        return self._nets[role].state

    def channels(self, role: Name) -> tuple[ChannelGroup, ...]:
        """Return the groups of channels of one network, of a method that sees them."""
        return self._nets[role].parts.channels

    def budget(self, role: Name) -> Budget:
        """Return what the recipe asks of one network."""
        return self._nets[role].parts.budget

    def plan(self, role: Name, step: int, total_steps: int) -> Plan:
        """Return what the method wants at one training step of a round (1 for the first).

        Raises:
            InvariantError: the plan leaves an optimizer step out without an update, or asks for a gradient that
                nothing would look at.
        """
        name = type(self.method).__name__
        plan = answer(
            name,
            f"the plan of the {role} at step {step}",
            partial(self.method.plan, self._nets[role].role, step, total_steps),
        )
        if not isinstance(plan, Plan):
            raise MethodError(f"method {name} plans {plan!r} for the {role} at step {step}, expected a Plan")
        if Plan.SKIP_STEP in plan and Plan.UPDATE not in plan:
            raise InvariantError(f"method {name} plans SKIP_STEP without UPDATE at step {step}")
        if Plan.DENSE_GRADIENT in plan and not plan & (Plan.UPDATE | Plan.OBSERVE):
            raise InvariantError(f"method {name} plans DENSE_GRADIENT without UPDATE or OBSERVE at step {step}")
        return plan

    # ------------------------------------------------------------------ masks at the start

    def init(
        self, probe: Callable[[], None] | None = None, masks: Mapping[str, Mapping[str, Tensor]] | None = None
    ) -> list[Name]:
        """Let the method choose the first masks, and zero the weights that they mask.

        Args:
            probe: leaves the gradient of both losses on one batch, averaged over ranks, in ``.grad``; called when
                the method asks for it. Buffers that it changes (batch-norm statistics, singular vectors) are restored.
            masks: by role, those that the weights were trained under. A network whose method starts with as many
                weights keeps these instead: trained weights are worth more than those that chance would leave.

        Returns:
            The networks that keep such masks.

        Raises:
            InvariantError: the method's masks do not keep what its budgets say.
        """
        gradients = self._probe(probe) if self.method.init_needs_gradient else {}
        kept: list[Name] = []
        for role, net in self._nets.items():
            view = dataclasses.replace(self._view(net), gradients=gradients.get(role))
            rng = generator(self.seed, "topology", role, "init")
            state = self._decide(net, view, partial(self.method.init, view, net.parts.budget, rng))
            own = (masks or {}).get(role, {})
            if (counts := _counts_to_keep(net, state, own)) is not None:
                state = state.replace(
                    masks={name: own[name].to(mask.device) for name, mask in state.masks.items()},
                    budgets={name: counts[name] for name in state.masks},
                )
                kept.append(role)
            net.change(state)
            if net.ema is not None:
                net.ema.reset()
        self.check()
        return kept

    def _probe(self, probe: Callable[[], None] | None) -> dict[Name, dict[str, Tensor]]:
        if probe is None:
            raise InvariantError(f"method {type(self.method).__name__} needs a gradient to start: pass a probe to init")
        networks = [net.parts.network for net in self._nets.values()]
        buffers = [(b, b.clone()) for network in networks for b in network.buffers()]
        probe()
        gradients: dict[Name, dict[str, Tensor]] = {}
        for role, net in self._nets.items():
            found = {name: p.grad for name, p in net.parameters.items()}
            gradients[role] = {
                name: torch.zeros_like(net.parameters[name]) if grad is None else grad.detach().clone()
                for name, grad in found.items()
            }
            net.parts.network.zero_grad(set_to_none=True)
            if self.counter is not None:
                self.counter.probe(net.name)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return gradients

    # ------------------------------------------------------------------ every step

    def expect(self, role: Name, plan: Plan = Plan.NOTHING) -> None:
        """Say which step of ``role`` comes next, before its forward pass: sparse layers compute what its plan needs."""
        net = self._nets[role]
        if net.layers is not None:
            net.layers.expect(Plan.DENSE_GRADIENT in plan or bool(net.state.backward))

    @contextlib.contextmanager
    def dense(self) -> Iterator[None]:
        """Compute every layer dense inside, as whoever measures the networks or their cost expects."""
        with contextlib.ExitStack() as stack:
            for net in self._nets.values():
                if net.layers is not None:
                    stack.enter_context(net.layers.dense())
            yield

    def step(self, role: Name, plan: Plan = Plan.NOTHING) -> None:
        """Take one optimizer step of ``role`` within its masks; gradients are in ``.grad``, averaged over ranks.

        Args:
            role: which network.
            plan: what :meth:`plan` said; of the ``n_d`` discriminator steps only the last one gets it.

        Raises:
            InvariantError: the plan needs a dense gradient that :meth:`expect` did not announce.
        """
        net = self._nets[role]
        observed = Plan.DENSE_GRADIENT in plan
        # weights that are trained while masked need their gradients on every step
        wants_dense = observed or bool(net.state.backward)
        if wants_dense and net.layers is not None and not net.layers.expects_dense:
            raise InvariantError(f"the {role}'s dense gradient was not computed: tell Engine.expect before the step")
        net.before_step(observed)
        skip = Plan.SKIP_STEP in plan
        if not skip:
            net.parts.optimizer.step()
        net.after_step(not skip)
        if net.ema is not None:
            net.ema.stepped(not skip)
        self._uncounted[role] += 1
        # dense moments take in the gradient at masked positions on every step
        if self.counter is not None and (wants_dense or net.moments == "dense"):
            self.counter.dense_gradient(net.name, net.state.budgets)

    def record(self, *, d_real: Tensor, d_fake: Tensor, d_fake_after: Tensor) -> None:
        """Store one measurement (see ``methods.base.Measure``): scalars of shape (), on the device."""
        self._signals.record(d_real, d_fake, d_fake_after)
        if self.counter is not None:
            self.counter.measure({name: net.state.budgets for name, net in self._nets.items()})

    # ------------------------------------------------------------------ topology

    def update(self, role: Name, *, step: int, total_steps: int, round: int = 0) -> UpdateReport:
        """Let the method change the masks of ``role``, right after the step whose plan says ``UPDATE``.

        Args:
            role: which network.
            step: training step of the round.
            total_steps: training steps of the round.
            round: index of the round.

        Raises:
            InvariantError: a second update at the same step, a dense gradient that was never computed, masks that do
                not keep their budgets, or any other invariant that broke.
        """
        net = self._nets[role]
        if (round, step) <= self._updated.get(role, (-1, -1)):
            raise InvariantError(f"a second topology update of the {role} at step {step} of round {round}")
        view = self._view_after(net, step, total_steps, round)
        self._updated[role] = (round, step)
        rng = generator(self.seed, "topology", role, round, step)
        old = net.state
        # before the masks change: the view shows the weights themselves
        notes = dict(self.method.notes(view))
        new = self._decide(net, view, partial(self.method.update, old, view, rng))
        self.count_steps()
        change = net.change(new.replace(updates=old.updates + 1))
        net.gradients = None
        if net.state.updates % self.check_every == 0:
            self.check((role,))
        size = sum(p.numel() for p in net.parameters.values())
        return UpdateReport(
            role=role,
            round=round,
            step=step,
            updates=net.state.updates,
            grown=change.grown,
            dropped=change.dropped,
            nonzeros=net.state.nonzeros,
            size=size,
            exploration=change.ever / size,
            layers=dict(net.state.budgets),
            notes=notes,
        )

    def observe(self, role: Name, *, step: int, total_steps: int, round: int = 0) -> None:
        """Let the method look at ``role`` right after a step whose plan says ``OBSERVE``; waits for the device.

        Raises:
            InvariantError: a dense gradient that was never computed, or memory that cannot be saved.
        """
        net = self._nets[role]
        view = self._view_after(net, step, total_steps, round)
        rng = generator(self.seed, "topology", role, round, step, "observe")
        old = net.state
        new = self._decide(net, view, lambda: old.replace(memory=dict(self.method.observe(old, view, rng))))
        net.remember(new.memory)
        net.gradients = None

    def next_round(self, upcoming: Round, index: int) -> dict[Name, SparseState]:
        """Ask the method for the states that round ``index`` starts from; nothing changes yet.

        Call it while the weights are still those that the last round ended with.
        """
        states: dict[Name, SparseState] = {}
        for role, net in self._nets.items():
            view = self._view(net, total_steps=upcoming.steps, round=index)
            rng = generator(self.seed, "topology", role, index, "next_round")
            states[role] = self._decide(net, view, partial(self.method.next_round, net.state, view, upcoming, rng))
        return states

    def set_state(self, role: Name, state: SparseState, *, reset_moments: bool = False, keep: bool = True) -> Change:
        """Put ``state`` in force: masks go onto the weights, the moments and the average.

        Args:
            role: which network, its weights already those that the round starts from.
            state: what :meth:`next_round` returned.
            reset_moments: forget the optimizer's state, as a new optimizer would.
            keep: the weights are those that the last round ended with.
        """
        net = self._nets[role]
        validate(net, state, f"method {type(self.method).__name__}")
        self.count_steps()
        if reset_moments:
            net.reset_moments()
        if not keep:
            net.held = {}
        change = net.change(state)
        self.check((role,))
        return change

    def _view_after(self, net: MaskedNetwork, step: int, total_steps: int, round: int) -> NetView:
        """Return what the method sees after a step that it planned for."""
        if Plan.DENSE_GRADIENT in self.plan(net.name, step, total_steps) and net.gradients is None:
            raise InvariantError(f"the {net.name} at step {step} needs dense gradients, but no step kept them")
        return self._view(net, step=step, total_steps=total_steps, round=round)

    def _view(self, net: MaskedNetwork, *, step: int = 0, total_steps: int = 0, round: int = 0) -> NetView:
        view = self._view_alone(net, step, total_steps, round)
        if not self.method.sees_both:
            return view
        other = next(another for another in self._nets.values() if another is not net)
        shown = dataclasses.replace(self._view_alone(other, step, total_steps, round), gradients=None)
        return dataclasses.replace(view, other=shown)

    def _view_alone(self, net: MaskedNetwork, step: int, total_steps: int, round: int) -> NetView:
        return NetView(
            role=net.role,
            weights=net.weights(),
            budget=net.parts.budget,
            gradients=net.gradients,
            momentum=net.momentum(),
            protected=frozenset(name for name, weight in net.parts.weights.items() if weight.output),
            signals=self._signals.read(self.group),
            step=step,
            total_steps=total_steps,
            round=round,
            layers={name: weight.layer for name, weight in net.parts.weights.items()},
            masks=net.state.masks if net.has_state else {},
            channels=net.parts.channels,
        )

    def _decide(self, net: MaskedNetwork, view: NetView, decide: Callable[[], SparseState]) -> SparseState:
        return decide_together(self.group, type(self.method).__name__, net, view, decide)

    # ------------------------------------------------------------------ trust

    def check(self, roles: tuple[Name, ...] | None = None) -> None:
        """Verify every invariant; waits for the device.

        Raises:
            InvariantError: naming the tensor and how many positions are wrong.
        """
        for role in self.roles if roles is None else roles:
            net = self._nets[role]
            check_counts(net.state, role)
            net.parts.budget.check_units(net.state.masks, role)
            leaks = net.leaks()
            if leaks:
                raise InvariantError(f"{role}: {'; '.join(leaks)}")
            if self.group.world > 1:
                self.group.assert_same(net.state.hash(), f"the masks of the {role}")

    def count_steps(self) -> None:
        """Bring the counter up to date. Call it before reading or saving the counter."""
        if self.counter is None:
            return
        for role, net in self._nets.items():
            done, self._uncounted[role] = divmod(self._uncounted[role], self.counter.optimizer_steps(role))
            if done:
                self.counter.advance(role, net.state.budgets, done)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all tensors and all JSON-able scalars that the engine's next step depends on."""
        tensors: dict[str, Tensor] = {}
        scalars: dict[str, Any] = {}
        for role, net in self._nets.items():
            more, found = pack(net.state)
            tensors.update({f"{role}.{name}": tensor for name, tensor in found.items()})
            tensors.update({f"{role}.ever.{name}": mask for name, mask in net.ever.items()})
            tensors.update({f"{role}.held.{name}": held for name, held in net.held.items()})
            scalars[role] = {
                **more,
                "moments": net.moments,
                "ever_count": net.ever_count,
                "steps": net.steps,
                "age": net.age,
                "updated": list(self._updated[role]) if role in self._updated else None,
                "uncounted": self._uncounted[role],
            }
        ring, count = self._signals.state_dict()
        tensors.update({f"signals.{name}": tensor for name, tensor in ring.items()})
        scalars["signals"] = count
        if self.execution is not None:
            scalars["break_even"] = dict(self.execution.table)
        return tensors, scalars

    def load_state_dict(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, bit for bit. Weights, moments and average are loaded by others.

        Raises:
            CheckpointError: it does not fit these networks.
        """
        try:
            for role, net in self._nets.items():
                own = below(tensors, f"{role}.")
                saved = scalars[role]
                if saved.get("moments", net.moments) != net.moments:
                    raise CheckpointError(
                        f"the {role}'s optimizer was saved with sparsity.moments: {saved['moments']}, not {net.moments}"
                    )
                state = unpack(saved, {name: tensor.clone() for name, tensor in own.items()})
                validate(net, state, "the checkpoint")
                net.load(state)
                net.held = {n: held.to(net.parameters[n], copy=True) for n, held in below(own, "held.").items()}
                ever = below(own, "ever.")
                net.ever = {name: ever[name].to(p.device, copy=True) for name, p in net.parameters.items()}
                net.ever_count, net.steps, net.age = saved["ever_count"], saved["steps"], saved["age"]
                net.gradients = None
                self._uncounted[role] = saved["uncounted"]
                self._updated.pop(role, None)
                if saved["updated"] is not None:
                    self._updated[role] = (saved["updated"][0], saved["updated"][1])
            self._signals.load_state_dict(below(tensors, "signals."), scalars["signals"])
            if self.execution is not None:
                self.execution.restore(scalars.get("break_even", {}))
        except (KeyError, TypeError, InvariantError) as error:
            raise CheckpointError(f"the saved sparsity does not fit these networks: {error}") from error


def _counts_to_keep(net: MaskedNetwork, state: SparseState, masks: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Return what ``masks`` keep of each tensor if they can stand in for those of ``state``, else None.

    They can if they are of the same tensors and keep as many weights, in the same units.
    """
    if state.backward or {n: m.shape for n, m in masks.items()} != {n: m.shape for n, m in state.masks.items()}:
        return None
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    budget = net.parts.budget
    fit = (
        sum(counts.values()) == state.nonzeros < sum(budget.sizes.values())
        and all(counts[name] == budget.sizes[name] for name in budget.dense)
        and not any(bool(own.violated(masks[name])) for name, own in budget.units.items())
    )
    return counts if fit else None
