from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.dcgan import DCGAN, DCGANConfig
from gancompress.cost.bytes import network_bytes, optimizer_bytes
from gancompress.cost.latency import measure_latency
from gancompress.cost.ledger import TrainingLedger
from gancompress.cost.profile import profile
from gancompress.cost.summary import cost_summary, run_cost
from gancompress.data.base import ImageSpec


@pytest.fixture
def pair():
    torch.manual_seed(0)
    backbone = DCGAN(DCGANConfig(channels=8, latent_dim=16, conditional=True), ImageSpec(1, 16, ("a", "b")))
    return backbone.generator(), backbone.discriminator()


def test_bytes_by_hand():
    layer = torch.nn.Linear(10, 10)
    found = network_bytes(layer, {"weight": 20})
    assert (found.dense, found.packed, found.masks) == (440, 13 + 80 + 40, 13)
    nearly_dense = network_bytes(layer, {"weight": 99})  # bits cost more than the one weight they save
    assert (nearly_dense.packed, nearly_dense.masks) == (440, 0)
    optimizer = torch.optim.Adam(layer.parameters())
    assert optimizer_bytes(optimizer) == 0
    layer(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    assert optimizer_bytes(optimizer) == 2 * 440 + 2 * 4  # two moments, and one step count per tensor


def test_summary_keeps_theory_time_and_bytes_apart(pair):
    profiles = dict(zip(("generator", "discriminator"), map(profile, pair), strict=True))
    name = next(iter(profiles["generator"].sizes))
    ledger = TrainingLedger(4, 4)
    ledger.advance("generator", {name: 3}, 2)
    ledger.advance("discriminator", {}, 2)
    report = cost_summary(
        profiles, {"generator": {name: 3}}, ledger, time={"training_seconds": 1.5}, bytes={"generator": {"dense": 7}}
    )
    content = json.loads(json.dumps(report.to_dict()))
    assert content["time"] == {"training_seconds": 1.5}
    assert content["bytes"] == {"generator": {"dense": 7}}
    training = content["theory"]["training"]
    assert 0 < training["flops"] < training["dense_flops"]
    record = next(layer for layer in content["layers"] if layer["name"] == name)
    assert record["nonzeros"] == 3
    assert record["macs_sparse"] == 3  # a linear layer uses each weight once
    for role, found in profiles.items():
        mine = [layer for layer in content["layers"] if layer["role"] == role]
        assert sum(layer["macs_dense"] for layer in mine) == found.weight_macs()
        assert sum(layer["macs_sparse"] for layer in mine) == content["theory"]["inference"][role]["macs"]


def test_latency_records_what_was_on_and_restores_modes(pair):
    generator, _ = pair
    generator.train()
    running = generator.norms[0].norm.running_mean.clone()
    state = torch.get_rng_state()
    found = measure_latency(generator, batch=3, repeats=4, warmup=0)
    assert (found.batch, found.repeats, found.dtype, found.device) == (3, 4, "float32", "cpu")
    assert found.threads == torch.get_num_threads()
    assert found.autocast == "off"
    first, third = found.quartiles_seconds
    assert 0 < first <= found.median_seconds <= third
    assert generator.training
    assert torch.equal(generator.norms[0].norm.running_mean, running)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.autocast("cpu", torch.bfloat16):
        assert measure_latency(generator, repeats=2, warmup=0).autocast == "bfloat16"
    with pytest.raises(ValueError, match="2 repeats"):
        measure_latency(generator, repeats=1)


def test_run_cost_brings_the_ledger_up_to_date_first(pair):
    generator, discriminator = pair
    ledger = TrainingLedger(4, 4)
    budgets = {
        role: dict.fromkeys(prunable_weights(network), 1)
        for role, network in (("generator", generator), ("discriminator", discriminator))
    }

    def count_steps():
        for role, kept in budgets.items():
            ledger.advance(role, kept, 5)

    engine = SimpleNamespace(count_steps=count_steps, state=lambda role: SimpleNamespace(budgets=budgets[role]))
    optimizers = {
        "generator": torch.optim.Adam(generator.parameters()),
        "discriminator": torch.optim.SGD([torch.zeros(1)]),
    }
    trained = SimpleNamespace(
        generator=generator, discriminator=discriminator, engine=engine, ledger=ledger, optimizers=optimizers
    )
    content = json.loads(json.dumps(run_cost(trained, 2.0)))
    assert content["theory"]["training"]["flops"] > 0
    assert content["time"]["training_seconds"] == 2.0
    assert content["time"]["generator_latency"]["kernels"] == "dense"
    assert content["bytes"]["generator"]["packed"] < content["bytes"]["generator"]["dense"]
    assert all(layer["nonzeros"] == 1 for layer in content["layers"])
