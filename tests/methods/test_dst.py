from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from method_views import SHAPES, one, random_tensors, rng, view
from pydantic import ValidationError

from gancompress.errors import InvariantError, RecipeError
from gancompress.methods.base import NetView, Plan, Round
from gancompress.methods.dst import DST, DSTConfig, RoleGrowth
from gancompress.sparsity.schedules import Constant, Cosine
from gancompress.sparsity.state import Budget, SparseState
from gancompress.sparsity.units import Units

if TYPE_CHECKING:
    from gancompress.sparsity.state import Role

NAN = float("nan")


def dst(**settings: Any) -> DST:
    return DST(DSTConfig.model_validate(settings))


def fixed(value: float) -> dict[str, object]:
    return {"name": "constant", "value": value}


def state(kept: list[int]) -> SparseState:
    mask = torch.tensor(kept, dtype=torch.bool)
    return SparseState({"w": mask}, {"w": int(mask.sum())})


def kept(new: SparseState) -> list[int]:
    new.check()
    return new.masks["w"].int().tolist()


WEIGHTS = [4.0, 0.0, -1.0, 0.0, 2.0, 0.0, -3.0, 0.0]
KEPT = [1, 0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("fraction", "gradients", "expected"),
    [
        # drops -1; grows the steepest of the masked
        (0.25, [9, 1, 0, -5, 9, 3, 9, 2], [1, 0, 0, 1, 1, 0, 1, 0]),
        # drops -1 and 2; grows indices 3 and 5
        (0.5, [9, 1, 0, -5, 0, 3, 9, 2], [1, 0, 0, 1, 0, 1, 1, 0]),
        # the weight dropped has the largest gradient: it comes back
        (0.25, [0, 1, 8, -5, 0, 3, 0, 2], [1, 0, 1, 0, 1, 0, 1, 0]),
        # equal gradients: lowest index, here the first masked one
        (0.25, [0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0, 1, 0]),
        # NaN is grown last
        (0.5, [0, NAN, 0, NAN, 0, 1e-9, 0, 0], [1, 0, 1, 0, 0, 1, 1, 0]),
        # 0.3 of 4 is rounded up to 2
        (0.3, [9, 1, 0, -5, 0, 3, 9, 2], [1, 0, 0, 1, 0, 1, 1, 0]),
        (0.0, [9, 9, 9, 9, 9, 9, 9, 9], KEPT),
        # everything is replaced by the four steepest
        (1.0, [4, 0, 3, 0, 1, 2, 0, 5], [1, 0, 1, 0, 0, 1, 0, 1]),
    ],
)
def test_growth_by_gradient_by_hand(fraction: float, gradients: list[float], expected: list[int]) -> None:
    method = dst(growth="gradient", drop_fraction=fixed(fraction))
    assert kept(method.update(state(KEPT), one(WEIGHTS, [float(g) for g in gradients]), rng())) == expected


def test_regrowth_can_be_excluded() -> None:
    net = one(WEIGHTS, [0.0, 1, 8, -5, 0, 3, 0, 2])
    method = dst(growth="gradient", drop_fraction=fixed(0.25), regrow="excluded")
    assert kept(method.update(state(KEPT), net, rng())) == [1, 0, 0, 1, 1, 0, 1, 0]


def test_growth_by_momentum_by_hand() -> None:
    net = one(WEIGHTS, momentum={"w": torch.tensor([0.0, 1, 0, 2, 0, -7, 0, 3])})
    assert kept(dst(growth="momentum", drop_fraction=fixed(0.5)).update(state(KEPT), net, rng())) == [
        *[1, 0, 0, 0, 0, 1, 1, 1]
    ]


def test_growth_at_random_uses_the_generator_it_is_given() -> None:
    method = dst(growth="random", drop_fraction=fixed(0.25), regrow="excluded")
    results = {tuple(kept(method.update(state(KEPT), one(WEIGHTS), rng(seed)))) for seed in range(60)}
    # one of the four masked positions takes the place of index 2
    assert results == {
        (1, 1, 0, 0, 1, 0, 1, 0),
        (1, 0, 0, 1, 1, 0, 1, 0),
        (1, 0, 0, 0, 1, 1, 1, 0),
        (1, 0, 0, 0, 1, 0, 1, 1),
    }
    assert len({tuple(kept(method.update(state(KEPT), one(WEIGHTS), rng(4)))) for _ in range(3)}) == 1


def test_weights_that_became_nan_are_dropped_first() -> None:
    net = one([NAN, 0.0, -1.0, 0.0, 2.0, 0.0, -3.0, 0.0], [0.0, 0, 0, 5, 0, 0, 0, 0])
    assert kept(dst(growth="gradient", drop_fraction=fixed(0.25)).update(state(KEPT), net, rng())) == [
        *[0, 0, 1, 1, 1, 0, 1, 0]
    ]


def test_live_weights_that_are_zero_still_count() -> None:
    net = one([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0, 0, 0, 0, 0, 0, 1])
    assert kept(dst(growth="gradient", drop_fraction=fixed(0.25)).update(state(KEPT), net, rng())) == [
        *[1, 0, 1, 0, 1, 0, 0, 1]
    ]


@pytest.mark.parametrize("regrow", ["allowed", "excluded"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_never_more_dropped_than_can_grow(regrow: str, scope: str) -> None:
    method = dst(growth="gradient", drop_fraction=fixed(0.9), regrow=regrow, scope=scope)
    assert sum(kept(method.update(state([1] * 8), one([1.0] * 8, [1.0] * 8), rng()))) == 8
    nearly = kept(method.update(state([1] * 7 + [0]), one([float(i) for i in range(8)], [1.0] * 8), rng()))
    assert sum(nearly) == 7
    if regrow == "excluded":
        assert nearly == [0, 1, 1, 1, 1, 1, 1, 1]  # one place is free, so one weight moves
    assert sum(kept(method.update(state([0] * 8), one([0.0] * 8, [1.0] * 8), rng()))) == 0


def test_missing_gradients_are_a_clear_error() -> None:
    method = dst(growth="gradient")
    with pytest.raises(InvariantError, match="growth by gradient of the generator at step 1 was given no dense"):
        method.update(state(KEPT), one(WEIGHTS), rng())
    incomplete = view(gradients={"first": torch.zeros(SHAPES["first"])})
    with pytest.raises(InvariantError, match="no dense gradients"):
        method.update(method.init(incomplete, incomplete.budget, rng()), incomplete, rng())


def test_momentum_off_the_mask_must_exist() -> None:
    method = dst(growth="momentum")
    with pytest.raises(RecipeError, match="needs an optimizer with momentum"):
        method.update(state(KEPT), one(WEIGHTS), rng())
    masked = {"w": torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 0])}
    with pytest.raises(RecipeError, match=r"set sparsity\.moments: dense"):
        method.update(state(KEPT), one(WEIGHTS, momentum=masked), rng())
    everything = method.update(state([1] * 8), one([1.0] * 8, momentum={"w": torch.zeros(8)}), rng())
    assert kept(everything) == [1] * 8


@pytest.mark.parametrize("regrow", ["allowed", "excluded"])
@pytest.mark.parametrize("growth", ["gradient", "random", "momentum"])
def test_counts_stay_exact_over_many_updates(growth: str, regrow: str) -> None:
    method = dst(growth=growth, regrow=regrow, drop_fraction={"name": "cosine"})
    first = method.init(view(), view().budget, rng())
    current = first
    for update in range(1, 101):
        net = view(current, seed=update, step=update, total_steps=100)
        fresh = method.update(current, net, rng(update))
        fresh.check()
        grown = sum(int((mask & ~current.masks[name]).sum()) for name, mask in fresh.masks.items())
        dropped = sum(int((mask & ~fresh.masks[name]).sum()) for name, mask in current.masks.items())
        assert grown == dropped > 0
        assert fresh.budgets == first.budgets
        assert list(fresh.masks) == list(SHAPES)
        current = fresh
    assert current.hash() != first.hash()


def test_excluded_regrowth_replaces_exactly_the_share_asked_for() -> None:
    method = dst(growth="random", regrow="excluded", drop_fraction=fixed(0.25))
    before = method.init(view(), view().budget, rng())
    after = method.update(before, view(before), rng())
    for name, mask in after.masks.items():
        count = before.budgets[name]
        room = mask.numel() - count
        assert int((mask & ~before.masks[name]).sum()) == min(-(-count // 4), room)


def test_update_changes_nothing_it_was_given() -> None:
    method = dst(growth="gradient", scope="global")
    before = method.init(view(), view().budget, rng())
    digest, net = before.hash(), view(before)
    weights = {name: weight.clone() for name, weight in net.weights.items()}
    torch.manual_seed(0)
    stream = torch.get_rng_state()
    method.update(before, net, rng())
    assert before.hash() == digest
    assert all(torch.equal(weights[name], net.weights[name]) for name in weights)
    assert torch.equal(stream, torch.get_rng_state())


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_global_scope_keeps_the_total_the_floors_and_the_output(growth: str) -> None:
    method = dst(growth=growth, scope="global", drop_fraction=fixed(0.5), layer_floor=0.3)
    budget = view().budget
    first = current = method.init(view(), budget, rng())
    for update in range(1, 100):
        net = view(current, seed=update)
        # the first layer's weights and gradients are tiny: a rule without floors would empty it
        tiny = {name: tensor * (1e-6 if name == "first" else 1.0) for name, tensor in net.weights.items()}
        slopes = {name: tensor * (0.0 if name == "first" else 1.0) for name, tensor in random_tensors(update).items()}
        current = method.update(current, view(current, weights=tiny, gradients=slopes), rng(update))
        current.check()
        assert current.nonzeros == budget.total
        assert current.budgets["output"] == budget.counts["output"]
        assert all(current.budgets[name] >= 0.3 * budget.counts[name] for name in SHAPES)
    if growth == "gradient":
        assert current.budgets["first"] == -(-budget.counts["first"] * 3 // 10)  # at its floor, not below
    assert not torch.equal(first.masks["output"], current.masks["output"])  # still explored, by itself


def test_global_scope_without_floors_empties_a_layer() -> None:
    method = dst(growth="gradient", scope="global", layer_floor=0.0, protect_output=False, drop_fraction=fixed(0.5))
    current = method.init(view(), view().budget, rng())
    for update in range(12):
        net = view(current, seed=update)
        tiny = {name: tensor * (1e-6 if name == "output" else 1.0) for name, tensor in net.weights.items()}
        slopes = {name: tensor * (0.0 if name == "output" else 1.0) for name, tensor in random_tensors(update).items()}
        current = method.update(current, view(current, weights=tiny, gradients=slopes), rng())
    assert current.budgets["output"] == 0
    assert current.nonzeros == view().budget.total


def test_global_scope_by_hand() -> None:
    masks = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True, True, False])}
    before = SparseState(masks, {"a": 2, "b": 2})
    net = view(
        weights={"a": torch.tensor([5.0, 4.0, 0.0]), "b": torch.tensor([2.0, 1.0, 0.0])},
        gradients={"a": torch.tensor([0.0, 0.0, 7.0]), "b": torch.tensor([0.0, 3.0, 2.0])},
        budget=Budget(0.5, {"a": 2, "b": 2}, {"a": 3, "b": 3}, "uniform"),
        protected=frozenset(),
    )
    method = dst(growth="gradient", scope="global", drop_fraction=fixed(0.5))
    after = method.update(before, net, rng())
    # half of 4 go, but each keeps 1 (its floor): 1.0 and 2.0 would go, b keeps 2.0, so 1.0 and 4.0 do;
    # the steepest masked positions are then a[2] and b[1]
    assert after.masks["a"].tolist() == [True, False, True]
    assert after.masks["b"].tolist() == [True, True, False]
    assert after.budgets == {"a": 2, "b": 2}


@pytest.mark.parametrize("every", [1, 7, 500])
def test_update_steps(every: int) -> None:
    method = dst(every=every)
    due = [step for step in range(1201) if Plan.UPDATE in method.plan("generator", step, 1200)]
    assert due == [step for step in range(1, 1201) if step % every == 0]


def test_plan_by_role_growth_and_placement() -> None:
    both, gradient = Plan.UPDATE | Plan.DENSE_GRADIENT, dst(explore="both", growth="gradient")
    for role in ("generator", "discriminator"):
        assert gradient.plan(role, 500, 1000) == both
        assert gradient.plan(role, 499, 1000) == Plan.NOTHING
        assert gradient.plan(role, 0, 1000) == Plan.NOTHING
    mixed = dst(explore="both")
    assert mixed.plan("generator", 500, 1000) == both
    assert mixed.plan("discriminator", 500, 1000) == Plan.UPDATE
    assert dst(explore="both", growth="momentum").plan("generator", 500, 1000) == Plan.UPDATE
    assert dst(placement="instead-of-step").plan("generator", 500, 1000) == both | Plan.SKIP_STEP
    assert dst(placement="instead-of-step").plan("generator", 501, 1000) == Plan.NOTHING


@pytest.mark.parametrize(
    ("explore", "roles"),
    [("generator", ["generator"]), ("discriminator", ["discriminator"]), ("both", ["generator", "discriminator"])],
)
def test_only_explored_roles_are_updated(explore: str, roles: list[Role]) -> None:
    every_role: tuple[Role, Role] = ("generator", "discriminator")
    method = dst(explore=explore)
    assert [role for role in every_role if method.plan(role, 500, 1000)] == roles


def test_window() -> None:
    method = dst(every=10, start=0.25, stop=0.75)
    assert [step for step in range(101) if method.plan("generator", step, 100)] == [30, 40, 50, 60, 70]


def test_drop_fraction_known_values() -> None:
    stu_gan = dst()
    assert stu_gan.drop_fraction(1000, 50_048) == pytest.approx(0.49951, abs=5e-6)
    assert stu_gan.drop_fraction(500, 1000) == pytest.approx(0.2525)
    assert stu_gan.drop_fraction(1000, 1000) == pytest.approx(0.005)
    rigl = dst(stop=0.5, drop_fraction={"name": "cosine", "start": 0.3, "end": 0.0})
    assert rigl.drop_fraction(250, 1000) == pytest.approx(0.15)  # annealed to the end of the window
    assert rigl.drop_fraction(500, 1000) == pytest.approx(0.0)
    assert dst(drop_fraction=fixed(0.3)).drop_fraction(7, 1000) == 0.3


def test_update_reads_the_drop_fraction_of_its_step() -> None:
    method = dst(growth="random", regrow="excluded")
    counts = []
    for step in (1, 500, 1000):
        net = one([1.0] * 200 + [0.0] * 800, step=step)
        after = method.update(state([1] * 200 + [0] * 800), net, rng())
        counts.append(int(after.masks["w"][200:].sum()))
    assert counts == [100, 51, 1]  # ceil(0.4999988 * 200), ceil(0.2525 * 200), ceil(0.005 * 200)


def test_longer_training() -> None:
    assert dst().rounds(1000, {}) == (Round("train", 1000),)
    assert dst(multiplier=5).rounds(1000, {}) == (Round("train", 5000),)


def test_same_seed_same_masks_other_seed_other_masks() -> None:
    method = dst(growth="random")
    net = view()
    digests = [method.init(net, net.budget, rng(seed)).hash() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    before = method.init(net, net.budget, rng(0))
    digests = [method.update(before, view(before), rng(seed)).hash() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_config_defaults_and_mistakes() -> None:
    config = DSTConfig()
    assert config.growth == RoleGrowth(generator="gradient", discriminator="random")
    assert config.drop_fraction == Cosine(start=0.5, end=0.005)
    assert DSTConfig.model_validate({"drop_fraction": fixed(0.2)}).drop_fraction == Constant(value=0.2)
    for wrong in (
        {"evry": 1},
        {"every": 0},
        {"growth": "grad"},
        {"growth": {"generator": "random", "critic": "random"}},
        {"drop_fraction": {"name": "cosine", "start": 2}},
        {"stop": 1.5},
        {"multiplier": 0},
        {"explore": "none"},
    ):
        with pytest.raises(ValidationError):
            DSTConfig.model_validate(wrong)
    assert all(field.description for field in DSTConfig.model_fields.values())


def test_a_variant_says_what_it_grows_by() -> None:
    class Last(DST):
        """Grows the last masked weights."""

        def growth_scores(self, state: SparseState, net: NetView, rng: torch.Generator) -> dict[str, torch.Tensor]:
            return {name: torch.arange(float(mask.numel())) for name, mask in state.masks.items()}

    method = Last(DSTConfig.model_validate({"drop_fraction": fixed(0.25)}))
    assert kept(method.update(state(KEPT), one(WEIGHTS), rng())) == [1, 0, 0, 0, 1, 0, 1, 1]


def test_tensors_are_exchanged_in_groups_of_one_unit_size() -> None:
    sizes = dict.fromkeys(("single", "pair", "other", "out", "whole", "limited"), 4)
    pairs = Units((4,), (2,))
    units = {"pair": pairs, "other": pairs, "out": pairs, "limited": Units((4,), (1,), (4,), 2)}
    counts = {**dict.fromkeys(sizes, 2), "whole": 4}
    budget = Budget(0.5, counts, sizes, "uniform", dense=("whole",), units=units, pattern="odd")
    masks = {name: torch.arange(4) < counts[name] for name in sizes}
    net = NetView("generator", {name: mask.float() for name, mask in masks.items()}, budget)
    assert net.exchangeable(SparseState(masks, counts), {"out"}) == [["single", "limited"], ["pair", "other"], ["out"]]
    # whole in spite of its limit: nothing could come back
    full = SparseState({**masks, "limited": torch.ones(4, dtype=torch.bool)}, {**counts, "limited": 4})
    assert net.exchangeable(full, sizes) == [["single"], ["pair"], ["other"], ["out"]]
