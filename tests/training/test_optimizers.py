from __future__ import annotations

import pytest
import torch
from engine_toys import ROLES, ToyDiscriminator, make
from torch import nn

from gancompress.errors import RecipeError, UnsupportedOptimizerError
from gancompress.recipe.schema import OptimizerConfig
from gancompress.training.moments import first_moment, moments
from gancompress.training.optimizers import build_optimizer, learning_rate, moment_decays, optimizer_names

NULL = {"betas": None, "eps": None}


def config(name="adam", **changes):
    return OptimizerConfig(**{"name": name, **({} if name.startswith("adam") else NULL), **changes})


# ---------------------------------------------------------------- the factory


def test_adam_gets_every_setting():
    optimizer = build_optimizer(ToyDiscriminator(), config(lr=3e-4, betas=(0.1, 0.8), eps=1e-6))
    assert type(optimizer) is torch.optim.Adam
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (3e-4, (0.1, 0.8), 1e-6)


def test_null_leaves_the_default_of_the_optimizer():
    group = build_optimizer(ToyDiscriminator(), config("adamw", **NULL)).param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)


def test_momentum_reaches_sgd():
    optimizer = build_optimizer(ToyDiscriminator(), config("momentum", momentum=0.7))
    assert all((g["momentum"], g["nesterov"]) == (0.7, False) for g in optimizer.param_groups)


@pytest.mark.parametrize(
    ("wrong", "named", "kept"),
    [
        (config("sgd", betas=(0.0, 0.9)), "betas", "eps"),
        (config("sgd", betas=(0.0, 0.9), eps=1e-8), "betas and no eps; set betas: null, eps: null", "momentum"),
        (config("lion", betas=(0.9, 0.99), eps=1e-8), "eps", "betas"),
        (config("adam", momentum=0.9), "momentum", "betas"),
        (config("rmsprop", betas=(0.0, 0.9), eps=1e-8), "betas", "eps"),
    ],
)
def test_a_setting_that_timm_would_drop_is_refused_by_name(wrong, named, kept):
    with pytest.raises(RecipeError, match=f"takes no {named}") as caught:
        build_optimizer(ToyDiscriminator(), wrong)
    assert f"no {kept}" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_mistakes_are_refused_in_one_line():
    network = ToyDiscriminator()
    with pytest.raises(RecipeError, match=r"unknown optimizer 'admw'; did you mean 'adamw'\?"):
        build_optimizer(network, config("admw"))
    with pytest.raises(RecipeError, match="unknown optimizer"):
        build_optimizer(network, config("lookahead_adam"))
    with pytest.raises(RecipeError, match="takes 3 betas, got 2"):
        build_optimizer(network, config("adan", betas=(0.9, 0.99)))
    with pytest.raises(RecipeError, match="'adam' refuses its settings: Invalid beta"):
        build_optimizer(network, config("adam", betas=(0.0, 1.5)))


def test_names_build():
    for name in ("adam", "adamw", "sgd", "momentum", "rmsprop", "lion", "nadam", "radam"):
        assert name in optimizer_names()
        assert build_optimizer(ToyDiscriminator(), config(name, **NULL)).param_groups


def test_weight_decay_leaves_biases_and_normalisation_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    groups = build_optimizer(network, config("adamw", weight_decay=0.1)).param_groups
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert {name: decay[id(p)] for name, p in network.named_parameters()} == {
        "0.weight": 0.1,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


# ---------------------------------------------------------------- the fused kernel


def trained(fused, steps=20, memory_format=torch.contiguous_format, name="adam", reload_at=None):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(16, 33, 3), nn.Conv2d(33, 5, 3)).to(memory_format=memory_format)
    optimizer = build_optimizer(network, config(name, lr=1e-2, weight_decay=0.01))
    assert all(group["fused"] for group in optimizer.param_groups)
    if not fused:
        for group in optimizer.param_groups:
            group["fused"] = False
    rng = torch.Generator().manual_seed(1)
    for step in range(steps):
        if step == reload_at:
            state = optimizer.state_dict()
            state["state"] = {
                index: {key: value.clone(memory_format=torch.contiguous_format) for key, value in values.items()}
                for index, values in state["state"].items()
            }
            optimizer.load_state_dict(state)
        for parameter in network.parameters():
            # a contiguous gradient, whatever the layout of the weight
            parameter.grad = torch.randn(parameter.shape, generator=rng)
        optimizer.step()
    return list(network.parameters())


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_fused_is_deterministic_to_the_bit_and_equals_the_plain_one_to_rounding(name):
    once, twice, plain = trained(True, name=name), trained(True, name=name), trained(False, name=name)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    for a, b in zip(once, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    other = trained(True, steps=19, name=name)
    assert not any(torch.equal(a, b) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("reload_at", [None, 7])
def test_fused_pairs_weights_gradients_and_loaded_moments_of_different_memory_layouts(reload_at):
    """Torch's fused CPU kernel ignores strides: contiguous moments under channels-last weights would be garbled."""
    rows, last = trained(True), trained(True, memory_format=torch.channels_last, reload_at=reload_at)
    for a, b in zip(rows, last, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- the schedule


def test_learning_rate_known_answers():
    linear = OptimizerConfig(lr=0.8, schedule="linear")
    assert [learning_rate(linear, step / 4) for step in range(5)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    assert learning_rate(linear, 2) == 0.0
    assert {learning_rate(OptimizerConfig(lr=0.8), step / 4) for step in range(5)} == {0.8}
    ending = OptimizerConfig(lr=0.8, schedule="linear", final_lr=0.4)
    assert [learning_rate(ending, at) for at in (0, 0.25, 1, 2)] == pytest.approx([0.8, 0.7, 0.4, 0.4])


def test_a_cosine_of_rates_and_betas():
    config = OptimizerConfig(lr=2e-4, final_lr=5e-5, betas=(0.0, 0.9), final_beta2=0.99, schedule="cosine")
    assert [learning_rate(config, at) for at in (0, 0.5, 1, 9)] == pytest.approx([2e-4, 1.25e-4, 5e-5, 5e-5])
    found = [moment_decays(config, at) for at in (0, 0.5, 1)]
    assert found == [(0.0, pytest.approx(beta)) for beta in (0.9, 0.945, 0.99)]
    assert moment_decays(OptimizerConfig(), 0.5) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"final_lr": 1e-5}, "final_lr is where a schedule ends, and the schedule is constant"),
        ({"final_beta2": 0.99}, "final_beta2 is where a schedule ends"),
        ({"final_beta2": 0.99, "schedule": "cosine", "betas": None}, "give betas too"),
    ],
)
def test_contradictions_of_schedules(settings, says):
    with pytest.raises(ValueError, match=says):
        OptimizerConfig(**settings)


# ---------------------------------------------------------------- moments


def stepped(name, shape=(64, 48), **changes):
    network = nn.Linear(shape[1], shape[0])
    optimizer = build_optimizer(network, config(name, **{**NULL, **changes}))
    network(torch.randn(2, shape[1])).sum().backward()
    assert moments(optimizer, network.weight) == {}
    optimizer.step()
    return optimizer, network.weight


@pytest.mark.parametrize(
    ("name", "keys", "first"),
    [
        ("adam", {"exp_avg", "exp_avg_sq"}, "exp_avg"),
        ("adamw", {"exp_avg", "exp_avg_sq"}, "exp_avg"),
        ("nadam", {"exp_avg", "exp_avg_sq"}, "exp_avg"),
        ("momentum", {"momentum_buffer"}, "momentum_buffer"),
        ("rmsprop", {"square_avg", "momentum_buffer"}, "momentum_buffer"),
        ("lion", {"exp_avg"}, "exp_avg"),
    ],
)
def test_moments_known_answers(name, keys, first):
    optimizer, weight = stepped(name)
    found = moments(optimizer, weight)
    assert set(found) == keys
    assert first_moment(optimizer, weight) is found[first]


def test_sgd_without_momentum_has_none():
    optimizer, weight = stepped("momentum", momentum=0.0)
    assert moments(optimizer, weight) == {}
    assert first_moment(optimizer, weight) is None


def test_factored_state_is_refused_by_name():
    optimizer, weight = stepped("adafactor")
    with pytest.raises(UnsupportedOptimizerError, match=r"Adafactor keeps 'exp_avg_sq_row' of shape \(64,\), for w of"):
        moments(optimizer, weight, "w")


def toys_with(name, **changes):
    # masked training of both toy networks with a named optimizer, made as the recipe makes it
    networks = []

    def build(parameters):
        network = nn.Module()
        network.held = nn.ParameterList(list(parameters))
        networks.append(network)
        return build_optimizer(network, config(name, **{**NULL, "lr": 1e-3, **changes}))

    return make(optimizer=build)


@pytest.mark.parametrize(
    "name", ["adam", "adamw", "momentum", "sgd", "rmsprop", "rmsproptf", "nadam", "lion", "muon", "lamb", "adamp"]
)
def test_these_optimizers_stay_on_the_mask(name):
    """rmsproptf starts its moments at 1 and muon mixes all weights of a matrix: both end at 0 off the mask."""
    toys = toys_with(name, weight_decay=0.01)
    for step in range(1, 10):
        toys.step(step)
        toys.engine.check()
    for role in ROLES:
        for name, mask in toys.engine.state(role).masks.items():
            parameter = toys.engine._nets[role].parameters[name]
            for moment in moments(toys.optimizers[role], parameter).values():
                assert (moment[~mask] == 0).all()
                assert (moment[mask] != 0).any()


@pytest.mark.parametrize("name", ["adabelief", "adamax"])
def test_an_optimizer_that_moves_masked_moments_is_refused_at_its_second_step(name):
    toys = toys_with(name)
    toys.step(1)
    with pytest.raises(UnsupportedOptimizerError, match=r"does not keep the moments .* sparsity\.moments: dense"):
        toys.step(2)


def test_a_dense_network_may_use_any_optimizer():
    toys = toys_with("adabelief")
    dense = make(density=1.0, optimizer=lambda p: type(toys.optimizers["generator"])(p, lr=1e-3))
    for step in range(1, 5):
        dense.step(step)
    dense.engine.check()
