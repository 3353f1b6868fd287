"""Every built-in method keeps the units of every pattern, without a line of its own about any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from method_views import SHAPES, rng, view

from gancompress.components.registry import METHODS, PATTERNS
from gancompress.methods.base import Plan
from gancompress.sparsity.allocate import allocate
from gancompress.sparsity.layers import Layer

if TYPE_CHECKING:
    from gancompress.sparsity.state import Budget, SparseState

#: "first" has 4 inputs and "output" 3 outputs: 16x1 and 2x4 hold some layers only
CHOICES: dict[str, tuple[str, dict[str, int]]] = {
    "1x4": ("block", {}),
    "2x4": ("block", {"outputs": 2, "inputs": 4}),
    "12x1": ("block", {"outputs": 12, "inputs": 1}),
    "kernels": ("kernels", {}),
    "2:4": ("nm", {}),
    "channels": ("channels", {}),
}
STEPS = 12


def budget_of(choice: str, density: float, dense: tuple[str, ...] = ()) -> Budget:
    name, settings = CHOICES[choice]
    kind: Any = PATTERNS.get(name)
    pattern = kind(kind.Config(**settings))
    layers = {key: Layer("convolution", shape, output=key == "output") for key, shape in SHAPES.items()}
    units = {key: own for key, layer in layers.items() if (own := pattern.units(layer)) is not None}
    assert units
    return allocate("erk", SHAPES, density, dense=dense, units=units, pattern=str(pattern))


def states(name: str, settings: dict[str, Any], budget: Budget, role: str) -> list[SparseState]:
    """Play every round of a method as the engine would, on weights that are drawn anew before every update."""
    kind: Any = METHODS.get(name)
    method = kind(kind.Config.model_validate(settings))
    signals = {key: torch.ones(1) * value for key, value in (("d_real", 1), ("d_fake", 0), ("d_fake_after", 1))}

    def net(state: SparseState | None, step: int, total: int, index: int) -> Any:
        known: dict[str, Any] = {"role": role, "budget": budget, "signals": signals, "round": index}
        return view(state, seed=7 * step + index, step=step, total_steps=total, **known)

    rounds = method.rounds(STEPS, {"generator": budget.density, "discriminator": budget.density})
    state = method.init(net(None, 0, rounds[0].steps, 0), budget, rng())
    found = [state]
    for index, current in enumerate(rounds):
        if index:
            state = method.next_round(state, net(state, 0, current.steps, index), current, rng(index))
            found.append(state)
        for step in range(1, current.steps + 1):
            if Plan.UPDATE in method.plan(role, step, current.steps):
                state = method.update(state, net(state, step, current.steps, index), rng(step))
                found.append(state)
    return found


EVERY = {"every": 2, "drop_fraction": {"name": "constant", "value": 0.4}}
METHOD_CHOICES: list[tuple[str, dict[str, Any]]] = [
    ("static", {}),
    ("dst", {**EVERY, "explore": "both"}),
    ("dst", {**EVERY, "explore": "both", "scope": "global", "regrow": "excluded"}),
    ("set", EVERY),
    ("rigl", EVERY),
    ("srigl", EVERY),
    ("stu-gan", EVERY),
    ("adapt", {**EVERY, "every_discriminator": 2, "window": 1, "max_density": 0.5}),
    ("magnitude", {}),
    ("magnitude", {"scope": "global"}),
    ("gmp", {"every": 2}),
    ("gmp", {"every": 2, "scope": "layer"}),
    ("granet", EVERY),
    ("snip", {}),
    ("imp", {"control": "random"}),
]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    ("name", "settings"), METHOD_CHOICES, ids=[f"{name}-{index}" for index, (name, _) in enumerate(METHOD_CHOICES)]
)
def test_masks_hold_the_pattern_and_end_at_the_budget(name: str, settings: dict[str, Any], choice: str) -> None:
    budget = budget_of(choice, 0.25)
    largest = max(unit.size for unit in budget.units.values())
    for role in ("generator", "discriminator"):
        found = states(name, settings, budget, role)
        for state in found:
            state.check()
            budget.check_units(state.masks, name)
        if not (name == "adapt" and role == "discriminator"):
            assert abs(found[-1].nonzeros - budget.total) < largest
        if name in ("dst", "set", "rigl", "srigl"):
            assert {state.nonzeros for state in found} == {budget.total}
            # of channels the layers have too few here for a share of them to be one
            assert len({state.hash() for state in found}) > len(found) // 2


@pytest.mark.parametrize("choice", CHOICES)
def test_a_layer_that_the_recipe_keeps_whole_stays_whole(choice: str) -> None:
    budget = budget_of(choice, 0.7, dense=("second",))
    for name, settings in METHOD_CHOICES:
        if name != "adapt":
            last = states(name, settings, budget, "generator")[-1]
            assert last.budgets["second"] == budget.sizes["second"], (name, settings)


def test_units_too_large_for_one_in_every_layer_do_not_stop_a_run() -> None:
    budget = budget_of("channels", 0.05)
    assert budget.total < sum(budget.step(name) for name in budget.sizes)
    for name in ("gmp", "granet", "snip", "imp", "magnitude"):
        last = states(name, {"scope": "global"}, budget, "generator")[-1]
        assert abs(last.nonzeros - budget.total) < max(unit.size for unit in budget.units.values()), name


def test_a_variant_inherits_the_exchange_in_units() -> None:
    """What a plugin writes: another share for every layer, nothing about units."""
    from gancompress.methods.dst import DST

    class Halves(DST):
        def update(self, state: SparseState, net: Any, rng: torch.Generator) -> SparseState:
            grow_by = {name: gradient.abs() for name, gradient in net.gradients.items()}
            masks = dict(state.masks)
            for name in masks:
                masks |= self.replaced([name], 0.5, state, net, grow_by)
            return state.replace(masks=masks)

    budget = budget_of("1x4", 0.25)
    method: Any = Halves(Halves.Config())  # type: ignore[arg-type]
    state = method.init(view(None, budget=budget), budget, rng())
    after = method.update(state, view(state, budget=budget), rng())
    after.check()
    budget.check_units(after.masks, "Halves")
    assert after.hash() != state.hash()


def test_exchanging_blocks_by_hand() -> None:
    """Blocks of two: of magnitudes 1.5 and 4 the first is dropped, of the free gradients 3 and 2 the first grows."""
    from method_views import one

    from gancompress.methods.dst import DST, DSTConfig
    from gancompress.sparsity.state import SparseState
    from gancompress.sparsity.units import Units

    net = one([1.0, -2.0, 3.0, 5.0, 0.0, 0.0, 0.0, 0.0], [9.0, 9.0, 0.0, 0.0, 4.0, 2.0, 0.0, -4.0])
    units = {"w": Units((8,), (2,))}
    budget = allocate("uniform", {"w": (8,)}, 0.5, units=units)
    mask = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0]).bool()
    method = DST(DSTConfig.model_validate({"growth": "gradient", "regrow": "excluded", **EVERY}))
    after = method.update(SparseState({"w": mask}, {"w": 4}), view(**{**vars(net), "budget": budget}), rng())
    assert after.masks["w"].int().tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_two_of_four_puts_back_what_cannot_grow() -> None:
    """Of 3 in a group of 4 two are dropped, but only one place was free: the stronger of both comes back."""
    from method_views import one

    from gancompress.methods.dst import DST, DSTConfig
    from gancompress.sparsity.state import SparseState
    from gancompress.sparsity.units import Units

    units = {"w": Units((1, 8), (1, 1), (1, 4), 3)}
    budget = allocate("uniform", {"w": (1, 8)}, 0.75, units=units)
    mask = torch.tensor([[1, 1, 1, 0, 1, 1, 1, 0]]).bool()
    net = one([0.0], [0.0], budget=budget)
    weights = torch.tensor([[1.0, 2.0, 9.0, 0.0, 7.0, 8.0, 9.0, 0.0]])
    method = DST(
        DSTConfig.model_validate(
            {"growth": "gradient", "regrow": "excluded", "drop_fraction": {"name": "constant", "value": 0.3}}
        )
    )
    known = {**vars(net), "weights": {"w": weights}, "gradients": {"w": torch.ones(1, 8)}}
    after = method.update(SparseState({"w": mask}, {"w": 6}), view(**known), rng())
    # ceil(0.3 * 6) = 2 dropped, 1 and 2; both groups are full but for what was dropped: one grows, 2 comes back
    assert after.masks["w"].int().tolist() == [[0, 1, 1, 1, 1, 1, 1, 0]]
