from __future__ import annotations

import pytest
import torch
from engine_toys import ToyGenerator
from torch import nn
from torch.nn.utils import parametrizations

from gancompress.backbones.spectral import norm_vectors
from gancompress.errors import CheckpointError
from gancompress.recipe.schema import EMAConfig
from gancompress.training.ema import SparseEMA, decay_at, load_average


class One(nn.Module):
    """Four weights, one float buffer, one integer buffer."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.tensor(0))


def pair(**config):
    network = One()
    return network, SparseEMA(network, EMAConfig(**{"decay": 0.75, **config}))


def live(network, *values):
    with torch.no_grad():
        network.w.copy_(torch.tensor(values))


def test_known_answer():
    network, ema = pair()
    live(network, 4.0, 0.0, 0.0, 8.0)
    ema.update(network, 1)
    assert ema.module.w.tolist() == [1, 0, 0, 2]
    ema.update(network, 2)
    assert ema.module.w.tolist() == [1.75, 0, 0, 3.5]
    assert network.w.tolist() == [4, 0, 0, 8]


def test_a_half_life_that_grows():
    # 0.75 at the end: a half-life of ln 0.5 / ln 0.75; half of that in the middle of the cosine, none at first
    config = EMAConfig(decay=0.75, growing=True)
    assert [decay_at(config, at) for at in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([0.0, 0.75**2, 0.75, 0.75])
    network, ema = pair(growing=True)
    live(network, 4.0, 0.0, 0.0, 8.0)
    ema.update(network, 1, 0.0)
    assert ema.module.w.tolist() == [4, 0, 0, 8]
    live(network, 0.0, 0.0, 0.0, 0.0)
    ema.update(network, 2, 0.5)
    assert ema.module.w.tolist() == [2.25, 0, 0, 4.5]
    assert decay_at(EMAConfig(decay=0.75), 0.1) == 0.75


def test_before_start_it_copies():
    network, ema = pair(start=3)
    for step, expected in ((1, 4), (2, 4), (3, 4 + 0.25 * 4)):
        live(network, 4.0 if step < 3 else 8.0, 0.0, 0.0, 0.0)
        ema.update(network, step)
        assert ema.module.w[0] == expected


def test_decay_zero_is_the_live_network():
    network, ema = pair(decay=0.0)
    live(network, 0.1, 0.2, 0.3, 0.7)
    ema.update(network, 1)
    assert torch.equal(ema.module.w, network.w)


def test_buffers_are_copied_not_averaged():
    network, ema = pair()
    network.mean.fill_(0.3)
    network.count.fill_(7)
    ema.update(network, 1)
    assert torch.equal(ema.module.mean, network.mean)
    assert int(ema.module.count) == 7


@pytest.mark.parametrize(("sparse", "expected"), [(True, 8.0), (False, 2.0)])
def test_a_grown_weight_starts_from_its_live_value_or_ramps_up(sparse, expected):
    network, ema = pair(sparse=sparse)
    live(network, 4.0, 4.0, 0.0, 0.0)
    ema.update(network, 1)
    off = torch.tensor([True, False, True, False])
    grown = torch.tensor([False, False, False, True])
    ema.retarget({"w": off}, {"w": grown})
    assert ema.module.w.tolist() == [0, 1, 0, 0]  # what was dropped is gone at once
    live(network, 0.0, 4.0, 0.0, 8.0)
    ema.stepped()
    ema.update(network, 2)
    assert ema.module.w.tolist() == [0, 1.75, 0, expected]
    ema.stepped()
    ema.update(network, 3)
    assert ema.module.w[3] == expected + 0.25 * (8 - expected)  # from then on it is averaged like the others


def test_a_kept_weight_whose_average_is_zero_is_not_taken_for_a_grown_one():
    """The published code infers "new" from a zero in the average; the update's own set does not err here."""
    network, ema = pair()
    live(network, 8.0, 8.0, 8.0, 8.0)
    ema.retarget({}, {"w": torch.tensor([True, False, False, False])})
    ema.stepped()
    ema.update(network, 1)
    assert ema.module.w.tolist() == [8, 2, 2, 2]


def test_grown_weights_wait_through_a_skipped_step_and_vanish_when_dropped():
    network, ema = pair()
    ema.retarget({}, {"w": torch.tensor([True, True, False, False])})
    ema.stepped(False)
    ema.update(network, 1)
    assert ema.pending["w"].tolist() == [True, True, False, False]
    ema.retarget({"w": torch.tensor([True, False, False, False])}, {"w": torch.tensor([False, False, True, False])})
    assert ema.pending["w"].tolist() == [False, True, True, False]
    live(network, 0.0, 4.0, 8.0, 8.0)
    ema.stepped()
    ema.update(network, 2)
    assert ema.module.w.tolist() == [0, 4, 8, 2]
    assert ema.pending == {}


def test_reset_copies_everything_and_forgets_the_grown():
    network, ema = pair()
    live(network, 1.0, 2.0, 3.0, 4.0)
    network.count.fill_(3)
    ema.retarget({}, {"w": torch.ones(4, dtype=torch.bool)})
    ema.reset()
    assert torch.equal(ema.module.w, network.w)
    assert int(ema.module.count) == 3
    assert ema.pending == {}


def test_the_average_is_a_network_of_its_own_without_gradients():
    network = ToyGenerator()
    ema = SparseEMA(network, EMAConfig(decay=0.5))
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert all(p.requires_grad for p in network.parameters())
    assert ema.module(torch.randn(2, 6)).shape == (2, 3, 4, 4)
    before = [p.clone() for p in ema.module.parameters()]
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, ema.module.parameters(), strict=True))
    assert torch.equal(ema.parameter("first.weight"), ema.module.first.weight)


def test_it_follows_another_copy_of_the_live_network():
    _network, ema = pair()
    other = One()
    live(other, 4.0, 0.0, 0.0, 0.0)
    ema.update(other, 1)
    assert ema.module.w[0] == 1


def test_state_round_trip_with_pending_grown_weights():
    network, ema = pair()
    live(network, 4.0, 3.0, 2.0, 1.0)
    ema.update(network, 1)
    ema.retarget({}, {"w": torch.tensor([False, False, False, True])})
    tensors, scalars = ema.state_dict()
    other = SparseEMA(One(), EMAConfig(decay=0.75))
    other.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, dict(scalars))
    for e in (ema, other):
        e.stepped()
        e.update(network, 2)
    assert torch.equal(ema.module.w, other.module.w)
    assert ema.module.w[3] == 1
    with pytest.raises(CheckpointError, match="does not fit this generator"):
        SparseEMA(ToyGenerator(), EMAConfig()).load_state_dict(tensors, scalars)
    with pytest.raises(CheckpointError, match="does not fit"):
        other.load_state_dict({**tensors, "grown.v": torch.ones(1)}, scalars)


@pytest.mark.parametrize("normed", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_an_average_is_measured_under_its_own_spectral_norms(normed):
    network = normed(nn.Linear(2, 2, bias=False))
    ((raw, *vectors),) = norm_vectors(network)

    def be(*diagonal):
        raw.copy_(torch.diag(torch.tensor(diagonal)))
        for vector in vectors:
            vector.copy_(torch.tensor([float(diagonal[0] >= diagonal[1]), float(diagonal[0] < diagonal[1])]))

    def computed(layer):
        return layer.eval()(torch.eye(2)).T

    be(8.0, 0.0)
    ema = SparseEMA(network, EMAConfig(decay=0.75))
    be(0.0, 8.0)
    ema.update(network, 1)  # the average is diag(6, 2), its largest value where the live weight has nothing
    assert computed(ema.module).tolist() == [[3, 0], [0, 1]]
    saved = {name: tensor.clone() for name, tensor in ema.state_dict()[0].items()}
    for _ in range(2):
        with ema.measured() as average:
            once = computed(average).clone()
        torch.testing.assert_close(once, torch.diag(torch.tensor([1.0, 1 / 3])))
        assert all(torch.equal(saved[name], tensor) for name, tensor in ema.state_dict()[0].items())
    assert computed(ema.module).tolist() == [[3, 0], [0, 1]]
    opened = normed(nn.Linear(2, 2, bias=False))
    load_average(opened, saved)
    assert torch.equal(computed(opened), once)
    with pytest.raises(ZeroDivisionError), ema.measured():
        raise ZeroDivisionError
    assert all(torch.equal(saved[name], tensor) for name, tensor in ema.state_dict()[0].items())
