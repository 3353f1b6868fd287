"""Reconstruction of whole networks: what can be kept exactly is, budgets are met, and it beats leaving weights out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from gancompress.backbones.base import prunable_weights
from gancompress.components.registry import PATTERNS
from gancompress.foreign.network import capture_module
from gancompress.reconstruct.prune import reconstruct
from gancompress.sparsity.allocate import allocate
from gancompress.sparsity.masks import topk_mask

if TYPE_CHECKING:
    from gancompress.graphs.build import CapturedModule
    from gancompress.sparsity.state import Budget


def budget(network: nn.Module, density: float, pattern: Any = None) -> Budget:
    weights = prunable_weights(network)
    units = {} if pattern is None else {name: pattern.units(weight.layer) for name, weight in weights.items()}
    return allocate(
        "global",
        {name: tuple(weight.parameter.shape) for name, weight in weights.items()},
        density,
        scores={name: weight.parameter.detach().abs() for name, weight in weights.items()},
        units={name: own for name, own in units.items() if own is not None},
    )


def captured(module: nn.Module, *shape: int, dynamic: dict[int, str] | None = None) -> CapturedModule:
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.3)
    return capture_module(module, (torch.randn(shape),), None if dynamic is None else [dynamic])


def decoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.LeakyReLU(0.2), nn.ConvTranspose2d(16, 12, 4, stride=2, padding=1),
        nn.PReLU(12), nn.Conv2d(12, 12, 3, padding=1, groups=2, bias=False), nn.ReLU(), nn.Conv2d(12, 3, 1), nn.Tanh(),
    )  # fmt: skip


def smooth(count: int, seed: int) -> list[tuple[Tensor, ...]]:
    """Inputs whose pixels go together, as those of photographs do."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=rng)
    return [(x[None],) for x in nn.functional.interpolate(coarse, size=16, mode="bilinear")]


def error(whole: nn.Module, pruned: nn.Module, inputs: list[tuple[Tensor, ...]]) -> float:
    with torch.no_grad():
        return sum(float((whole(*x) - pruned(*x)).square().mean()) for x in inputs)


@pytest.mark.parametrize("rounds", [1, 3, None, 24])
def test_inputs_that_say_nothing_new_are_left_out_at_no_cost(rounds: int | None) -> None:
    """Half of the inputs repeat the other half, so half of the weights can go and the others take over."""
    network = captured(nn.Sequential(nn.Linear(8, 6)), 5, 8)
    half = torch.randn(400, 4)
    inputs = [(torch.cat([half, half], 1),)]
    with torch.no_grad():
        wanted = network(*inputs[0])
    found = reconstruct(network, inputs, budget(network, 0.5), rounds=rounds)
    (mask,) = found.masks.values()
    assert torch.equal(mask[:, :4] ^ mask[:, 4:], torch.ones(6, 4, dtype=torch.bool))  # one of every pair
    with torch.no_grad():
        assert torch.allclose(network(*inputs[0]), wanted, atol=0.05)
    assert found.errors["0"] < 1e-4


def test_what_an_input_always_has_moves_into_the_bias() -> None:
    network = captured(nn.Sequential(nn.Linear(3, 2)), 5, 3)
    x = torch.randn(200, 3) * torch.tensor([1.0, 1.0, 0.0]) + torch.tensor([0.0, 0.0, 7.0])
    with torch.no_grad():
        wanted = network(x)
    found = reconstruct(network, [(x,)], budget(network, 2 / 3), rounds=1)
    assert found.masks["0.weight"].tolist() == [[True, True, False]] * 2
    with torch.no_grad():
        assert torch.allclose(network(x), wanted, atol=1e-3)


def test_outputs_that_nobody_listens_to_go_first() -> None:
    first, second = nn.Linear(4, 6), nn.Linear(6, 1)
    network = captured(nn.Sequential(first, second), 5, 4)
    with torch.no_grad():
        network.get_submodule("1").weight[0, 3:] = 0
    found = reconstruct(network, [(torch.randn(300, 4),)], budget(network, 15 / 30), rounds=1)
    assert found.masks["0.weight"][:3].all()
    assert not found.masks["0.weight"][3:].any()


def test_a_decoder_with_every_kind_of_layer_keeps_its_outputs_better_than_by_magnitude() -> None:
    whole = captured(decoder(), 2, 3, 16, 16)
    pruned = captured(decoder(), 2, 3, 16, 16)
    plan = budget(pruned, 0.4)
    said: list[str] = []
    found = reconstruct(pruned, smooth(6, 1), plan, rounds=3, positions=2000, say=said.append)
    assert sum(int(mask.sum()) for mask in found.masks.values()) == plan.total
    for name, mask in found.masks.items():
        weight = prunable_weights(pruned)[name].parameter
        assert not weight[~mask].any()
        assert weight[mask].all()
    smallest = captured(decoder(), 2, 3, 16, 16)
    for name, weight in prunable_weights(smallest).items():
        weight.parameter.data.mul_(topk_mask(weight.parameter.detach().abs(), plan.counts[name]))
    assert error(whole, pruned, smooth(4, 2)) < 0.5 * error(whole, smallest, smooth(4, 2))
    assert len(said) == 5


def test_what_is_pruned_by_few_inputs_holds_on_others() -> None:
    """Three inputs, of fewer directions than the first layer has inputs: what fits them best is far off on others."""

    def vocoder() -> CapturedModule:
        layers = nn.Conv1d(24, 32, 7, padding=3), nn.LeakyReLU(0.1), nn.Conv1d(32, 4, 3, padding=1)
        return captured(nn.Sequential(*layers), 2, 24, 36)

    coarse = torch.randn(15, 1, 24, 9, generator=torch.Generator().manual_seed(5))
    inputs = [(nn.functional.interpolate(one, size=36, mode="linear"),) for one in coarse]
    whole, pruned = vocoder(), vocoder()
    reconstruct(pruned, inputs[:3], budget(pruned, 0.5))
    with torch.no_grad():
        power = sum(float(whole(*x).var()) for x in inputs[3:])
    assert error(whole, pruned, inputs[3:]) < 0.11 * power  # more where all that the few seem to say is believed


def test_outputs_are_kept_in_the_measure_that_is_asked_for() -> None:
    network = captured(nn.Sequential(nn.Linear(6, 2)), 5, 6)
    with torch.no_grad():
        network.get_submodule("0").weight[1] = network.get_submodule("0").weight[0]
    found = reconstruct(
        network, [(torch.randn(300, 6),)], budget(network, 0.5), rounds=1, measured=lambda y: y * torch.tensor([0.1, 1])
    )
    (mask,) = found.masks.values()
    assert mask.sum(1).tolist() == [0, 6]


def test_it_is_a_function_of_its_seed() -> None:
    states = []
    for seed in (0, 0, 1):
        network = captured(decoder(), 2, 3, 16, 16)
        reconstruct(network, smooth(2, 1), budget(network, 0.4), rounds=2, positions=100, seed=seed)
        states.append(network.state_dict()["0.weight"].clone())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(("name", "settings"), [("nm", {"n": 2, "m": 4}), ("block", {"outputs": 2, "inputs": 1})])
def test_patterns_are_held(name: str, settings: dict[str, int]) -> None:
    pattern: Any = PATTERNS.get(name)
    network = captured(nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3)), 2, 4, 8, 8)
    plan = budget(network, 0.4, pattern(pattern.Config(**settings)))
    assert plan.units
    found = reconstruct(network, [(torch.randn(2, 4, 8, 8),)], plan, rounds=2)
    plan.check_units(found.masks, "test")
    assert sum(int(mask.sum()) for mask in found.masks.values()) == plan.total
