"""Every check of the method kit passes for a good method and fails for one that is broken in just that way."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch
from pydantic import ConfigDict, Field

from gancompress.methods import Method, MethodConfig, NetView, Plan, Round, SparseState
from gancompress.methods.static import random_state
from gancompress.sparsity.masks import random_mask
from gancompress.testing import ConformanceError, check_method, method_checks
from gancompress.testing import methods as kit


class Config(MethodConfig):
    """Settings of the methods of this file."""

    every: int = Field(default=100, ge=1, description="training steps between two updates")


class Good(Method[Config]):
    """Draws new masks now and then."""

    Config = Config

    def init(self, net: NetView, budget: Any, rng: torch.Generator) -> SparseState:
        return random_state(net, budget, rng)

    def plan(self, role: Any, step: int, total_steps: int) -> Plan:
        return Plan.UPDATE if step % self.config.every == 0 else Plan.NOTHING

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        return state.replace(
            masks=net.random(state.budgets, rng), memory={"steps": net.step, "last": torch.tensor([0.5])}
        )


def outcomes(method: Any, settings: Any = None, **more: Any) -> dict[str, str]:
    """What failed, by name, with the reason; what was skipped is left out."""
    report = [check.outcome() for check in method_checks(method, settings, **more)]
    return {o.name: o.reason for o in report if o.state == "failed"}


def test_a_good_method_passes() -> None:
    report = check_method(Good)
    assert {o.state for o in report.outcomes} == {"passed"}
    assert report.component == "method Good"


def test_every_is_two_unless_it_is_said() -> None:
    assert outcomes(Good, {"every": 100}) == {
        "one-update-per-due-step": "it overrides update(), but none was due in a round of 4 steps: give the kit "
        "settings that make it act within these"
    }


class Undocumented(Good):
    """Has a setting that says nothing."""

    class Config(Config):
        """Settings."""

        drop: float = 0.3


class Silent(Good):
    pass


class Loose(Good):
    """Takes anything."""

    class Config(Config):
        """Settings."""

        model_config = ConfigDict(extra="allow", frozen=True)


class Uneven(Good):
    """Keeps one weight too few."""

    def init(self, net: Any, budget: Any, rng: Any) -> SparseState:
        state = super().init(net, budget, rng)
        name = next(iter(state.masks))
        masks = {**state.masks, name: random_mask(state.masks[name].shape, state.budgets[name] - 1, rng)}
        return state.replace(masks=masks)


class Aliased(Good):
    """Writes into its masks behind the engine's back, when it is asked for a plan."""

    swap = False

    def init(self, net: Any, budget: Any, rng: Any) -> SparseState:
        state = super().init(net, budget, rng)
        self.mask = next(iter(state.masks.values())).view(-1)
        return state

    def plan(self, role: Any, step: int, total_steps: int) -> Plan:
        if step == 3 and hasattr(self, "mask"):
            self.mask[self.mask.nonzero()[0]] = False
            if self.swap:
                self.mask[(~self.mask).nonzero()[-1]] = True
        return Plan.NOTHING


class Swapped(Aliased):
    """Moves a weight of its mask behind the engine's back."""

    swap = True


class Generous(Good):
    """Keeps one weight more than asked."""

    def init(self, net: Any, budget: Any, rng: Any) -> SparseState:
        counts = {name: min(count + 1, budget.sizes[name]) for name, count in budget.counts.items()}
        return super().init(net, dataclasses.replace(budget, counts=counts), rng)


class Counting(Good):
    """Counts how often it is asked for a plan."""

    calls = 0

    def plan(self, role: Any, step: int, total_steps: int) -> Plan:
        self.calls += 1
        return Plan.UPDATE if self.calls % 3 == 0 else Plan.NOTHING


class Global(Good):
    """Draws from the global random state."""

    def init(self, net: Any, budget: Any, rng: Any) -> SparseState:
        return super().init(net, budget, torch.default_generator)


class OwnSeed(Good):
    """Draws from a generator of its own."""

    def init(self, net: Any, budget: Any, rng: Any) -> SparseState:
        return super().init(net, budget, torch.Generator().manual_seed(0))

    def update(self, state: Any, net: Any, rng: Any) -> SparseState:
        return super().update(state, net, torch.Generator().manual_seed(0))


class Splitting(Good):
    """Chooses single weights, whatever the recipe's pattern is."""

    def update(self, state: SparseState, net: NetView, rng: torch.Generator) -> SparseState:
        masks = {name: random_mask(mask.shape, state.budgets[name], rng) for name, mask in state.masks.items()}
        return state.replace(masks=masks)


@dataclasses.dataclass(frozen=True)
class MyState(SparseState):
    age: int = 0


class Subclassed(Good):
    """Keeps what it remembers in a field of its own."""

    def init(self, net: Any, budget: Any, rng: Any) -> SparseState:
        state = super().init(net, budget, rng)
        return MyState(state.masks, state.budgets)


class Hidden(Good):
    """Remembers in the object: every second update draws other masks."""

    updates = 0

    def update(self, state: Any, net: Any, rng: Any) -> SparseState:
        self.updates += 1
        torch.rand(self.updates, generator=rng)
        return super().update(state, net, rng)


class Meddling(Good):
    """Changes the weights that it was only shown, by a way that torch does not count."""

    def init(self, net: Any, budget: Any, rng: Any) -> SparseState:
        for weight in net.weights.values():
            weight.data.mul_(0.5)
        return super().init(net, budget, rng)


@pytest.mark.parametrize(
    ("method", "check", "reason"),
    [
        (Undocumented, "documented", r"Field\(..., description=...\) is missing on drop"),
        (Silent, "documented", "Silent has no docstring"),
        (Loose, "strict-settings", "Config takes a setting that it does not have"),
        (Uneven, "trains", "its budget is"),
        (Aliased, "exact-counts", "after step 3 the mask of the discriminator's .* keeps"),
        (Swapped, "zero-off-mask", "after step 3 the discriminator's weight .* is not 0 at . masked positions"),
        (Generous, "budget-met", "the generator keeps .* the recipe asks for"),
        (Splitting, "holds-a-pattern", "with sparsity.pattern=2x2: .*splits a unit of .* net.random"),
        (Counting, "pure-plan", "it counts its calls, or draws at random"),
        (Counting, "one-update-per-due-step", "with . discriminator steps per training step the updates were"),
        (Global, "same-seed-same-masks", "other masks of the generator"),
        (OwnSeed, "other-seed-other-masks", "the generator's masks are the same with another seed"),
        (Subclassed, "state-round-trip", "the state of the generator is a MyState: only what SparseState has is saved"),
        (Hidden, "bit-exact-resume", "is not in SparseState.memory"),
        (Meddling, "two-ranks", "two processes disagree about the weights of the generator"),
    ],
    ids=lambda value: value if isinstance(value, str) and "-" in value else getattr(value, "__name__", ""),
)
def test_it_catches(method: Any, check: str, reason: str) -> None:
    found = next(c for c in method_checks(method, {"every": 2}) if c.name == check).outcome()
    assert found.state == "failed", found
    assert re.search(reason, found.reason), found.reason


def test_every_check_is_seen_to_fail() -> None:
    """The list above and the tests below name every check there is."""
    mark = next(mark for mark in test_it_catches.pytestmark if mark.name == "parametrize")
    seen = {case[1] for case in mark.args[1]} | {"resume-negative-control"}
    assert seen == {check.name for check in method_checks(Good)}


def test_a_comparison_that_sees_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit.Bench.run.__globals__["KitRun"], "differing", lambda self, other: [])
    assert list(outcomes(Good)) == ["resume-negative-control"]


def test_a_method_that_cannot_train_says_so_once() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_method(Uneven)
    report = caught.value.report
    assert [o.name for o in report.failures] == ["trains", "one-update-per-due-step"]
    assert {o.reason for o in report.outcomes if o.state == "skipped"} == {"'trains' fails, see there"}


def test_promises_that_do_not_fit_a_method_are_left_out() -> None:
    names = [check.name for check in method_checks(OwnSeed, skip=("other-seed-other-masks",))]
    assert "other-seed-other-masks" not in names
    assert len(names) == len(method_checks(OwnSeed)) - 1


class Rounds(Good):
    """Two rounds: dense, then pruned; the second starts from new weights."""

    def rounds(self, total_steps: int, density: Any) -> Any:
        return (Round("dense", total_steps), Round("sparse", total_steps, generator="reinitialise"))

    def init(self, net: Any, budget: Any, rng: Any) -> SparseState:
        return random_state(net, dataclasses.replace(budget, counts=budget.sizes), rng)

    def plan(self, role: Any, step: int, total_steps: int) -> Plan:
        return Plan.NOTHING

    def update(self, state: Any, net: Any, rng: Any) -> SparseState:
        raise AssertionError("never planned")

    def next_round(self, state: Any, net: Any, upcoming: Any, rng: Any) -> SparseState:
        return random_state(net, net.budget, rng)


class Patient(Rounds):
    """The same, without an update that is never due."""

    update = Method.update


def test_several_rounds_are_stopped_at_their_ends_too() -> None:
    checks = {check.name: check for check in method_checks(Patient)}
    for name in ("trains", "budget-met", "one-update-per-due-step", "bit-exact-resume", "resume-negative-control"):
        checks[name]()
    idle = next(check for check in method_checks(Rounds) if check.name == "one-update-per-due-step")
    assert "it overrides update(), but none was due" in idle.outcome().reason
    assert kit._stops([6]) == [3]
    assert kit._stops([3, 3]) == [1, 3, 4]
    assert kit._stops([6, 6, 6]) == [3, 6, 9, 12, 15]
    assert kit._stops([1, 1]) == [1]


def test_a_registered_name_and_a_class_are_the_same_to_it() -> None:
    names = [check.name for check in method_checks("rigl")]
    assert names == [check.name for check in method_checks(Good)]
    assert all(isinstance(check.promise, str) for check in method_checks("no-such-method"))
    assert "unknown method 'no-such-method'" in method_checks("no-such-method")[0].outcome().reason


def test_the_recipe_of_the_kit_may_be_changed() -> None:
    with pytest.raises(ConformanceError, match="unknown backbone 'nothing'"):
        check_method(Good, overrides=["model.name=nothing"])
