"""What a method may ask for beyond masks: a look, a backward mask, start values, the other network."""

from __future__ import annotations

import pytest
import torch
from engine_toys import ROLES, Toy, ToyConfig, make
from pydantic import Field
from test_engine import Swap, one_weight, resume

from gancompress.cost.counter import TrainingCounter
from gancompress.errors import InvariantError, MethodError
from gancompress.methods import Method, MethodConfig, Plan
from gancompress.sparsity.state import SparseState
from gancompress.testing import check_method

ONE = ToyConfig(every=2, roles=("generator",))


def bools(text):
    return torch.tensor([letter == "1" for letter in text])


# ---------------------------------------------------------------- a look without an update


class Looks(Swap):
    """Sums gradients while nothing changes."""

    def plan(self, role, step, total_steps):
        return super().plan(role, step, total_steps) if step % 2 == 0 else Plan.OBSERVE | Plan.DENSE_GRADIENT

    def observe(self, state, net, rng):
        return {**state.memory, "sum": state.memory.get("sum", 0.0) + float(net.gradients["w"].sum())}


def test_a_look_sees_the_dense_gradient_and_is_charged():
    engine, w, _ = one_weight(Looks(ONE))
    engine.counter = TrainingCounter(batch_size=1, generator_batch_size=1)
    w.grad = torch.tensor([1.0, 2.0, 4.0, 8.0])
    engine.step("generator", engine.plan("generator", 1, 10))
    masks, weights = engine.state("generator").masks, w.tolist()
    engine.observe("generator", step=1, total_steps=10)
    state = engine.state("generator")
    assert state.memory == {"sum": 15.0}
    assert (state.updates, state.masks["w"].tolist(), w.tolist()) == (0, masks["w"].tolist(), weights)
    assert engine.counter.dense_gradients["generator"].amount == 1
    engine.step("generator")
    with pytest.raises(InvariantError, match="the generator at step 3 needs dense gradients, but no step kept them"):
        engine.observe("generator", step=3, total_steps=10)


def test_a_gradient_that_nobody_looks_at_is_refused():
    class Wastes(Toy):
        def plan(self, role, step, total_steps):
            return Plan.DENSE_GRADIENT

    with pytest.raises(InvariantError, match="Wastes plans DENSE_GRADIENT without UPDATE or OBSERVE at step 4"):
        make(Wastes(ToyConfig())).engine.plan("generator", 4, 10)


def test_a_look_that_remembers_what_cannot_be_saved():
    class Odd(Looks):
        def observe(self, state, net, rng):
            return self.answer

    for answer, error, match in ((7, MethodError, "Odd failed"), ({"a": "b"}, InvariantError, "as str")):
        method = Odd(ONE)
        method.answer = answer
        engine, w, _ = one_weight(method)
        w.grad = torch.ones(4)
        engine.step("generator", engine.plan("generator", 1, 10))
        with pytest.raises(error, match=match):
            engine.observe("generator", step=1, total_steps=10)


# ---------------------------------------------------------------- trained while masked


class Wide(Swap):
    """Computes with weights 0 and 1 and trains 2 as well; then computes with 1 and 2 and trains 3 as well."""

    def init(self, net, budget, rng):
        return super().init(net, budget, rng).replace(backward={"w": bools("1110")})

    def update(self, state, net, rng):
        self.seen = net.weights["w"].tolist()
        return state.replace(
            masks={"w": bools("0110")}, backward={"w": bools("0111")}, start={"w": torch.full((4,), 7.0)}
        )


@pytest.mark.parametrize("moments", ["masked", "compact"])
def test_known_answer_of_a_backward_mask(moments):
    method = Wide(ONE)
    engine, w, _ = one_weight(method, moments)
    held, momentum = (
        lambda: engine._nets["generator"].held["w"].tolist(),
        lambda: engine._nets["generator"].momentum(),
    )
    assert (w.tolist(), held()) == ([1, 2, 0, 0], [0, 0, 3, 0])
    w.grad = torch.tensor([1.0, 1.0, 1.0, float("nan")])
    engine.step("generator", engine.plan("generator", 1, 10))
    assert (w.tolist(), held()) == ([0, 1, 0, 0], [0, 0, 2, 0])
    assert momentum()["w"].tolist() == [1, 1, 1, 0]
    w.grad = torch.zeros(4)
    engine.step("generator", engine.plan("generator", 2, 10))
    assert (w.tolist(), held()) == ([-0.5, 0.5, 0, 0], [0, 0, 1.5, 0])
    engine.update("generator", step=2, total_steps=10)
    assert method.seen == [-0.5, 0.5, 1.5, 0]
    # weight 2 goes on with what it learned while it was masked; weight 3 starts where the method said
    assert (w.tolist(), held()) == ([0, 0.5, 1.5, 0], [0, 0, 0, 7])
    assert momentum()["w"].tolist() == [0, 0.5, 0.5, 0]
    engine.check()
    engine.set_state("generator", engine.state("generator"), keep=False)
    assert held() == [0, 0, 0, 0]


def test_grown_weights_start_where_the_method_says():
    class Starts(Swap):
        def update(self, state, net, rng):
            return super().update(state, net, rng).replace(start={"w": torch.tensor([9.0, 9.0, 9.0, -4.0])})

    engine, w, _ = one_weight(Starts(ONE))
    w.grad = torch.ones(4)
    engine.step("generator", engine.plan("generator", 2, 10))
    engine.update("generator", step=2, total_steps=10)
    assert w.tolist() == [0, 1, 0, -4]
    assert engine.state("generator").start == {}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"backward": {"w": bools("1011")}}, "the backward mask of w leaves out 1 weights that are kept"),
        ({"backward": {"w": torch.ones(4)}}, "w backward mask of torch.float32"),
        ({"backward": {"v": bools("1111")}}, "v backward mask of another shape, or for no mask"),
        ({"start": {"w": torch.ones(3)}}, "w start values of another shape"),
        ({"start": {"w": bools("1111")}}, "w start values of torch.bool"),
    ],
)
def test_backward_masks_and_start_values_that_do_not_fit(changes, match):
    class Wrong(Swap):
        def init(self, net, budget, rng):
            return super().init(net, budget, rng).replace(**changes)

    with pytest.raises(InvariantError, match=match):
        one_weight(Wrong(ONE))


class TopKastConfig(MethodConfig):
    """Settings of the method below."""

    every: int = Field(default=2, description="training steps between two updates")


class TopKast(Method[TopKastConfig]):
    """Computes with the largest weights and trains half as many more (after Jayakumar et al., 2020)."""

    Config = TopKastConfig

    def _largest(self, net, budget):
        counts = budget.counts
        units = {name: budget.step(name) for name in counts}
        larger = {n: min(c // units[n] * 3 // 2 * units[n], net.weights[n].numel()) for n, c in counts.items()}
        sizes = {name: weight.abs() for name, weight in net.weights.items()}
        return SparseState(net.top(sizes, counts), dict(counts), backward=net.top(sizes, larger))

    def init(self, net, budget, rng):
        return self._largest(net, budget)

    def plan(self, role, step, total_steps):
        return Plan.OBSERVE if step % self.config.every else Plan.UPDATE

    def observe(self, state, net, rng):
        return {**state.memory, "looks": state.memory.get("looks", 0) + 1}

    def update(self, state, net, rng):
        fresh = self._largest(net, net.budget)
        return state.replace(masks=fresh.masks, backward=fresh.backward)


def test_a_method_with_a_backward_mask_keeps_every_promise():
    """Counts, zeros, checkpoints bit for bit, costs."""
    check_method(TopKast)


def test_a_backward_mask_is_resumed_and_compact_moments_change_nothing():
    whole, half = make(TopKast(TopKastConfig())), make(TopKast(TopKastConfig()))
    compact = make(TopKast(TopKastConfig()), moments="compact")
    for step in range(1, 8):
        for toys in (whole, half, compact):
            toys.step(step)
            for role in ROLES:
                if step % 2:
                    toys.engine.observe(role, step=step, total_steps=1000)
        if step == 3:
            half = resume(half, method=TopKast(TopKastConfig()))
    assert half.bytes() == whole.bytes()
    for role in ROLES:
        for name, parameter in whole.networks[role].named_parameters():
            assert torch.equal(parameter, dict(compact.networks[role].named_parameters())[name])
        assert any(bool(held.any()) for held in whole.engine._nets[role].held.values())
        assert whole.engine.state(role).memory == {"looks": 4}


def test_without_these_features_a_checkpoint_holds_nothing_new():
    tensors, _ = make().engine.state_dict()
    assert {name.split(".")[1] for name in tensors} == {"mask", "memory", "ever"}


# ---------------------------------------------------------------- both networks


class Follows(Toy):
    """Gives the discriminator one weight more, or fewer, than the generator keeps, per layer that both have."""

    sees_both = True

    def update(self, state, net, rng):
        assert net.other.gradients is None
        assert net.other.other is None
        self.seen = (net.role, net.other.role, {n: int(m.sum()) for n, m in net.other.masks.items()})
        assert all((net.other.weights[name][~mask] == 0).all() for name, mask in net.other.masks.items())
        assert all(torch.equal(net.masks[name], mask) for name, mask in state.masks.items())
        return state


def test_a_method_that_asks_sees_the_other_network():
    method = Follows(ToyConfig(every=1))
    toys = make(method)
    toys.step(1)
    assert method.seen == ("discriminator", "generator", dict(toys.engine.state("generator").budgets))
    plain = make(Toy(ToyConfig(every=1)))
    assert plain.engine._view(plain.engine._nets["generator"]).other is None


def test_the_other_network_is_only_shown():
    class Edits(Follows):
        def update(self, state, net, rng):
            next(iter(net.other.weights.values())).zero_()
            return state

    with pytest.raises(InvariantError, match="method Edits changed the other network's"):
        make(Edits(ToyConfig(every=1))).step(1)
