from __future__ import annotations

import json

import pytest
import torch
from engine_toys import ROLES, Toy, ToyConfig, make, off_mask
from torch import nn

from gancompress.backbones.base import PrunableWeight
from gancompress.cost.counter import TrainingCounter
from gancompress.errors import CheckpointError, InvariantError
from gancompress.methods.base import Plan, Round
from gancompress.sparsity.layers import Layer
from gancompress.sparsity.state import Budget, SparseState
from gancompress.training.engine import Engine, RoleParts
from gancompress.training.masking import MaskedNetwork


def assert_zero_off_mask(toys, moments=True):
    for role in ROLES:
        for name, (parameter, off) in off_mask(toys, role).items():
            assert (parameter[off] == 0).all(), name
            if role == "generator":
                assert (toys.ema.parameter(name)[off] == 0).all(), name
            state = toys.optimizers[role].state.get(parameter, {})
            for key in ("exp_avg", "exp_avg_sq"):
                if moments and key in state:
                    assert (state[key][off] == 0).all(), (name, key)


# ---------------------------------------------------------------- one weight, drawn by hand


class Swap(Toy):
    """Keeps the first two of four weights, then drops weight 0 and grows weight 3."""

    def init(self, net, budget, rng):
        return SparseState({"w": torch.tensor([True, True, False, False])}, {"w": 2})

    def update(self, state, net, rng):
        self.seen, self.momentum = net, net.momentum["w"].tolist()
        return state.replace(masks={"w": torch.tensor([False, True, False, True])})


def one_weight(method, moments="masked"):
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    network = nn.ParameterDict({"w": parameter})
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.5)
    weights = {"w": PrunableWeight("w", parameter, "w", Layer("linear", tuple(parameter.shape), output=True))}
    parts = RoleParts(network, optimizer, Budget(0.5, {"w": 2}, {"w": 4}, "uniform"), weights)
    engine = Engine(method, {"generator": parts}, seed=0, moments=moments)
    engine.init()
    return engine, parameter, optimizer


def test_known_answer_of_two_steps_and_an_update():
    method = Swap(ToyConfig(every=2, roles=("generator",)))
    engine, w, optimizer = one_weight(method)
    assert w.tolist() == [1, 2, 0, 0]
    w.grad = torch.tensor([1.0, 1.0, 1.0, 1.0])
    engine.step("generator", engine.plan("generator", 1, 10))
    assert w.tolist() == [0, 1, 0, 0]  # lr 1, gradient masked
    assert optimizer.state[w]["momentum_buffer"].tolist() == [1, 1, 0, 0]
    w.grad = torch.tensor([2.0, 2.0, float("nan"), 5.0])
    engine.step("generator", engine.plan("generator", 2, 10))
    assert w.tolist() == [-2.5, -1.5, 0, 0]  # momentum 0.5 * 1 + 2
    report = engine.update("generator", step=2, total_steps=10)
    assert w.tolist() == [0, -1.5, 0, 0]
    assert optimizer.state[w]["momentum_buffer"].tolist() == [0, 2.5, 0, 0]
    assert method.seen.gradients["w"][3] == 5  # dense
    assert method.seen.gradients["w"][2].isnan()
    assert method.momentum == [2.5, 2.5, 0, 0]
    assert method.seen.protected == {"w"}
    assert (method.seen.step, method.seen.total_steps, method.seen.round) == (2, 10, 0)
    assert (report.grown, report.dropped, report.nonzeros, report.size) == (1, 1, 2, 4)
    assert (report.exploration, report.churn, report.density) == (0.75, 0.5, 0.5)
    w.grad = torch.ones(4)
    engine.step("generator")
    assert w.tolist() == [0, -1.5 - 2.25, 0, -1]  # the grown weight starts at 0 with no momentum


def test_dropped_and_regrown_in_one_update_keeps_value_and_moments():
    class Stay(Swap):
        def update(self, state, net, rng):
            return state.replace(masks={"w": state.masks["w"].clone()})

    engine, w, optimizer = one_weight(Stay(ToyConfig(every=1, roles=("generator",))))
    w.grad = torch.ones(4)
    engine.step("generator", engine.plan("generator", 1, 10))
    before = (w.tolist(), optimizer.state[w]["momentum_buffer"].tolist())
    report = engine.update("generator", step=1, total_steps=10)
    assert (w.tolist(), optimizer.state[w]["momentum_buffer"].tolist()) == before
    assert (report.grown, report.dropped) == (0, 0)
    assert report.updates == 1


def test_dense_moments_behave_as_the_published_codes():
    """Gradients reach the moments everywhere, weights are masked after the step, grown weights start warm."""
    engine, w, optimizer = one_weight(Swap(ToyConfig(every=2, roles=("generator",))), moments="dense")
    for step in (1, 2):
        w.grad = torch.ones(4)
        engine.step("generator", engine.plan("generator", step, 10))
    assert w.tolist() == [-1.5, -0.5, 0, 0]
    assert optimizer.state[w]["momentum_buffer"].tolist() == [1.5, 1.5, 1.5, 1.5]
    engine.update("generator", step=2, total_steps=10)
    assert optimizer.state[w]["momentum_buffer"].tolist() == [1.5, 1.5, 1.5, 1.5]  # nothing is done on drop or grow
    assert w.tolist() == [0, -0.5, 0, 0]
    w.grad = torch.zeros(4)
    engine.step("generator")
    assert w.tolist() == [0, -1.25, 0, -0.75]  # the grown weight moves by the momentum it gathered while masked


def test_dense_moments_do_not_let_nan_into_masked_weights():
    engine, w, _ = one_weight(Swap(ToyConfig(every=5, roles=("generator",))), moments="dense")
    w.grad = torch.tensor([1.0, 1.0, float("nan"), float("inf")])
    engine.step("generator")
    assert w.tolist() == [0, 1, 0, 0]


# ---------------------------------------------------------------- properties over hundreds of steps


@pytest.mark.parametrize("n_d", [1, 2, 4, 5])
def test_invariants_and_one_update_per_due_training_step(n_d):
    toys = make(n_d=n_d)
    budgets = {role: dict(toys.engine.state(role).budgets) for role in ROLES}
    counts = dict.fromkeys(ROLES, 0)
    for step in range(1, 61):
        for report in toys.step(step):
            counts[report.role] += 1
            assert report.grown == report.dropped > 0
            assert step % 3 == 0
        toys.engine.check()
        assert_zero_off_mask(toys)
    assert counts == {"generator": 20, "discriminator": 20}
    for role in ROLES:
        state = toys.engine.state(role)
        assert state.updates == state.memory["calls"] == 20
        assert {name: int(mask.sum()) for name, mask in state.masks.items()} == budgets[role]
    scalars = toys.engine.state_dict()[1]
    assert (scalars["generator"]["steps"], scalars["discriminator"]["steps"]) == (60, 60 * n_d)


def test_many_steps_with_weight_decay_stay_on_the_mask():
    toys = make(optimizer=lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1, amsgrad=True), check_every=7)
    reports = [report for step in range(1, 121) for report in toys.step(step) if report.role == "generator"]
    toys.engine.check()
    assert_zero_off_mask(toys)
    assert reports[-1].exploration > 0.5  # 40 updates of 30 % reach most weights


def test_grown_weights_start_at_zero_with_zero_moments_then_learn():
    toys = make(Toy(ToyConfig(every=3)))
    for step in (1, 2):
        toys.step(step)
    before = {role: dict(toys.engine.state(role).masks) for role in ROLES}
    toys.step(3)
    grown = {
        role: {name: mask & ~before[role][name] for name, mask in toys.engine.state(role).masks.items()}
        for role in ROLES
    }
    for role in ROLES:
        for name, (parameter, _) in off_mask(toys, role).items():
            new = grown[role][name]
            assert new.any()
            assert (parameter[new] == 0).all()
            assert all((toys.optimizers[role].state[parameter][k][new] == 0).all() for k in ("exp_avg", "exp_avg_sq"))
    toys.step(4)
    moved = [
        (parameter[grown[role][name]] != 0).float().mean()
        for role in ROLES
        for name, (parameter, _) in off_mask(toys, role).items()
    ]
    assert min(moved) > 0.9


def test_average_of_grown_weights_is_the_live_value_after_their_first_step():
    toys = make(Toy(ToyConfig(every=3)))
    for step in (1, 2, 3):
        toys.step(step)
    pending = dict(toys.ema.pending)
    assert pending
    old = {name: (toys.engine.state("generator").masks[name] & ~pending[name]) for name in pending}
    toys.step(4)
    for name, (parameter, _) in off_mask(toys, "generator").items():
        average = toys.ema.parameter(name)
        assert torch.equal(average[pending[name]], parameter[pending[name]])
        assert (average[old[name]] != parameter[old[name]]).float().mean() > 0.9  # the others are averaged
    assert toys.ema.pending == {}
    toys.step(5)
    name = next(iter(pending))
    parameter = dict(toys.generator.named_parameters())[name]
    assert not torch.equal(toys.ema.parameter(name)[pending[name]], parameter[pending[name]])


def test_skipped_steps_leave_weights_and_keep_grown_weights_pending():
    """RigL updates instead of stepping; a weight grown then still waits for its first step."""
    toys = make(Toy(ToyConfig(every=1, skip=True)))
    before = {n: p.detach().clone() for n, p in toys.generator.named_parameters()}
    toys.step(1)
    assert toys.engine.state_dict()[1]["generator"]["steps"] == 0
    assert toys.optimizers["generator"].state == {}
    assert torch.equal(before["norm.weight"], toys.generator.norm.weight)
    first = dict(toys.ema.pending)
    toys.step(2)
    still = {n: first[n] & toys.engine.state("generator").masks[n] for n in first}
    assert all((toys.ema.pending[n] | ~still[n]).all() for n in first)
    assert any(s.any() for s in still.values())
    assert_zero_off_mask(toys)


def test_nan_gradient_at_a_masked_position_does_not_leak():
    toys, clean = make(), make()
    for t, poison in ((toys, True), (clean, False)):
        for step in range(1, 6):
            t.backward("generator", step)
            if poison:
                for parameter, off in off_mask(t, "generator").values():
                    parameter.grad[off] = float("nan") if step % 2 else float("inf")
            t.engine.step("generator")
    assert toys.bytes() == clean.bytes()
    t.engine.check()


def test_a_nan_gradient_at_a_kept_position_is_seen():
    toys = make()
    toys.backward("generator", 1)
    toys.generator.first.weight.grad.fill_(float("nan"))
    toys.engine.step("generator")
    mask = toys.engine.state("generator").masks["first.weight"]
    assert toys.generator.first.weight[mask].isnan().all()
    assert (toys.generator.first.weight[~mask] == 0).all()


# ---------------------------------------------------------------- the fast path


def naive_steps(toys, steps):
    """The same training with the masks applied by a plain loop after, and before, every optimizer step."""
    for step in range(1, steps + 1):
        for role in ("discriminator", "generator"):
            toys.backward(role, step)
            for parameter, off in off_mask(toys, role).values():
                parameter.grad = torch.where(off, torch.zeros_like(parameter), parameter.grad)
            toys.optimizers[role].step()
            with torch.no_grad():
                for parameter, off in off_mask(toys, role).values():
                    parameter.copy_(torch.where(off, torch.zeros_like(parameter), parameter))
        toys.ema.stepped()
        toys.ema.update(toys.generator, step)


def test_fast_path_equals_a_naive_loop_bit_for_bit():
    fast, naive = make(Toy(ToyConfig(every=100))), make(Toy(ToyConfig(every=100)))
    for step in range(1, 21):
        fast.step(step)
    naive_steps(naive, 20)
    for role in ROLES:
        expected = naive.networks[role].state_dict()
        for name, tensor in fast.networks[role].state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        for a, b in zip(fast.optimizers[role].state.values(), naive.optimizers[role].state.values(), strict=True):
            assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
    for a, b in zip(fast.ema.module.parameters(), naive.ema.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_channels_last_weights_are_masked_alike():
    toys = make(init=False)
    toys.generator.to(memory_format=torch.channels_last)
    toys.engine.init()
    for step in range(1, 10):
        toys.step(step)
    toys.engine.check()
    assert_zero_off_mask(toys)


class CountOps(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_step_between_updates_never_reads_back_and_dispatches_little():
    toys = make(optimizer=lambda p: torch.optim.Adam(p, fused=True))
    for step in (1, 2):
        toys.step(step)
    toys.backward("discriminator", 4)
    toys.backward("generator", 4)
    with CountOps() as ops:
        for role in ROLES:
            toys.engine.step(role)
        toys.ema.update(toys.generator, 4)
    reads = [name for name in ops.names if "_local_scalar_dense" in name or "item" in name or "nonzero" in name]
    assert reads == []
    # per role: gradients masked at once, the fused step and its counter, weights masked at once; the average in two
    done = [name for name in ops.names if not name.startswith(("aten.view", "aten.detach", "profiler"))]
    assert len(done) <= 10, done


def test_a_dense_network_costs_nothing_extra():
    toys = make(Toy(ToyConfig(every=100)), density=1.0)
    toys.backward("generator", 1)
    with CountOps() as engine_ops:
        toys.engine.step("generator")
    toys.backward("generator", 2)
    with CountOps() as engine_ops:
        toys.engine.step("generator")
    plain = make(Toy(ToyConfig(every=100)), density=1.0)
    for step in (1, 2):
        plain.backward("generator", step)
        with CountOps() as plain_ops:
            plain.optimizers["generator"].step()
    assert engine_ops.names == plain_ops.names


# ---------------------------------------------------------------- what must be refused


def broken(**changes):
    class Broken(Toy):
        def update(self, state, net, rng):
            return super().update(state, net, rng).replace(**{k: v(state) for k, v in changes.items()})

    return Broken(ToyConfig(every=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": lambda s: {**s.budgets, "first.weight": 1}}, r"mask of first\.weight keeps \d+ weights, .* is 1"),
        ({"masks": lambda s: {**s.masks, "x": torch.ones(1, dtype=torch.bool)}}, "for other tensors: x"),
        ({"masks": lambda s: {n: m.float() for n, m in s.masks.items()}}, "torch.float32"),
        ({"masks": lambda s: {n: m[:1] for n, m in s.masks.items()}}, r"\(1, "),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(changes, message):
    toys = make(broken(**changes))
    toys.backward("generator", 1)
    toys.engine.step("generator", toys.engine.plan("generator", 1, 10))
    before = toys.bytes()
    with pytest.raises(InvariantError, match=message):
        toys.engine.update("generator", step=1, total_steps=10)
    assert toys.bytes() == before


def test_a_method_that_edits_weights_is_caught():
    class Vandal(Toy):
        def update(self, state, net, rng):
            net.weights["first.weight"].add_(1)
            return state

    toys = make(Vandal(ToyConfig(every=1)))
    with pytest.raises(InvariantError, match=r"method Vandal changed weight first.weight of the generator itself"):
        toys.step(1)


@pytest.mark.parametrize("what", ["weight", "moment", "average", "mask"])
def test_check_names_what_broke(what):
    toys = make()
    for step in (1, 2, 3):
        toys.step(step)
    toys.engine.check()
    parameter, off = off_mask(toys, "generator")["last.weight"]
    index = tuple(off.nonzero()[0].tolist())
    tensor = {
        "weight": parameter.data,
        "moment": toys.optimizers["generator"].state[parameter]["exp_avg_sq"],
        "average": toys.ema.parameter("last.weight").data,
        "mask": toys.engine.state("generator").masks["last.weight"],
    }[what]
    tensor[index] = True if what == "mask" else 1e-30
    with pytest.raises(InvariantError, match=rf"(?s)generator.*{what}.*last\.weight"):
        toys.engine.check()


def test_check_every_decides_when_update_looks():
    for every, caught in ((1, True), (2, False)):
        toys = make(Toy(ToyConfig(every=1)), check_every=every)
        toys.backward("generator", 1)
        toys.engine.step("generator", Plan.UPDATE | Plan.DENSE_GRADIENT)

        def spoil(toys=toys):
            parameter = toys.generator.last.weight
            parameter.data[~toys.engine.state("generator").masks["last.weight"]] = 1.0

        net = toys.engine._nets["generator"]
        change = net.change
        net.change = lambda state, change=change, spoil=spoil: (change(state), spoil())[0]
        if caught:
            with pytest.raises(InvariantError, match=r"weight last\.weight"):
                toys.engine.update("generator", step=1, total_steps=10)
        else:
            toys.engine.update("generator", step=1, total_steps=10)


def test_a_second_update_at_the_same_step_is_refused():
    toys = make(Toy(ToyConfig(every=1)))
    toys.step(1)
    with pytest.raises(InvariantError, match="second topology update of the generator at step 1"):
        toys.engine.update("generator", step=1, total_steps=1000)


def test_an_update_without_the_gradient_it_asked_for_is_refused():
    toys = make(Toy(ToyConfig(every=1)))
    toys.backward("generator", 1)
    toys.engine.step("generator")  # the plan was not passed on
    with pytest.raises(InvariantError, match="dense gradients, but no step kept them"):
        toys.engine.update("generator", step=1, total_steps=1000)


def test_skipping_without_updating_is_refused():
    class Lazy(Toy):
        def plan(self, role, step, total_steps):
            return Plan.SKIP_STEP

    with pytest.raises(InvariantError, match="SKIP_STEP without UPDATE"):
        make(Lazy(ToyConfig())).engine.plan("generator", 1, 10)


def test_budget_for_other_tensors_is_refused():
    parameter = nn.Parameter(torch.ones(2))
    parts = RoleParts(
        nn.ParameterDict({"w": parameter}),
        torch.optim.SGD([parameter], 1.0),
        Budget(1.0, {"v": 1}, {"v": 1}, "uniform"),
        {"w": PrunableWeight("w", parameter, "w", Layer("linear", tuple(parameter.shape)))},
    )
    with pytest.raises(InvariantError, match="name different tensors: v, w"):
        MaskedNetwork("generator", parts, "masked")


# ---------------------------------------------------------------- starting with a gradient


def test_init_with_a_probe_gets_gradients_and_leaves_no_trace():
    seen = {}

    class Snip(Toy):
        init_needs_gradient = True

        def init(self, net, budget, rng):
            seen[net.role] = {name: g.clone() for name, g in net.gradients.items()}
            return super().init(net, budget, rng)

    toys, plain = make(Snip(ToyConfig()), init=False), make()

    def probe():
        z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
        toys.discriminator(toys.generator(z)).sum().backward()

    toys.engine.init(probe)
    assert all((g != 0).any() for grads in seen.values() for g in grads.values())
    assert all(p.grad is None for network in toys.networks.values() for p in network.parameters())
    assert toys.bytes() == plain.bytes()  # running statistics and singular vectors are back
    with pytest.raises(InvariantError, match="pass a probe"):
        make(Snip(ToyConfig()))


# ---------------------------------------------------------------- rounds


class Pruning(Toy):
    """Halves every budget between rounds, by magnitude."""

    def next_round(self, state, net, upcoming, rng):
        budgets = {name: count // 2 for name, count in state.budgets.items()}
        order = {name: net.weights[name].abs().masked_fill(~mask, -1) for name, mask in state.masks.items()}
        masks = {}
        for name, scores in order.items():
            mask = torch.zeros(scores.numel(), dtype=torch.bool)
            mask[scores.flatten().argsort(descending=True, stable=True)[: budgets[name]]] = True
            masks[name] = mask.view(scores.shape)
        return state.replace(masks=masks, budgets=budgets)


@pytest.mark.parametrize("reset", [False, True])
def test_next_round_decides_first_and_set_state_enforces(reset):
    toys = make(Pruning(ToyConfig(every=100)))
    start = {role: {n: p.detach().clone() for n, p in toys.networks[role].named_parameters()} for role in ROLES}
    for step in range(1, 6):
        toys.step(step)
    before = toys.bytes()
    states = toys.engine.next_round(Round("prune", 10), 1)
    assert toys.bytes() == before
    for role in ROLES:
        with torch.no_grad():
            for name, parameter in toys.networks[role].named_parameters():
                parameter.copy_(start[role][name])  # rewind
        total = toys.engine.state(role).nonzeros
        change = toys.engine.set_state(role, states[role], reset_moments=reset)
        assert (change.grown, change.dropped) == (0, total - toys.engine.state(role).nonzeros)
    toys.ema.reset()
    toys.engine.check()
    assert_zero_off_mask(toys)
    assert bool(toys.optimizers["generator"].state) is not reset
    name, (parameter, off) = next(iter(off_mask(toys, "generator").items()))
    assert torch.equal(parameter, start["generator"][name].masked_fill(off, 0))
    for step in range(1, 6):
        toys.step(step, round=1)
    toys.engine.check()


def test_moments_and_step_counters_start_anew_with_a_round():
    toys = make(Pruning(ToyConfig(every=100)))
    for step in (1, 2, 3):
        toys.step(step)
    parameter = next(iter(toys.generator.parameters()))
    optimizer = toys.optimizers["generator"]
    assert int(optimizer.state[parameter]["step"]) == 3
    states = toys.engine.next_round(Round("prune", 10), 1)
    for role in ROLES:
        toys.engine.set_state(role, states[role], reset_moments=True)
        assert not toys.optimizers[role].state
    toys.step(1, round=1)
    gradient, state = parameter.grad, optimizer.state[parameter]
    # one step after the start: nothing of the last round is averaged in
    assert int(state["step"]) == 1
    assert torch.allclose(state["exp_avg_sq"], 0.1 * gradient**2)


# ---------------------------------------------------------------- save and load


def resume(source, **options):
    """Carry a toy run into fresh objects the way a checkpoint does: tensors apart, scalars through JSON."""
    copy = make(init=False, seed=99, **options)
    for role in ROLES:
        copy.networks[role].load_state_dict(source.networks[role].state_dict())
        copy.optimizers[role].load_state_dict(source.optimizers[role].state_dict())
    copy.engine.seed = source.engine.seed
    ema, scalars = source.ema.state_dict()
    copy.ema.load_state_dict({n: t.clone() for n, t in ema.items()}, json.loads(json.dumps(scalars)))
    tensors, scalars = source.engine.state_dict()
    copy.engine.load_state_dict({n: t.clone() for n, t in tensors.items()}, json.loads(json.dumps(scalars)))
    return copy


@pytest.mark.parametrize("stop", [1, 2, 6, 7])
def test_state_survives_a_round_trip_bit_for_bit(stop):
    options = {"method": Toy(ToyConfig(window=3))}
    whole, half = make(**options), make(**options)
    for step in range(1, 13):
        record = {key: torch.tensor(float(step + i)) for i, key in enumerate(("d_real", "d_fake", "d_fake_after"))}
        whole.step(step)
        whole.engine.record(**record)
        if step == stop + 1:
            before = half.bytes()
            half = resume(half, **options)
            assert half.bytes() == before
        half.step(step)
        half.engine.record(**record)
        assert half.bytes() == whole.bytes()
    assert half.engine.state_dict()[1] == whole.engine.state_dict()[1]
    assert half.engine.state("generator").memory["rate"] == 0.1


def test_two_different_steps_differ():
    a, b = make(), make()
    a.step(1)
    b.step(1)
    assert a.bytes() == b.bytes()
    a.step(2)
    assert a.bytes() != b.bytes()


def test_masks_depend_on_the_seed_the_role_and_the_step():
    a, b = make(seed=0), make(seed=1)
    masks = {t.engine.state(role).hash() for t in (a, b) for role in ROLES}
    assert len(masks) == 4
    for step in (1, 2, 3):
        a.step(step)
    first = a.engine.state("generator").memory["trace"].tolist()
    for step in (4, 5, 6):
        a.step(step)
    assert first != a.engine.state("generator").memory["trace"].tolist()
    assert first != a.engine.state("discriminator").memory["trace"].tolist()


def test_first_draws_of_the_two_roles_differ():
    draws = {}

    class Draw(Toy):
        def init(self, net, budget, rng):
            draws[net.role] = torch.rand(3, generator=rng).tolist()
            return super().init(net, budget, rng)

    make(Draw(ToyConfig()))
    first = dict(draws)
    make(Draw(ToyConfig()))
    assert first == draws
    assert draws["generator"] != draws["discriminator"]


def test_init_starts_the_average_from_the_weights_of_that_moment():
    toys = make(init=False)
    with torch.no_grad():
        toys.generator.first.weight.add_(1)  # a checkpoint loaded after the average was made
    toys.engine.init()
    assert torch.equal(toys.ema.module.first.weight, toys.generator.first.weight)


def test_a_state_of_other_networks_is_refused():
    toys = make()
    tensors, scalars = toys.engine.state_dict()
    del tensors["generator.mask.last.weight"]
    with pytest.raises(CheckpointError, match="does not fit"):
        make(init=False).engine.load_state_dict(tensors, scalars)
    tensors, scalars = toys.engine.state_dict()
    tensors["generator.mask.last.weight"] = torch.ones(3, 7, 3, 3, dtype=torch.bool)
    with pytest.raises(CheckpointError, match=r"mask of last\.weight keeps 189 weights"):
        make(init=False).engine.load_state_dict(tensors, scalars)
    with pytest.raises(CheckpointError):
        make(init=False).engine.load_state_dict({}, {})


# ---------------------------------------------------------------- signals and the counter


def test_signals_reach_the_method_oldest_first():
    seen = []

    class Watcher(Toy):
        def update(self, state, net, rng):
            seen.append({name: values.tolist() for name, values in net.signals.items()})
            return super().update(state, net, rng)

    toys = make(Watcher(ToyConfig(every=2, window=3, roles=("discriminator",))))
    for step in range(1, 7):
        value = torch.tensor(float(step))
        toys.engine.record(d_real=value, d_fake=-value, d_fake_after=value / 2)
        toys.step(step)
    assert [s["d_real"] for s in seen] == [[1, 2], [2, 3, 4], [4, 5, 6]]
    assert seen[-1] == {"d_real": [4, 5, 6], "d_fake": [-4, -5, -6], "d_fake_after": [2, 2.5, 3]}
    assert make().engine._signals.read(make().engine.group) == {}


def test_the_counter_counts_exactly_what_was_done():
    class Shrink(Toy):
        def update(self, state, net, rng):
            name = next(iter(state.masks))
            masks, budgets = dict(state.masks), dict(state.budgets)
            masks[name] = masks[name].clone()
            masks[name].view(-1)[masks[name].view(-1).nonzero()[0]] = False
            budgets[name] -= 1
            return state.replace(masks=masks, budgets=budgets)

    counter = TrainingCounter(batch_size=4, generator_batch_size=4, discriminator_steps=2)
    toys = make(Shrink(ToyConfig(every=3)), n_d=2, counter=counter)
    start = {role: dict(toys.engine.state(role).budgets) for role in ROLES}
    for step in range(1, 9):
        toys.step(step)
        if step == 5:
            toys.engine.count_steps()
    toys.engine.count_steps()
    for role in ROLES:
        count = counter.steps[role]
        name = "first.weight"
        k = start[role][name]
        assert count.amount == 8
        assert count.weights[name] == 3 * k + 3 * (k - 1) + 2 * (k - 2)
        assert counter.dense_gradients[role].amount == 2
        assert counter.dense_gradients[role].weights[name] == k + (k - 1)
    before = counter.to_dict()
    toys.engine.count_steps()
    assert counter.to_dict() == before
