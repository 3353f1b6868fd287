"""What a run will cost, before it starts: its rounds played through on the method, without training.

The method is asked everything that training would ask it, on networks as initialised and made-up gradients, twice with
different numbers. Where both times the same weights are counted, counts do not depend on what is learned and the price
is exact; where they differ, or where the method reads signals of the training, it is an estimate and says so.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from gancompress.cost.profile import FLOPS_PER_MAC, profile, sample_cost
from gancompress.cost.training import training_cost
from gancompress.errors import RecipeError
from gancompress.experiment.assemble import build_loss
from gancompress.experiment.budgets import ROLES, build_budgets, build_method, connected_weights
from gancompress.experiment.groups import channel_groups
from gancompress.experiment.networks import Networks, build_architecture, build_networks, build_task
from gancompress.experiment.teacher import build_distillation
from gancompress.methods.base import NetView, Plan
from gancompress.seeds import generator as seeded
from gancompress.sparsity.state import role_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from gancompress.architecture.description import Architecture
    from gancompress.backbones.base import PrunableWeight
    from gancompress.cost.counter import TrainingCounter
    from gancompress.cost.profile import NetworkProfile
    from gancompress.data.base import ImageSpec
    from gancompress.methods.base import Method, MethodConfig, Round
    from gancompress.recipe.schema import Recipe
    from gancompress.sparsity.state import Budget, Name, SparseState

__all__ = ["Price", "final_masks", "price"]

#: Updates of one network in one round that are played through; more are spread out, and the price is an estimate
#: unless none of them changes a count.
_UPDATES = 16


@dataclasses.dataclass(frozen=True)
class Price:
    """What a run will cost.

    Attributes:
        steps: training steps of all rounds together.
        rounds: name and training steps of every round.
        training_flops: of all rounds.
        inference_flops: of the generator for one image, at the end.
        parameters: prunable and other weights of convolutions and linear layers of the generator.
        exact: the FLOPs do not depend on what is learned.
        updates: topology updates of the generator and the discriminator together.
        dynamic: the method changes its masks while it trains.
    """

    steps: int
    rounds: tuple[tuple[str, int], ...]
    training_flops: int
    inference_flops: int
    parameters: int
    exact: bool
    updates: int
    dynamic: bool


def price(recipe: Recipe, image: ImageSpec) -> Price:
    """Play a recipe through.

    Raises:
        GancompressError: the recipe cannot be run: a density that a layer cannot meet, too few steps for the rounds, …
    """
    architecture = build_architecture(recipe, image)
    networks = build_networks(architecture, recipe.seed)
    profiles: dict[Name, NetworkProfile] = {name: profile(network) for name, network in networks.named.items()}
    method = build_method(recipe)
    plays = [
        _Play(recipe, method, architecture, networks, variant=0),
        _Play(recipe, method, architecture, build_networks(architecture, recipe.seed, 1), variant=1),
    ]
    costs = [training_cost(play.run(), profiles) for play in plays]
    first = plays[0]
    _check_layers(first)
    exact = costs[0].parts == costs[1].parts and first.certain and method.measure is None
    flops = costs[0].macs if exact else sum(cost.macs for cost in costs) // 2
    return Price(
        steps=sum(current.steps for current in first.rounds),
        rounds=tuple((current.name, current.steps) for current in first.rounds),
        training_flops=FLOPS_PER_MAC * flops,
        inference_flops=FLOPS_PER_MAC * sample_cost(profiles["generator"], first.states["generator"].budgets).macs,
        parameters=sum(layer.size for layer in profiles["generator"].layers),
        exact=exact,
        updates=first.updates,
        dynamic=first.dynamic,
    )


def final_masks(recipe: Recipe, architecture: Architecture, networks: Networks) -> Mapping[str, Tensor]:
    """Return the masks that the generator of a recipe would end with, were its weights never trained.

    Raises:
        GancompressError: the recipe cannot be run.
    """
    play = _Play(recipe, build_method(recipe), architecture, networks, variant=0)
    play.run()
    _check_layers(play)
    return play.states["generator"].masks


def _check_layers(play: _Play) -> None:
    """Raise if a layer ends without a single weight: nothing would pass through it."""
    for role, state in play.states.items():
        for name, kept in state.budgets.items():
            if not kept:
                size = play.budgets[role].sizes[name]
                raise RecipeError(
                    f"leaves {name} of the {role} none of its {size:,} weights; ask for a higher density, or "
                    f"keep some with --set sparsity.{role_of(role)}.min_layer_density=0.01"
                )


class _Play:
    """One run without its training: the calls that the engine and the loop would make, counted by the same counter."""

    def __init__(
        self,
        recipe: Recipe,
        method: Method[MethodConfig],
        architecture: Architecture,
        networks: Networks,
        variant: int,
    ) -> None:
        training = recipe.training
        self.recipe, self.method, self.variant = recipe, method, variant
        self.loss = build_loss(recipe)
        taught = build_distillation(recipe, networks)
        self.teacher_macs, self.judges = taught and taught.macs(), bool(taught and taught.judged)
        self.counter = build_task(recipe).counter(training)
        weights = {name: connected_weights(network, recipe.sparsity) for name, network in networks.named.items()}
        self.budgets: dict[Name, Budget] = build_budgets(recipe, weights)
        asked = {role: self.budgets[role].density for role in ROLES}
        self.rounds: Sequence[Round] = method.rounds(training.steps, asked)
        self.views: dict[Name, NetView] = {name: self._view(name, weights[name]) for name in weights}
        if method.sees_channels:
            for role, view in self.views.items():
                groups = channel_groups(architecture, role, networks.of(role), weights[role])
                self.views[role] = dataclasses.replace(view, channels=groups)
        if method.sees_both:
            generator, discriminator = (self.views[role] for role in ROLES)
            self.views["generator"] = dataclasses.replace(generator, other=discriminator)
            self.views["discriminator"] = dataclasses.replace(discriminator, other=generator)
        self.states: dict[Name, SparseState] = {}
        self.updates = 0
        self.certain = True

    def _view(self, role: Name, prunable: Mapping[str, PrunableWeight]) -> NetView:
        rng = seeded(self.variant, "price", role)
        weights = {name: weight.parameter.detach() for name, weight in prunable.items()}
        made_up = {name: torch.randn(weight.shape, generator=rng) for name, weight in weights.items()}
        nothing = torch.zeros(0, dtype=torch.float64)
        return NetView(
            role=role_of(role),
            weights=weights,
            budget=self.budgets[role],
            gradients=made_up,
            momentum=made_up,
            protected=frozenset(name for name, weight in prunable.items() if weight.output),
            layers={name: weight.layer for name, weight in prunable.items()},
            signals=dict.fromkeys(("d_real", "d_fake", "d_fake_after"), nothing),
        )

    @property
    def dynamic(self) -> bool:
        """Whether the method asks for updates anywhere in a long round."""
        return any(Plan.UPDATE in self.method.plan(role, step, 10_000) for role in ROLES for step in range(1, 10_001))

    def run(self) -> TrainingCounter:
        """Play every round."""
        for role, view in self.views.items():
            rng = seeded(self.recipe.seed, "topology", role, "init")
            if self.method.init_needs_gradient:
                self.counter.probe(role)
                if self.loss.compares and role == "generator":
                    self.counter.compare({})
                if self.teacher_macs and role == "generator":
                    self.counter.teach(self.teacher_macs, {} if self.judges else None)
            self.states[role] = self.method.init(view, self.budgets[role], rng)
        before = 0
        for index, current in enumerate(self.rounds):
            if index:
                self.states = {name: self._next(name, current, index) for name in self.views}
            self._round(current, index, before)
            before += current.steps
        return self.counter

    def _next(self, role: Name, current: Round, index: int) -> SparseState:
        view = dataclasses.replace(self.views[role], total_steps=current.steps, round=index)
        rng = seeded(self.recipe.seed, "topology", role, index, "next_round")
        return self.method.next_round(self.states[role], view, current, rng)

    def _round(self, current: Round, index: int, before: int) -> None:
        changes: dict[Name, list[tuple[int, Mapping[str, int]]]] = {
            name: self._role_round(name, current, index) for name in self.views
        }
        self._extras(current, index, before, changes["discriminator"])
        self._paths(current, before, changes["generator"])
        measure = self.method.measure
        if measure is not None:
            times = (before + current.steps) // measure.every - before // measure.every
            self.counter.measure({name: state.budgets for name, state in self.states.items()}, times)

    def _role_round(self, role: Name, current: Round, index: int) -> list[tuple[int, Mapping[str, int]]]:
        """Count one round of one network; return the step from which each set of budgets holds."""
        plans = [(step, self.method.plan(role_of(role), step, current.steps)) for step in range(1, current.steps + 1)]
        due = [step for step, plan in plans if Plan.UPDATE in plan]
        self.updates += len(due)
        played = set(due if len(due) <= _UPDATES else [due[i * len(due) // _UPDATES] for i in range(_UPDATES)])
        dense = [step for step, plan in plans if Plan.DENSE_GRADIENT in plan]
        looks = [step for step, plan in plans if Plan.OBSERVE in plan and Plan.UPDATE not in plan]
        # of the looks between two updates one is played, the last
        played |= {max(before) for step in played if (before := [look for look in looks if look < step])}
        held: list[tuple[int, Mapping[str, int]]] = [(1, self.states[role].budgets)]
        for step in sorted(played):
            state = self.states[role]
            view = dataclasses.replace(
                self.views[role], step=step, total_steps=current.steps, round=index, masks=state.masks
            )
            if step in due:
                rng = seeded(self.recipe.seed, "topology", role, index, step)
                self.states[role] = self.method.update(state, view, rng)
            else:
                rng = seeded(self.recipe.seed, "topology", role, index, step, "observe")
                self.states[role] = state.replace(memory=self.method.observe(state, view, rng))
            if self.states[role].budgets != held[-1][1]:
                held.append((step + 1, self.states[role].budgets))
        if len(held) > 1 and not played.issuperset(due):
            self.certain = False
        # moments and weights off the mask take in gradients on every optimizer step
        always = self.recipe.sparsity.moments == "dense"
        ends = [start for start, _ in held[1:]] + [current.steps + 1]
        for (start, budgets), end in zip(held, ends, strict=True):
            # masks change after the step that is due, so that step still has the old ones
            self.counter.advance(role, budgets, end - start)
            wanted = sum(start <= step < end for step in dense)
            if always or self.states[role].backward:
                wanted = (end - start) * self.counter.optimizer_steps(role)
            self.counter.dense_gradient(role, budgets, wanted)
            if role == "discriminator" and self.loss.compares:
                self.counter.compare(budgets, end - start)
            if role == "discriminator" and self.teacher_macs:
                self.counter.teach(self.teacher_macs, budgets if self.judges else None, end - start)
        return held

    def _paths(self, current: Round, before: int, held: Sequence[tuple[int, Mapping[str, int]]]) -> None:
        """Count path lengths, as in the loop."""
        paths, training = self.recipe.objective.path_length, self.recipe.training
        if not paths.weight:
            return
        images = max(1, self.counter.generator_batch_size // training.accumulate // paths.share) * training.accumulate
        ends = [start for start, _ in held[1:]] + [current.steps + 1]
        for (start, budgets), end in zip(held, ends, strict=True):
            times = sum((before + step - 1) % paths.every == 0 for step in range(start, end))
            if times:
                self.counter.follow_paths(budgets, times * images)

    def _extras(self, current: Round, index: int, before: int, held: Sequence[tuple[int, Mapping[str, int]]]) -> None:
        """Count gradient penalties and distillation: one look for every discriminator step, as in the loop."""
        n_d, objective = self.recipe.training.discriminator_steps, self.recipe.objective
        ends = [start for start, _ in held[1:]] + [current.steps + 1]
        for (start, budgets), end in zip(held, ends, strict=True):
            draws = range((before + start - 1) * n_d, (before + end - 1) * n_d)
            times = len(draws) if self.loss.penalises else 0
            for penalty in (objective.r1, objective.r2):
                times += sum(draw % penalty.every == 0 for draw in draws) if penalty.weight else 0
            if times:
                self.counter.penalty(budgets, times)
            sides = (objective.consistency.real > 0) + (objective.consistency.fake > 0)
            if sides:
                self.counter.consistency(budgets, sides * len(draws))
        if current.distillation and index:
            self.counter.count_extra(
                "distillation", "discriminator", {}, 2 * self.counter.batch_size * current.steps * n_d
            )
