from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gancompress.errors import RecipeError
from gancompress.sparsity.allocate import allocate, split_total
from gancompress.sparsity.rounding import ceil_share
from gancompress.sparsity.state import Budget

# Convolutions of the SNGAN / BigGAN generator for 32x32, 256 channels: blocks at 8, 16 and 32 pixels, last at 32.
GENERATOR = {
    name: shape
    for block in ("block2", "block3", "block4")
    for name, shape in {
        f"{block}.c1": (256, 256, 3, 3),
        f"{block}.c2": (256, 256, 3, 3),
        f"{block}.shortcut": (256, 256, 1, 1),
    }.items()
} | {"last": (3, 256, 3, 3)}
PIXELS = {"block2": 64, "block3": 256, "block4": 1024, "last": 1024}
LINEAR_MACS = 128 * 4 * 4 * 256

DISCRIMINATOR = {
    "block1.c1": (128, 3, 3, 3),
    "block1.c2": (128, 128, 3, 3),
    "block1.shortcut": (128, 3, 1, 1),
    "block2.c1": (128, 128, 3, 3),
    "block2.c2": (128, 128, 3, 3),
    "block2.shortcut": (128, 128, 1, 1),
    "block3.c1": (128, 128, 3, 3),
    "block3.c2": (128, 128, 3, 3),
    "block4.c1": (128, 128, 3, 3),
    "block4.c2": (128, 128, 3, 3),
}


def layer_density(budget: Budget, name: str) -> float:
    return budget.counts[name] / budget.sizes[name]


def test_sizes_of_the_reference_networks() -> None:
    assert allocate("erk", GENERATOR, 1.0).total == 3_742_464
    assert allocate("erk", DISCRIMINATOR, 1.0).total == 1_052_416


@pytest.mark.parametrize(
    ("density", "conv", "shortcut", "macs"),
    [
        (0.05, 0.0340358, 0.3039569, 0.0525),
        (0.10, 0.0694, 0.620, 0.1024),
        (0.20, 0.1540, 1.0, 0.2021),
        (0.30, 0.2597, 1.0, 0.3019),
        (0.50, 0.4712, 1.0, 0.5013),
    ],
)
def test_erk_of_the_generator(density: float, conv: float, shortcut: float, macs: float) -> None:
    budget = allocate("erk", GENERATOR, density)
    assert budget.total == round(density * 3_742_464)
    tolerance = 5e-6 if density == 0.05 else 5e-5  # the first row was logged by the authors with more digits
    for block in ("block2", "block3", "block4"):
        assert layer_density(budget, f"{block}.c1") == pytest.approx(conv, abs=tolerance)
        assert layer_density(budget, f"{block}.c2") == pytest.approx(conv, abs=tolerance)
        assert layer_density(budget, f"{block}.shortcut") == pytest.approx(shortcut, abs=5e-4)
    assert budget.counts["last"] == 6912
    dense = sum(budget.sizes[name] * PIXELS[name.split(".")[0]] for name in GENERATOR) + LINEAR_MACS
    sparse = sum(budget.counts[name] * PIXELS[name.split(".")[0]] for name in GENERATOR) + LINEAR_MACS
    assert dense == pytest.approx(1.6811e9, rel=1e-4)
    assert sparse / dense == pytest.approx(macs, abs=5e-5)


@pytest.mark.parametrize(("density", "conv"), [(0.1, 0.0861), (0.3, 0.2863), (0.5, 0.490203373), (0.7, 0.6941)])
def test_erk_of_the_discriminator(density: float, conv: float) -> None:
    budget = allocate("erk", DISCRIMINATOR, density)
    tolerance = 5e-6 if density == 0.5 else 5e-5
    assert layer_density(budget, "block3.c1") == pytest.approx(conv, abs=tolerance)
    assert layer_density(budget, "block1.c1") == 1
    assert layer_density(budget, "block1.shortcut") == 1
    if density == 0.1:
        assert layer_density(budget, "block2.shortcut") == pytest.approx(0.763, abs=5e-4)


def test_erk_caps_as_the_published_loop_does() -> None:
    shapes = {"a": (2, 2), "b": (50, 40), "c": (3, 20), "d": (8, 8, 3, 3)}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    for density in (0.1, 0.3, 0.6, 0.9):
        full: set[str] = set()
        while True:
            rest = [name for name in shapes if name not in full]
            room = sum(sizes[n] * density for n in rest) - sum(sizes[n] * (1 - density) for n in full)
            eps = room / sum(raw[n] * sizes[n] for n in rest)
            highest = max(raw[n] for n in rest)
            if highest * eps <= 1:
                break
            full |= {n for n in rest if raw[n] == highest}
        budget = allocate("erk", shapes, density)
        for name in shapes:
            wanted = sizes[name] if name in full else eps * raw[name] * sizes[name]
            assert budget.counts[name] == pytest.approx(wanted, abs=1.0)


def test_uniform_by_hand() -> None:
    budget = allocate("uniform", {"a": (5,), "b": (5,), "c": (10,)}, 0.25)
    assert budget.counts == {"a": 1, "b": 1, "c": 3}  # 1.25, 1.25, 2.5 to 5
    assert allocate("uniform", {"a": (5,), "b": (5,), "c": (5,)}, 0.5).counts == {"a": 3, "b": 3, "c": 2}  # 7.5 -> 8
    assert budget == Budget(0.25, {"a": 1, "b": 1, "c": 3}, {"a": 5, "b": 5, "c": 10}, "uniform")


def test_er_ignores_the_kernel_where_erk_counts_it() -> None:
    shapes = {"wide": (10, 10, 3, 3), "point": (10, 10, 1, 1)}
    er = allocate("er", shapes, 0.1)
    assert er.counts == {"wide": 90, "point": 10}  # same channels, same density
    erk = allocate("erk", shapes, 0.1)
    assert erk.counts == {"wide": 54, "point": 46}  # 26 : 22 of 100


def test_dense_patterns_and_floors_by_hand() -> None:
    shapes = {"g.first": (10, 10), "g.output": (2, 10), "g.tiny": (2, 2)}
    budget = allocate("uniform", shapes, 0.5, dense=("*.output",), floor=0.3)
    assert budget.counts == {"g.first": 40, "g.output": 20, "g.tiny": 2}  # 62 in all; tiny is lifted from 1.6
    assert budget.dense == ("g.output",)


def test_floor_lifts_a_layer_that_the_rule_starves() -> None:
    shapes = {"small": (1000, 2), "large": (100, 100)}
    free = allocate("er", shapes, 0.05)
    assert free.counts == {"small": 500, "large": 100}
    floored = allocate("er", shapes, 0.05, floor=0.02)
    assert floored.counts == {"small": 400, "large": 200}


def test_global_by_hand() -> None:
    shapes = {"a": (2, 3), "b": (4,), "out": (2,)}
    scores = {"a": torch.arange(10.0, 16).reshape(2, 3), "b": torch.arange(4.0), "out": torch.tensor([0.1, 0.2])}
    assert allocate("global", shapes, 0.5, scores=scores, global_floor=0.0).counts == {"a": 6, "b": 0, "out": 0}
    assert allocate("global", shapes, 0.5, scores=scores).counts == {"a": 4, "b": 1, "out": 1}
    assert allocate("global", shapes, 0.5, scores=scores, global_floor=0.0, protected=["out"]).counts == {
        "a": 5,
        "b": 0,
        "out": 1,
    }
    assert allocate("global", shapes, 0.5, scores=scores, dense=["b"], global_floor=0).counts == {
        "a": 2,
        "b": 4,
        "out": 0,
    }


def test_global_needs_scores() -> None:
    with pytest.raises(RecipeError, match="needs a score per weight"):
        allocate("global", {"a": (4,)}, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "unifrom"}, "unknown allocation 'unifrom'; did you mean 'uniform'?"),
        ({"density": 0.0}, "density must be in (0, 1], got 0.0"),
        ({"density": 1.5}, "density must be in (0, 1], got 1.5"),
        ({"density": math.nan}, "density must be in (0, 1], got nan"),
        ({"dense": ("out.*",)}, "dense pattern 'out.*' matches no weight"),
        (
            {"dense": ("a",)},
            "density 0.1 keeps 2 weights, but 10 are needed for dense weights (a) and min_layer_density",
        ),
        ({"floor": 0.2}, "density 0.1 keeps 2 weights, but 4 are needed for min_layer_density; raise the density"),
    ],
)
def test_bad_requests_say_what_to_do(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        allocate(**{"rule": "uniform", "shapes": {"a": (10,), "b": (10,)}, "density": 0.1} | arguments)


shapes_strategy = st.lists(st.lists(st.integers(0, 12), min_size=0, max_size=4).map(tuple), min_size=0, max_size=8).map(
    lambda shapes: {f"layer{i}": shape for i, shape in enumerate(shapes)}
)
density_strategy = st.floats(0, 1, exclude_min=True)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["uniform", "er", "erk", "global"]), shapes_strategy, density_strategy, st.data())
def test_counts_sum_exactly_whatever_is_asked(
    rule: str, shapes: dict[str, tuple[int, ...]], density: float, data: st.DataObject
) -> None:
    floor = data.draw(st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.5]))
    dense = data.draw(st.lists(st.sampled_from(sorted(shapes)), max_size=2)) if shapes else []
    scores = {name: torch.randn(shape).abs() for name, shape in shapes.items()} if rule == "global" else None
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    least = sum(sizes[n] if n in dense else ceil_share(floor, sizes[n]) for n in shapes)
    if least > total:
        with pytest.raises(RecipeError, match="are needed for"):
            allocate(rule, shapes, density, floor=floor, dense=dense, scores=scores)
        return
    budget = allocate(rule, shapes, density, floor=floor, dense=dense, scores=scores)
    assert budget.total == total
    assert list(budget.counts) == list(shapes)
    assert budget.sizes == sizes
    for name, count in budget.counts.items():
        assert ceil_share(floor, sizes[name]) <= count <= sizes[name]
        assert name not in dense or count == sizes[name]


def test_allocation_is_fast_for_many_layers_and_exact_for_large_ones() -> None:
    shapes = {f"layer{i}": (512 + i, 512, 3, 3) for i in range(150)}
    total = sum(math.prod(shape) for shape in shapes.values())
    assert allocate("erk", shapes, 0.123456789).total == round(0.123456789 * total)


def test_no_tensor_gets_more_than_it_may_have() -> None:
    shapes = {"a": (10,), "b": (10,)}
    assert allocate("uniform", shapes, 0.5, at_most={"a": 3, "b": 10}).counts == {"a": 3, "b": 7}
    with pytest.raises(RecipeError, match=r"keeps 10 weights, but only 6 are allowed; ask for at most 0\.3"):
        allocate("uniform", shapes, 0.5, at_most={"a": 3, "b": 3})
    scores = {"a": torch.tensor([9.0, 8, 7, 6]), "b": torch.tensor([5.0, 4, 3, 2])}
    few = allocate("global", {"a": (4,), "b": (4,)}, 0.25, scores=scores, at_most={"a": 1, "b": 4})
    assert few.counts == {"a": 1, "b": 1}


def test_split_total_reproduces_the_published_density() -> None:
    density = split_total(0.3, 0.05, 3_742_464, 4_201_984)
    assert density == pytest.approx(0.5227, abs=5e-5)
    kept = round(density * 4_201_984) + round(0.05 * 3_742_464)
    assert kept == round(0.3 * (3_742_464 + 4_201_984))


@settings(deadline=None)
@given(density_strategy, density_strategy, st.integers(1, 10**7), st.integers(1, 10**7))
def test_split_total_sums_exactly_or_says_why_not(total: float, generator: float, g: int, d: int) -> None:
    if not 0 < round(total * (g + d)) - round(generator * g) <= d:
        with pytest.raises(RecipeError, match="choose it above"):
            split_total(total, generator, g, d)
        return
    density = split_total(total, generator, g, d)
    assert 0 < density <= 1
    assert round(density * d) + round(generator * g) == round(total * (g + d))


@pytest.mark.parametrize(("total", "generator"), [(0.9, 0.1), (0.05, 0.9)])
def test_split_total_impossible(total: float, generator: float) -> None:
    with pytest.raises(RecipeError, match="leaves the discriminator"):
        split_total(total, generator, 1000, 100)


@pytest.mark.parametrize(("total", "generator"), [(0.0, 0.5), (1.1, 0.5), (0.5, 0.0), (0.5, 2.0)])
def test_split_total_checks_its_densities(total: float, generator: float) -> None:
    with pytest.raises(RecipeError, match=r"must be in \(0, 1\]"):
        split_total(total, generator, 10, 10)
