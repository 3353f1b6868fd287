"""Units of every kind of layer drawn by hand, and what selecting in units keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gancompress.backbones.base import prunable_weights
from gancompress.components.registry import PATTERNS
from gancompress.errors import InvariantError, RecipeError
from gancompress.sparsity.allocate import allocate
from gancompress.sparsity.masks import topk_mask
from gancompress.sparsity.select import at_random, best, best_overall
from gancompress.sparsity.units import Units

NAMES = ("block", "channels", "kernels", "nm", "unstructured")


def pattern(name: str, **settings: Any) -> Any:
    kind = PATTERNS.get(name)
    return kind(kind.Config(**settings))


def units(name: str, module: nn.Module, **settings: Any) -> Units | None:
    found: Units | None = pattern(name, **settings).units(prunable_weights(module)["weight"].layer)
    return found


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(own: Units, index: int) -> list[list[int]]:
    """Return the places of the weights of one unit."""
    chosen = torch.zeros(own.count, dtype=torch.bool)
    chosen[index] = True
    return own.expand(chosen.reshape(own.grid)).nonzero().tolist()


def test_the_built_in_patterns() -> None:
    assert PATTERNS.builtin_names() == list(NAMES)
    assert [str(pattern(name)) for name in NAMES] == ["1x4", "channels", "kernels", "2:4", "unstructured"]
    assert units("unstructured", nn.Conv2d(8, 8, 3)) is None


# (out, in / groups, ...) for a convolution, (in, out / groups, ...) for a transposed one
CONV, GROUPED, LINE = nn.Conv2d(4, 4, 2), nn.Conv2d(8, 4, 2, groups=2), nn.Conv1d(4, 4, 3)
TURNED, TURNED_GROUPED = nn.ConvTranspose2d(4, 6, 2), nn.ConvTranspose2d(8, 4, 2, groups=2)
FLAT = nn.Linear(4, 6)


@pytest.mark.parametrize(
    ("name", "settings", "module", "count", "index", "places"),
    [
        # outputs 0 and 1, inputs 0 to 3, first tap; the next unit is at the second tap
        ("block", {"outputs": 2, "inputs": 4}, CONV, 8, 1, [[o, i, 0, 1] for o in (0, 1) for i in range(4)]),
        ("block", {"outputs": 1, "inputs": 4}, GROUPED, 16, 4, [[1, i, 0, 0] for i in range(4)]),
        ("block", {"outputs": 1, "inputs": 4}, LINE, 12, 4, [[1, i, 1] for i in range(4)]),
        ("block", {"outputs": 2, "inputs": 4}, TURNED, 12, 4, [[i, o, 0, 0] for i in range(4) for o in (2, 3)]),
        # inputs 4 to 7 are the second group's
        ("block", {"outputs": 1, "inputs": 4}, TURNED_GROUPED, 16, 8, [[i, 0, 0, 0] for i in range(4, 8)]),
        ("block", {"outputs": 2, "inputs": 2}, FLAT, 6, 1, [[0, 2], [0, 3], [1, 2], [1, 3]]),
        ("kernels", {}, CONV, 16, 1, [[0, 1, a, b] for a in (0, 1) for b in (0, 1)]),
        ("kernels", {}, TURNED, 24, 7, [[1, 1, a, b] for a in (0, 1) for b in (0, 1)]),
        ("kernels", {}, LINE, 16, 15, [[3, 3, 0], [3, 3, 1], [3, 3, 2]]),
        ("channels", {}, LINE, 4, 2, [[2, i, a] for i in range(4) for a in range(3)]),
        ("channels", {}, FLAT, 6, 5, [[5, i] for i in range(4)]),
        ("channels", {}, TURNED, 6, 3, [[i, 3, a, b] for i in range(4) for a in (0, 1) for b in (0, 1)]),
        # output 0 of the second group: its inputs alone compute it
        ("channels", {}, TURNED_GROUPED, 4, 2, [[i, 0, a, b] for i in range(4, 8) for a in (0, 1) for b in (0, 1)]),
        ("nm", {}, CONV, 64, 5, [[0, 1, 0, 1]]),
    ],
)
def test_one_unit_by_hand(name: str, settings: Any, module: nn.Module, count: int, index: int, places: Any) -> None:
    own = units(name, module, **settings)
    assert own is not None
    assert own.count == count
    assert drawn(own, index) == places


@pytest.mark.parametrize(
    ("name", "settings", "module"),
    [
        ("block", {}, nn.Conv2d(3, 8, 3)),  # RGB in
        ("block", {"outputs": 16, "inputs": 1}, nn.Conv2d(8, 3, 3)),  # RGB out
        ("block", {"outputs": 1, "inputs": 8}, nn.Conv2d(8, 8, 3, groups=2)),  # would cross a group
        ("block", {"outputs": 4, "inputs": 1}, nn.ConvTranspose2d(8, 4, 2, groups=2)),
        ("nm", {}, nn.Conv2d(6, 8, 3)),
        ("kernels", {}, nn.Conv2d(4, 4, 1)),
        ("kernels", {}, nn.Linear(4, 4)),
    ],
)
def test_what_a_pattern_leaves_alone(name: str, settings: Any, module: nn.Module) -> None:
    assert units(name, module, **settings) is None


def test_two_of_four_counts_along_the_inputs_of_one_output() -> None:
    own = units("nm", nn.Linear(8, 2), n=1, m=4)
    turned = units("nm", nn.ConvTranspose2d(8, 2, 1), n=1, m=4)
    assert own is not None
    assert turned is not None
    assert (own.most, turned.most) == (4, 4)
    mask = torch.zeros(2, 8, dtype=torch.bool)
    mask[0, 3] = mask[0, 4] = mask[1, 0] = True  # groups 0-3 and 4-7 of an output
    across = mask.T.reshape(8, 2, 1, 1)
    assert not own.violated(mask)
    assert not turned.violated(across)
    mask[0, 1] = True
    assert own.violated(mask)
    assert turned.violated(mask.T.reshape(8, 2, 1, 1))
    assert not own.violated(torch.ones(2, 8, dtype=torch.bool))  # kept whole


def test_pooling_by_hand() -> None:
    own = Units((2, 4), (2, 2))
    scores = torch.tensor([[1.0, 2, 5, 6], [3, 2, 7, 9]])
    assert own.pool(scores).tolist() == [[2.0, 6.75]]
    assert own.expand(torch.tensor([[True, False]])).int().tolist() == [[1, 1, 0, 0]] * 2
    assert own.chosen(torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()).tolist() == [[True, False]]
    assert own.violated(torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool())
    with pytest.raises(InvariantError, match="do not fill"):
        Units((2, 3), (1, 2))


@st.composite
def some_units(draw: st.DrawFn) -> Units:
    box = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    group = draw(st.lists(st.integers(1, 3), min_size=len(box), max_size=len(box)))
    shape = tuple(b * g * draw(st.integers(1, 2)) for b, g in zip(box, group, strict=True))
    limited = math.prod(group) > 1 and draw(st.booleans())
    return Units(shape, tuple(box), tuple(group) if limited else (), draw(st.integers(1, math.prod(group))))


@settings(deadline=None, max_examples=60)
@given(some_units(), st.integers(0, 2**31))
def test_units_fill_the_weight_and_selections_hold_them(own: Units, seed: int) -> None:
    assert own.count * own.size == math.prod(own.shape)
    every = [own.expand((torch.arange(own.count) == i).reshape(own.grid)) for i in range(own.count)]
    assert torch.equal(sum(mask.int() for mask in every), torch.ones(own.shape, dtype=torch.int32))
    chosen = torch.rand(own.grid, generator=rng(seed)) < 0.5
    assert torch.equal(own.chosen(own.expand(chosen)), chosen)
    scores = torch.rand(own.shape, generator=rng(seed))
    kept = int(torch.randint(0, own.most // own.size + 1, (), generator=rng(seed))) * own.size
    for mask in (
        best({"w": own}, {"w": scores}, {"w": kept})["w"],
        at_random({"w": own}, {"w": own.shape}, {"w": kept}, rng(seed))["w"],
        best_overall({"w": own}, {"w": scores}, kept)["w"],
    ):
        assert int(mask.sum()) == kept
        assert not own.violated(mask)
    if not own.group and own.size > 1:
        mean = torch.stack([scores[mask].double().mean() for mask in every])
        assert torch.equal(
            own.chosen(best({"w": own}, {"w": scores}, {"w": kept})["w"]).flatten(), topk_mask(mean, kept // own.size)
        )


def test_ranking_all_tensors_passes_over_units_that_are_too_large() -> None:
    own = {"a": Units((2, 4), (1, 4))}
    scores = {"a": torch.tensor([[9.0] * 4, [5.0] * 4]), "b": torch.tensor([8.0, 7, 6, 1])}
    # 4 of a, then 8 and 7 of b; the second unit of a does not fit into what is left, 6 does
    masks = best_overall(own, scores, 7)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"a": 4, "b": 3}
    masks = best_overall(own, scores, 9, floors={"a": 8})
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"a": 8, "b": 1}


def test_a_limit_leaves_room_for_the_best_of_every_group() -> None:
    own = {"w": Units((1, 8), (1, 1), (1, 4), 2)}
    scores = {"w": torch.tensor([[9.0, 8, 7, 6, 1, 2, 3, 4]])}
    assert best(own, scores, {"w": 3})["w"].int().tolist() == [[1, 1, 0, 0, 0, 0, 0, 1]]
    kept = torch.tensor([[1, 0, 0, 0, 0, 0, 1, 1]]).bool()
    grown = best_overall(own, scores, 3, candidates={"w": ~kept}, beside={"w": kept})["w"]
    assert grown.int().tolist() == [[0, 1, 0, 0, 0, 0, 0, 0]]  # there is room for one only


SHAPES: dict[str, tuple[int, ...]] = {"first": (16, 3, 3, 3), "second": (16, 16, 3, 3), "last": (3, 16, 3, 3)}


def network_units(name: str, **settings: Any) -> dict[str, Units]:
    found = {}
    for key, shape in SHAPES.items():
        own = units(name, nn.Conv2d(shape[1], shape[0], 3), **settings)
        if own is not None:
            found[key] = own
    return found


@pytest.mark.parametrize("rule", ["uniform", "er", "erk", "global"])
@pytest.mark.parametrize(
    ("name", "settings"), [("block", {}), ("block", {"outputs": 16, "inputs": 4}), ("kernels", {}), ("nm", {}),
                           ("channels", {})],
)  # fmt: skip
@settings(deadline=None, max_examples=10)
@given(density=st.floats(0.02, 0.45), floor=st.sampled_from([0.0, 0.02]))
def test_allocation_hands_out_whole_units(rule: str, name: str, settings: Any, density: float, floor: float) -> None:
    own = network_units(name, **settings)
    scores = {key: torch.rand(shape, generator=rng()) for key, shape in SHAPES.items()}
    try:
        budget = allocate(rule, SHAPES, density, scores=scores, units=own, floor=floor)
    except RecipeError as error:
        assert "needed for min_layer_density" in str(error)  # noqa: PT017 - a unit may be more than the density gives
        return
    largest = max(unit.size for unit in own.values())
    assert abs(budget.total - round(density * sum(budget.sizes.values()))) < largest
    for key, unit in own.items():
        assert budget.counts[key] % unit.size == 0
        assert floor * budget.sizes[key] <= budget.counts[key] <= unit.most
    if len(own) < len(SHAPES) and rule != "global":  # single weights take up what is left
        assert abs(budget.total - round(density * sum(budget.sizes.values()))) <= 0


def test_allocation_by_hand() -> None:
    shapes = {"a": (4, 4), "b": (8, 4), "rgb": (3, 4)}
    own = {"a": Units((4, 4), (1, 4)), "b": Units((8, 4), (1, 4))}
    # exactly 4.8, 9.6 and 3.6; in units 1.2, 2.4 and 3.6: 4, 8 and 3 and 3 left, of which one goes to rgb (.6 of a
    # unit). No block fits into 2, so rgb takes these as well
    assert allocate("uniform", shapes, 0.3, units=own).counts == {"a": 4, "b": 8, "rgb": 6}
    budget = allocate("uniform", shapes, 0.3, units=own, pattern="1x4", dense=["rgb"])
    assert budget.counts == {"a": 4, "b": 4, "rgb": 12}  # 18 asked for: 16 and 20 are as near
    assert (budget.unstructured, budget.step("a"), budget.step("rgb"), budget.pattern) == (12, 4, 1, "1x4")


def test_a_density_above_a_limit_says_the_most_possible() -> None:
    own = {"a": Units((4, 8), (1, 1), (1, 4), 2)}
    with pytest.raises(RecipeError, match=r"only 16 are allowed by pattern 2:4; ask for at most 0\.5$"):
        allocate("erk", {"a": (4, 8)}, 0.6, units=own, pattern="2:4")
    assert allocate("erk", {"a": (4, 8)}, 0.5, units=own).counts == {"a": 16}
    assert allocate("erk", {"a": (4, 8)}, 1.0, units=own).counts == {"a": 32}  # dense, nothing to limit


def test_a_mask_that_splits_a_unit_names_tensor_and_pattern() -> None:
    own = {"a": Units((2, 4), (1, 4))}
    budget = allocate("uniform", {"a": (2, 4)}, 0.5, units=own, pattern="1x4")

    def check(*rows: list[int]) -> None:
        mask: Tensor = torch.tensor(rows).bool()
        budget.check_units({"a": mask}, "method X")

    check([0, 0, 0, 0], [1, 1, 1, 1])
    with pytest.raises(InvariantError, match="method X: the mask of a does not hold pattern 1x4"):
        check([1, 1, 0, 0], [1, 1, 0, 0])
