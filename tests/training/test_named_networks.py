"""Networks have names: several play on one side, each with its own masks, moments and average."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from engine_toys import Toy, ToyConfig, ToyDiscriminator, ToyGenerator, budget_of
from torch import nn

from gancompress.backbones.base import prunable_weights
from gancompress.cost.counter import TrainingCounter, Work
from gancompress.errors import CheckpointError, InvariantError, MethodError
from gancompress.methods.base import Plan
from gancompress.recipe.schema import EMAConfig
from gancompress.training.ema import SparseEMA
from gancompress.training.engine import Engine, RoleParts

GENERATORS, DISCRIMINATORS = ("horses", "zebras"), ("judge_horses", "judge_zebras")


class Four:
    """Two generators and two discriminators, each trained towards 0 by itself."""

    def __init__(self, method: Toy | None = None, **engine: Any) -> None:
        torch.manual_seed(0)
        self.networks: dict[str, nn.Module] = {name: ToyGenerator() for name in GENERATORS}
        self.networks |= {name: ToyDiscriminator() for name in DISCRIMINATORS}
        self.averages = {name: SparseEMA(self.networks[name], EMAConfig(decay=0.9)) for name in GENERATORS}  # type: ignore[arg-type]
        self.optimizers = {name: torch.optim.Adam(n.parameters(), 1e-2) for name, n in self.networks.items()}
        parts = {}
        for name, network in self.networks.items():
            weights = {n: w for n, w in prunable_weights(network).items() if w.kind == "convolution"}
            role = "generator" if name in GENERATORS else "discriminator"
            budget = budget_of(weights, 0.5 if name == "zebras" else 0.3)
            parts[name] = RoleParts(network, self.optimizers[name], budget, weights, role=role)  # type: ignore[arg-type]
        self.engine = Engine(method or Toy(ToyConfig()), parts, seed=0, ema=self.averages, **engine)

    def step(self, step: int) -> list[str]:
        updated = []
        for name, network in self.networks.items():
            plan = self.engine.plan(name, step, 10)
            x = torch.randn(2, 6) if name in GENERATORS else torch.randn(2, 3, 4, 4)
            network.zero_grad()
            network(x).square().mean().backward()
            self.engine.step(name, plan)
            if name in self.averages:
                self.averages[name].update(network, step)  # type: ignore[arg-type]
            if Plan.UPDATE in plan:
                updated.append(self.engine.update(name, step=step, total_steps=10).role)
        return updated


def test_a_method_is_asked_by_role_and_answers_for_every_network() -> None:
    four = Four(Toy(ToyConfig(roles=("generator",))))
    four.engine.init()
    before = {name: four.engine.state(name).hash() for name in four.engine.roles}
    assert [four.step(step) for step in (1, 2, 3)] == [[], [], ["horses", "zebras"]]
    changed = {name for name, found in before.items() if four.engine.state(name).hash() != found}
    assert changed == set(GENERATORS)
    assert [four.engine.role(name) for name in four.engine.roles] == ["generator"] * 2 + ["discriminator"] * 2


def test_networks_of_one_side_have_masks_of_their_own() -> None:
    """Names draw apart, though both generators have the same shapes and the same side."""
    four = Four()
    four.engine.init()
    kept = {name: four.engine.state(name) for name in four.engine.roles}
    assert kept["horses"].nonzeros < kept["zebras"].nonzeros
    assert not torch.equal(*(kept[name].masks["first.weight"] for name in DISCRIMINATORS))


def test_every_average_follows_its_own_masks() -> None:
    four = Four()
    four.engine.init()
    for step in range(1, 8):
        four.step(step)
    for name, average in four.averages.items():
        for weight, mask in four.engine.state(name).masks.items():
            assert (average.parameter(weight)[~mask] == 0).all()
            assert (average.parameter(weight)[mask] != 0).any()
    four.engine.check()


def test_what_is_saved_goes_back_to_the_network_it_came_from() -> None:
    four, fresh = Four(), Four()
    four.engine.init()
    for step in range(1, 5):
        four.step(step)
    tensors, scalars = four.engine.state_dict()
    fresh.engine.load_state_dict(tensors, scalars)
    for name in four.engine.roles:
        assert fresh.engine.state(name).hash() == four.engine.state(name).hash()
        assert fresh.engine.state(name).updates == 1
    del scalars["zebras"]
    with pytest.raises(CheckpointError, match="zebras"):
        Four().engine.load_state_dict(tensors, scalars)


def test_a_network_that_is_called_by_no_role_must_say_its_side() -> None:
    network = ToyGenerator()
    weights = prunable_weights(network)
    parts = RoleParts(network, torch.optim.SGD(network.parameters()), budget_of(weights, 0.5), weights)
    with pytest.raises(InvariantError, match="network 'horses' plays on no side"):
        Engine(Toy(ToyConfig()), {"horses": parts}, seed=0)


def test_a_method_that_watches_a_pair_refuses_four_by_name() -> None:
    class Watching(Toy):
        sees_both = True

    wanted = "method Watching watches two networks play against each other; it cannot serve 4 .horses, zebras"
    with pytest.raises(MethodError, match=wanted):
        Four(Watching(ToyConfig()))


def test_a_counter_of_a_pair_refuses_others() -> None:
    with pytest.raises(InvariantError, match="counted for generator, discriminator, not for horses, zebras"):
        Four(counter=TrainingCounter(4, 4))


def test_a_counter_of_these_networks_counts_each_by_name() -> None:
    work = {name: Work(9, 3) for name in GENERATORS} | {name: Work(8, 2) for name in DISCRIMINATORS}
    four = Four(counter=TrainingCounter(1, 1, work=work))
    four.engine.init()
    for step in (1, 2):
        four.step(step)
    four.engine.count_steps()
    counter = four.engine.counter
    assert counter is not None
    assert {name: count.amount for name, count in counter.steps.items()} == dict.fromkeys(work, 2)
    assert TrainingCounter.from_dict(json.loads(json.dumps(counter.to_dict()))) == counter
