from __future__ import annotations

import json

import pytest
import torch

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.dcgan import DCGAN, DCGANConfig
from gancompress.cost.counter import TrainingCounter
from gancompress.cost.profile import profile
from gancompress.cost.summary import measure_latency, network_bytes, optimizer_bytes, run_cost
from gancompress.data.base import ImageSpec
from gancompress.sparsity.units import Units


@pytest.fixture
def pair():
    torch.manual_seed(0)
    backbone = DCGAN(DCGANConfig(channels=8, latent_dim=16, conditional=True), ImageSpec(1, 16, ("a", "b")))
    return backbone.generator(), backbone.discriminator()


def test_bytes_by_hand():
    layer = torch.nn.Linear(10, 10)
    found = network_bytes(layer, {"weight": 20})
    assert found == {"dense": 440, "packed": 13 + 80 + 40, "masks": 13}
    nearly_dense = network_bytes(layer, {"weight": 99})  # bits cost more than the one weight they save
    assert nearly_dense == {"dense": 440, "packed": 440, "masks": 0}
    optimizer = torch.optim.Adam(layer.parameters())
    assert optimizer_bytes(optimizer) == 0
    layer(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    assert optimizer_bytes(optimizer) == 2 * 440 + 2 * 4  # two moments, and one step count per tensor


def test_summary_keeps_theory_time_and_bytes_apart(pair):
    networks = dict(zip(("generator", "discriminator"), pair, strict=True))
    profiles = {role: profile(network) for role, network in networks.items()}
    name = next(iter(profiles["generator"].sizes))
    budgets = {"generator": {name: 3}, "discriminator": dict.fromkeys(prunable_weights(pair[1]), 1)}
    counter = TrainingCounter(4, 4)
    for role, kept in budgets.items():
        counter.advance(role, kept, 2)
    optimizers = {
        "generator": torch.optim.Adam(pair[0].parameters()),
        "discriminator": torch.optim.SGD(pair[1].parameters()),
    }
    content = json.loads(json.dumps(run_cost(networks, budgets, optimizers, counter, 1.5)))
    assert content["time"]["training_seconds"] == 1.5
    sizes = content["bytes"]["discriminator"]
    assert sizes["packed"] < sizes["dense"]
    assert sizes["optimizer"] == 0
    training = content["theory"]["training"]
    assert training["convention"] == "steps"
    assert 0 < training["flops"] < training["dense_flops"]
    assert 0 < training["executed"]["flops"] <= training["flops"]
    record = next(layer for layer in content["layers"] if layer["name"] == name)
    assert record["nonzeros"] == 3
    assert record["macs_sparse"] == 3  # a linear layer uses each weight once
    assert "unit" not in record  # a recipe without a pattern
    for role, found in profiles.items():
        mine = [layer for layer in content["layers"] if layer["role"] == role]
        assert sum(layer["macs_dense"] for layer in mine) == found.weight_macs()
        assert sum(layer["macs_sparse"] for layer in mine) == content["theory"]["inference"][role]["macs"]


def test_layers_say_in_which_units_they_keep_weights(pair):
    networks = dict(zip(("generator", "discriminator"), pair, strict=True))
    name, other = list(prunable_weights(pair[0]))[:2]
    shape = tuple(prunable_weights(pair[0])[name].parameter.shape)
    units = {"generator": {name: Units(shape, (1, 4, *shape[2:]))}}
    optimizers = {role: torch.optim.SGD(network.parameters()) for role, network in networks.items()}
    budgets = {role: {} for role in networks}
    layers = run_cost(networks, budgets, optimizers, TrainingCounter(4, 4), 1.5, units)["layers"]
    found = {layer["name"]: layer for layer in layers if layer["role"] == "generator"}
    assert found[name]["unit"] == [1, 4, *shape[2:]]
    assert found[other]["unit"] is None  # the pattern does not fit it
    assert all(("unit" in layer) == layer["prunable"] for layer in found.values())
    assert not any("unit" in layer for layer in layers if layer["role"] == "discriminator")


def test_latency_records_what_was_on_and_restores_modes(pair):
    generator, _ = pair
    generator.train()
    running = generator.norms[0].norm.running_mean.clone()
    state = torch.get_rng_state()
    found = measure_latency(generator, batch=3, repeats=4, warmup=0)
    assert (found["batch"], found["repeats"], found["dtype"], found["device"]) == (3, 4, "float32", "cpu")
    assert found["threads"] == torch.get_num_threads()
    assert found["autocast"] == "off"
    assert found["kernels"] == "dense"
    first, third = found["quartiles_seconds"]
    assert 0 < first <= found["median_seconds"] <= third
    assert generator.training
    assert torch.equal(generator.norms[0].norm.running_mean, running)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.autocast("cpu", torch.bfloat16):
        assert measure_latency(generator, repeats=2, warmup=0)["autocast"] == "bfloat16"
    with pytest.raises(ValueError, match="2 repeats"):
        measure_latency(generator, repeats=1)
