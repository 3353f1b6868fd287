from __future__ import annotations

import pytest
import torch

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.sngan import SNGAN, SNGANConfig
from gancompress.cost.counter import TrainingCounter, Work
from gancompress.cost.profile import LayerCost, NetworkProfile, profile
from gancompress.cost.training import TrainingCost, training_cost
from gancompress.data.base import ImageSpec
from gancompress.sparsity.allocate import allocate

# 4 additions of a bias per sample; the norm must not be counted
G = NetworkProfile((LayerCost("g", (10,), 3, bias=4),), norm=1000, products=0)
D = NetworkProfile((LayerCost("d", (20,), 2), LayerCost("never masked", (1,), 1)), norm=0, products=0)
SMALL = {"generator": G, "discriminator": D}


def small_counter() -> TrainingCounter:
    book = TrainingCounter(batch_size=2, generator_batch_size=3, discriminator_steps=2)
    book.advance("generator", {"g": 5}, 7)
    book.advance("discriminator", {"d": 4}, 7)
    return book


def test_steps_by_hand():
    book = small_counter()
    assert book.forward_equivalents("generator") == 2 * 2 + 3 * 3
    assert book.forward_equivalents("discriminator") == 6 * 2 * 2 + 2 * 3
    cost = training_cost(book, SMALL)
    assert cost.parts["generator"] == 13 * 7 * (5 * 3 + 4)
    assert cost.parts["discriminator"] == 30 * 7 * (4 * 2 + 1)
    assert cost.macs == cost.parts["generator"] + cost.parts["discriminator"]
    assert cost.dense_macs == 13 * 7 * (30 + 4) + 30 * 7 * (40 + 1)
    assert cost.to_dict()["flops"] == 2 * cost.macs


def test_dense_gradients_cost_the_masked_weights():
    book = small_counter()
    book.dense_gradient("generator", {"g": 5}, 2)
    book.dense_gradient("discriminator", {"d": 4})
    cost = training_cost(book, SMALL)
    assert cost.parts["dense_gradients"] == 2 * 3 * (10 - 5) * 3 + 1 * (2 * 2) * (20 - 4) * 2
    assert cost.dense_macs == training_cost(small_counter(), SMALL).dense_macs


def test_extra_work_is_the_methods_and_penalties_are_everyones():
    book = small_counter()
    book.probe("generator")
    book.measure({"generator": {"g": 5}, "discriminator": {"d": 4}})
    base = training_cost(small_counter(), SMALL)
    cost = training_cost(book, SMALL)
    assert cost.parts["probe"] == 3 * 3 * (30 + 4) + 2 * 3 * (40 + 1)
    assert cost.parts["measurement"] == 2 * 3 * (15 + 4) + (2 * 3 + 2) * (8 + 1)
    assert cost.dense_macs == base.dense_macs
    book.penalty({"d": 4})
    assert training_cost(book, SMALL).dense_macs == base.dense_macs + 4 * 2 * 41
    assert training_cost(book, SMALL).parts["penalty"] == 4 * 2 * 9


def test_a_dense_run_costs_its_dense_cost_and_an_empty_run_nothing():
    book = TrainingCounter(2, 3, 2)
    empty = training_cost(book, SMALL)
    assert (empty.macs, empty.ratio) == (0, 1.0)
    book.advance("generator", {}, 9)
    book.advance("discriminator", {}, 9)
    assert training_cost(book, SMALL).ratio == 1.0


def networks(size: int):
    backbone = SNGAN(SNGANConfig(), ImageSpec(3, size))
    return {"generator": backbone.generator(), "discriminator": backbone.discriminator()}


def figures(found, generator: float | None, discriminator: float | None, convention: str):
    """Cost ADAPT's training: 100,000 steps, n_d 5, batches 64 and 128; ERK over all weights, linear ones too."""
    book = TrainingCounter(batch_size=64, generator_batch_size=128, discriminator_steps=5)
    for role, density in (("generator", generator), ("discriminator", discriminator)):
        shapes = {name: weight.parameter.shape for name, weight in prunable_weights(found[role]).items()}
        counts = allocate("erk", shapes, density).counts if density else {}
        book.advance(role, counts, 100_000)
    macs = dense = 0
    for role, network in found.items():
        cost = training_cost(book, {role: profile(network)})
        b, g, n_d, ours = 64, 128, 5, book.forward_equivalents(role)
        # ADAPT (Wang et al., NeurIPS 2023) leaves out half of the discriminator's batch and the input gradient, and
        # takes the rest n_d times too often
        adapts = ours if role == "generator" else n_d * (3 * b * n_d + g)
        per_step = adapts if convention == "adapt" else ours
        macs, dense = macs + cost.macs // ours * per_step, dense + cost.dense_macs // ours * per_step
    return TrainingCost(dense, {"steps": macs})


@pytest.fixture(scope="module")
def cifar():
    torch.manual_seed(0)
    return networks(32)


DENSITIES = (0.1, 0.2, 0.3, 0.5)


def percent(found, convention, strong):
    costs = [figures(found, d, None if strong else d, convention) for d in DENSITIES]
    return [100 * cost.ratio for cost in costs]


def test_adapts_published_totals(cifar):
    cost = figures(cifar, None, None, "adapt")
    assert f"{cost.dense_macs:.3e}" == "2.667e+17"
    assert cost.ratio == 1.0


def test_adapts_published_ratios(cifar):
    assert percent(cifar, "adapt", strong=False) == pytest.approx([8.94, 17.09, 26.20, 47.28], abs=0.006)
    assert percent(cifar, "adapt", strong=True) == pytest.approx([58.41, 61.06, 64.68, 74.77], abs=0.006)


def test_ours_on_the_same_runs(cifar):
    assert percent(cifar, "steps", strong=True) == pytest.approx([37.6, 41.6, 47.0, 62.1], abs=0.06)


def test_adapts_stl10_networks_are_ours():
    """The totals and static-strong ratios of ADAPT's STL-10 rows hold for this layout of the blocks and no other."""
    stl = networks(48)
    dense = figures(stl, None, None, "adapt").dense_macs
    assert dense == pytest.approx(3.94e17, rel=0.003)
    assert percent(stl, "adapt", strong=True) == pytest.approx([86.12, 86.94, 87.60, 88.84], abs=0.06)


def test_a_task_says_what_each_network_computes():
    work = {"generator": Work(9, 3), "generator_back": Work(9, 3), "discriminator": Work(8, 2)}
    book = TrainingCounter(1, 1, work=work)
    for name, budgets in (("generator", {"g": 5}), ("generator_back", {}), ("discriminator", {"d": 4})):
        book.advance(name, budgets, 7)
    book.dense_gradient("generator", {"g": 5}, 2)
    book.probe("generator_back")
    cost = training_cost(book, {"generator": G, "generator_back": G, "discriminator": D})
    assert cost.parts["generator"] == 9 * 7 * (5 * 3 + 4)
    assert cost.parts["generator_back"] == 9 * 7 * (30 + 4)
    assert cost.parts["discriminator"] == 8 * 7 * (4 * 2 + 1)
    assert cost.parts["dense_gradients"] == 2 * 3 * (10 - 5) * 3
    assert cost.parts["probe"] == 9 * (30 + 4)
    assert cost.dense_macs == 2 * 9 * 7 * (30 + 4) + 8 * 7 * (40 + 1)


def test_frozen_layers_pass_no_gradient_back_in_their_networks_own_steps():
    frozen = LayerCost("f", (50,), 3, bias=7, prunable=False, frozen=True)
    judge = NetworkProfile((frozen, *D.layers), norm=0, products=0)
    profiles = {"generator": G, "discriminator": judge}
    assert judge.frozen_macs() == 50 * 3 + 7
    cost, plain = (training_cost(small_counter(), found) for found in (profiles, SMALL))
    # forward of two real and two generated images twice, forward and back of three
    more = 7 * (2 * 2 * 2 + 2 * 3) * (50 * 3 + 7)
    assert cost.parts["discriminator"] == plain.parts["discriminator"] + more
    assert cost.dense_macs == plain.dense_macs + more
    book = small_counter()
    book.penalty({"d": 4})
    assert training_cost(book, profiles).parts["penalty"] == 4 * 2 * (9 + 157)
