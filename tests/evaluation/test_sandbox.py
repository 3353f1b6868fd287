from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from gancompress.evaluation.sampler import open_sampler
from gancompress.evaluation.sandbox import forked_rng, sampling, undisturbed


def draws():
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    found = torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
    return found


def snapshot(network):
    return {name: value.clone() for name, value in network.state_dict().items()}, [
        m.training for m in network.modules()
    ]


def assert_same(before, after):
    assert before[1] == after[1]
    assert before[0].keys() == after[0].keys()
    for name, value in before[0].items():
        assert torch.equal(value, after[0][name]), name


def test_random_states_are_put_back_and_are_seeded_inside():
    before = draws()
    inside = []
    for _ in range(2):
        with forked_rng(3):
            inside.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert inside[0] == inside[1]
    with forked_rng(4):
        assert torch.rand(1).item() != inside[0][0]
    assert draws() == before


def test_random_states_are_put_back_after_an_error():
    before = draws()
    with pytest.raises(TypeError), forked_rng(0):
        abs((torch.rand(5), np.random.rand(), random.random()))
    assert draws() == before


@pytest.mark.parametrize("mode", ["running", "batch", "standing"])
@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_buffers_are_put_back(network, mode, fails):
    network.train()
    network.dropout.eval()  # a mixture of modes comes back as it was
    before, rng = snapshot(network), draws()
    pointers = [buffer.data_ptr() for buffer in network.buffers()]
    opened = open_sampler(network, seed=0, batch_size=8, batch_norm=mode)
    try:
        with opened as sampler:
            sampler.images(0, 8)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert_same(before, snapshot(network))
    assert [buffer.data_ptr() for buffer in network.buffers()] == pointers
    assert network.norm.momentum == 0.1
    assert draws() == rng


def test_a_buffer_that_is_replaced_inside_comes_back(network):
    before, original = snapshot(network), network.norm.running_mean
    with undisturbed(network):
        network.norm.running_mean = torch.zeros(1)
    assert network.norm.running_mean is original
    assert_same(before, snapshot(network))


def test_the_three_batch_norm_modes_use_their_own_statistics():
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(10.0)
    norm.running_var.fill_(1.0)
    images = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    other = torch.tensor([0.0, 4.0]).view(2, 1, 1, 1)  # mean 2, unbiased variance 8

    def output(mode):
        with sampling(norm, batch_norm=mode, warm_up=lambda _: norm(other)):
            return norm(images).flatten().tolist()

    assert output("running") == pytest.approx([-9, -7], rel=1e-4)
    assert output("batch") == pytest.approx([-1, 1], rel=1e-4)
    assert output("standing") == pytest.approx([-(8**-0.5), 8**-0.5], rel=1e-4)


def test_spectral_norm_does_not_iterate_while_batch_norm_uses_the_batch():
    network = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 4, 3)), nn.BatchNorm2d(4)).train()
    before = snapshot(network)
    with sampling(network, batch_norm="batch"):
        network(torch.randn(4, 1, 5, 5))
        assert not network[0].training
        vector = network[0].parametrizations.weight[0]._u
        assert torch.equal(vector, before[0]["0.parametrizations.weight.0._u"])
    assert_same(before, snapshot(network))


def test_no_gradients_and_no_autocast_inside(network):
    with torch.autocast("cpu", dtype=torch.bfloat16), sampling(network):
        made = network(torch.zeros(2, 6), torch.tensor([0, 1]))
        assert not made.requires_grad
        assert made.dtype == torch.float32
