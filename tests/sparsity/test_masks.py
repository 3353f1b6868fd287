from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gancompress.errors import InvariantError
from gancompress.sparsity.masks import (
    global_topk_masks,
    random_mask,
    topk_mask,
)

NAN, INF = float("nan"), float("inf")


def bits(mask: Tensor) -> str:
    return "".join("1" if kept else "0" for kept in mask.flatten().tolist())


@pytest.mark.parametrize(
    ("scores", "k", "expected"),
    [
        ([3.0, 1.0, 2.0], 2, "101"),
        ([1.0, 1.0, 1.0, 1.0], 2, "1100"),  # ties: lowest index
        ([2.0, 1.0, 2.0, 2.0, 1.0], 4, "11110"),
        ([NAN, -INF, 0.0], 2, "011"),  # NaN below -inf
        ([NAN, NAN, 1.0], 2, "101"),
        ([-NAN, INF, NAN, -INF], 3, "1101"),
        ([-0.0, 0.0], 1, "10"),  # both zeros are equal
        ([0.0, -0.0], 1, "10"),
        ([-3.0, -1.0, -2.0], 1, "010"),
        ([-INF, -INF], 1, "10"),
        ([1e-45, 0.0, -1e-45], 1, "100"),  # subnormal numbers
        ([1.0, 2.0], 0, "00"),
        ([1.0, 2.0], 2, "11"),
        ([], 0, ""),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_topk_by_hand(scores: list[float], k: int, expected: str, dtype: torch.dtype) -> None:
    assert bits(topk_mask(torch.tensor(scores, dtype=dtype), k)) == expected


def test_topk_among_candidates_by_hand() -> None:
    scores = torch.tensor([[9.0, 1.0, NAN], [5.0, 5.0, 7.0]])
    candidates = torch.tensor([[False, True, True], [True, True, False]])
    assert bits(topk_mask(scores, 1, candidates)) == "000100"
    assert bits(topk_mask(scores, 3, candidates)) == "010110"
    assert bits(topk_mask(scores, 4, candidates)) == "011110"
    with pytest.raises(InvariantError, match="cannot choose 5 of 4 candidates"):
        topk_mask(scores, 5, candidates)
    with pytest.raises(InvariantError, match="cannot choose -1"):
        topk_mask(scores, -1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_topk_takes_other_types(dtype: torch.dtype) -> None:
    assert bits(topk_mask(torch.tensor([3, 5, 5, 1]).to(dtype), 2)) == "0110"


def test_topk_leaves_its_arguments_alone() -> None:
    scores, candidates = torch.tensor([1.0, 2.0, 3.0], requires_grad=True), torch.tensor([True, True, False])
    mask = topk_mask(scores, 2, candidates)
    mask.fill_(False)
    assert bits(candidates) == "110"
    assert not mask.requires_grad


def test_topk_reads_any_memory_format() -> None:
    scores = torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    assert bits(topk_mask(scores, 5)) == "0" * 19 + "1" * 5


awkward = st.sampled_from([0.0, -0.0, 1.0, 1.0, -1.0, 2.5, NAN, INF, -INF])


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[float], list[bool], int]:
    scores = draw(st.lists(awkward | st.floats(width=32), max_size=40))
    candidates = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    return scores, candidates, draw(st.integers(0, sum(candidates)))


@settings(deadline=None, max_examples=300)
@given(problems())
def test_topk_equals_a_stable_sort(problem: tuple[list[float], list[bool], int]) -> None:
    scores, allowed, k = problem
    order = sorted(
        (index for index, free in enumerate(allowed) if free),
        key=lambda i: (math.isnan(scores[i]), 0.0 if math.isnan(scores[i]) else -scores[i], i),
    )
    tensor, candidates = torch.tensor(scores), torch.tensor(allowed, dtype=torch.bool)
    top = topk_mask(tensor, k, candidates)
    assert top.nonzero().flatten().tolist() == sorted(order[:k])


def test_random_mask_is_exact_and_a_function_of_its_generator() -> None:
    def draw(seed: int) -> Tensor:
        return random_mask((64, 3, 3, 3), 500, torch.Generator().manual_seed(seed))

    assert draw(1).sum() == 500
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_random_mask_ignores_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    random_mask((100,), 10, torch.Generator().manual_seed(3))
    assert torch.equal(before, torch.get_rng_state())


def test_random_mask_is_uniform_over_positions() -> None:
    rng = torch.Generator().manual_seed(0)
    hits = sum(random_mask((20,), 5, rng).long() for _ in range(4000))
    assert isinstance(hits, Tensor)
    assert hits.sum() == 20_000
    # 1000 expected per position, standard deviation 27
    assert (hits - 1000).abs().max() < 150


def test_random_mask_among_candidates() -> None:
    candidates = torch.arange(10) >= 6
    mask = random_mask((10,), 4, torch.Generator().manual_seed(0), candidates=candidates)
    assert torch.equal(mask, candidates)


def test_global_topk_by_hand() -> None:
    scores = {"a": torch.tensor([[9.0, 8.0], [7.0, 6.0]]), "b": torch.tensor([1.0, 2.0]), "c": torch.tensor([6.0])}
    plain = global_topk_masks(scores, 4)
    assert [bits(mask) for mask in plain.values()] == ["1111", "00", "0"]  # the tie at 6 goes to the earlier tensor
    assert plain["a"].shape == (2, 2)
    floored = global_topk_masks(scores, 4, floors={"b": 1})
    assert [bits(mask) for mask in floored.values()] == ["1110", "01", "0"]
    limited = global_topk_masks(scores, 3, candidates={name: score < 8 for name, score in scores.items()})
    assert [bits(mask) for mask in limited.values()] == ["0011", "00", "1"]
    with pytest.raises(InvariantError, match="the floors together ask for 5"):
        global_topk_masks(scores, 4, floors={"a": 4, "c": 1})
    assert global_topk_masks({}, 0) == {}


def test_topk_agrees_between_devices() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    scores = torch.randint(0, 50, (100_000,), generator=torch.Generator().manual_seed(0)).float()
    scores[::7] = NAN
    for k in (1, 999, 50_000, 99_999):
        assert torch.equal(topk_mask(scores, k), topk_mask(scores.cuda(), k).cpu())


def _plain_topk(scores: Tensor, k: int, candidates: Tensor) -> Tensor:
    """By definition: order by score, then by index, NaN last."""
    flat = scores.flatten().double().nan_to_num(nan=-INF, posinf=INF, neginf=-1e300)
    order = torch.where(candidates.flatten(), flat, -INF).argsort(descending=True, stable=True)
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    mask[order[candidates.flatten()[order]][:k]] = True
    return mask.reshape(scores.shape)


@pytest.mark.parametrize("kind", ["distinct", "tied", "one value", "nan", "sorted", "periodic"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.9])
def test_topk_of_large_tensors_by_definition(kind: str, share: float) -> None:
    """Large tensors are not looked at whole where a sample tells which elements can matter; the choice is the same."""
    rng = torch.Generator().manual_seed(0)
    shape = (40, 41, 3, 7)
    scores = torch.rand(shape, generator=rng)
    if kind == "tied":
        scores = (scores * 20).floor()
    elif kind == "one value":
        scores = torch.ones(shape)
    elif kind == "nan":
        scores[torch.rand(shape, generator=rng) < 0.3] = NAN
        scores[torch.rand(shape, generator=rng) < 0.01] = INF
    elif kind == "sorted":
        scores = scores.flatten().sort().values.reshape(shape)
    elif kind == "periodic":  # what a sample of every 61st element sees says little
        scores = scores * (torch.arange(scores.numel()) % 61 != 0).reshape(shape)
    candidates = torch.rand(shape, generator=rng) < share if share else torch.ones(shape, dtype=torch.bool)
    available = int(candidates.sum())
    for k in (1, 10, available // 100, available // 20, available // 2, available - 1):
        got = topk_mask(scores, k, candidates if share else None)
        assert torch.equal(got, _plain_topk(scores, k, candidates)), k
