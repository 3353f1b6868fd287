"""Which channels go together, and that what is left computes what zeros in their place would."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest
import torch
from channel_networks import (
    Attending,
    Conditioned,
    Joined,
    Normalised,
    Tied,
    Viewed,
    cut_module,
    found,
    grouped,
    images,
    latents,
    normed,
    settled,
    shuffled,
    some_of,
    unflattened,
)
from torch import nn
from torch.nn import functional as F

from gancompress.channels.cut import cut_network, verify
from gancompress.channels.groups import kept_count
from gancompress.errors import ChannelError
from gancompress.sparsity.weights import duplicate

if TYPE_CHECKING:
    from torch import Tensor

    from gancompress.channels.groups import Channels
    from gancompress.graphs.build import CapturedModule

NETWORKS = {
    "unflattened": (unflattened, latents()),
    "viewed": (Viewed, latents()),
    "normed": (normed, latents()),
    "shuffled": (shuffled, images()),
    "grouped": (grouped, images()),
    "tied": (Tied, images()),
    "attending": (Attending, images()),
    "conditioned": (Conditioned, (*latents(), torch.tensor([1, 3]))),
    "joined": (Joined, images()),
    "normalised": (Normalised, images()),
}
#: what every network's groups are, by name
WIDTHS = {
    "unflattened": {"0": 8},
    "viewed": {"linear": 10},
    "normed": {"0": 8, "3": 7, "5": 6},
    # a channel behind the shuffle is four before it, and again four behind its reverse
    "shuffled": {"0": 6, "3": 12},
    "grouped": {"0": 3, "2": 2, "4": 6},
    "tied": {"first": 9, "up": 5},
    "attending": {"first": 16, "attention.query": 2, "attention.value": 8},
    "conditioned": {"map.0": 8, "conv": 6},
    "joined": {"a": 8, "b": 6, "gate": 10, "squeeze": 5, "mix": 4},
    "normalised": {"next": 8},
}


@functools.cache
def prepared(name: str) -> tuple[nn.Module, tuple[Tensor, ...], CapturedModule, Channels]:
    make, inputs = NETWORKS[name]
    torch.manual_seed(0)
    module = settled(make())
    return module, inputs, *found(module, inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_are_what_must_go_together(name: str) -> None:
    _, inputs, network, channels = prepared(name)
    assert {group.name: group.width for group in channels.groups} == WIDTHS[name]
    for density in (0.75, 0.5, 0.1, 0.37):
        kept = some_of(channels, density, seed=int(density * 100))
        narrow = cut_network(network, channels, kept)
        verify(network, narrow, channels, kept, inputs, narrow.state_dict())


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"viewed"}))
def test_a_module_is_cut_as_its_graph_is(name: str) -> None:
    module, inputs, network, channels = prepared(name)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    narrow = cut_module(module, inputs, 0.5, (network, channels))
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())
    narrow.train()(*inputs).sum().backward()  # and it can be trained on


def test_shared_weights_stay_shared() -> None:
    narrow = cut_module(prepared("tied")[0], images(), 0.5, prepared("tied")[2:])
    assert isinstance(narrow, Tied)
    assert narrow.up.weight is narrow.down.weight
    assert narrow.up.weight.shape == (3, 5, 1, 1)


def test_the_whole_first_matrix_is_cut() -> None:
    narrow = cut_module(prepared("unflattened")[0], latents(), 0.5, prepared("unflattened")[2:])
    assert narrow[0].weight.shape == (4 * 16, 6)  # type: ignore[index]


def test_code_that_has_widths_in_it_is_refused() -> None:
    with pytest.raises(ChannelError, match="does not run without its channels"):
        cut_module(prepared("viewed")[0], latents(), 0.5, prepared("viewed")[2:])


def test_frozen_networks_and_single_images_are_cut_alike() -> None:
    module, inputs, _, channels = prepared("conditioned")
    wanted = [group.name for group in channels.groups]
    one = tuple(x[:1] for x in inputs)
    assert [group.name for group in found(duplicate(module).requires_grad_(False), one)[1].groups] == wanted


def test_counts_are_nearest_and_never_none() -> None:
    assert [kept_count(10, 0.1), kept_count(100, 0.1), kept_count(10, 0.01), kept_count(7, 0.5)] == [1, 10, 1, 4]
    assert kept_count(8, 1.0) == 8


def test_what_leaves_the_network_stays() -> None:
    channels = prepared("unflattened")[3]
    assert channels.whole == {"4": "it makes the output"}
    assert not any(place.tensor == "4.weight" and place.makes for group in channels.groups for place in group.places)
    with pytest.raises(ChannelError, match=r"no channels that can be cut [(]0: it makes the output"):
        found(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), images())


def test_what_has_no_rule_is_named() -> None:
    channels = prepared("normalised")[3]
    assert channels.whole["first"] == "no rule for group_norm: group_norm has no rule"


class Residual(nn.Module):
    """Adds to its input, so that nothing of the last sum can go; and drops channels by a number in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.wide(x))
        out: Tensor = x + self.out(F.relu(h[:, :4] + self.narrow(h)))
        return out


def test_channels_that_are_dropped_later_are_a_group_of_their_own() -> None:
    network, channels = found(settled(Residual()), images())
    assert {group.name: group.width for group in channels.groups} == {"wide": 4, "wide#2": 4}
    kept = some_of(channels, 0.25)
    narrow = cut_network(network, channels, kept)
    verify(network, narrow, channels, kept, images(), narrow.state_dict())
    assert narrow.state_dict()["wide.weight"].shape == (2, 3, 1, 1)


def test_a_wrong_cut_is_found() -> None:
    _, _, network, channels = prepared("unflattened")
    kept = some_of(channels, 0.5)
    other = {name: mask.roll(1) for name, mask in kept.items()}
    assert not torch.equal(other["0"], kept["0"])
    narrow = cut_network(network, channels, other)
    with pytest.raises(ChannelError, match="differ by"):
        verify(network, narrow, channels, kept, latents(), narrow.state_dict())
    one_less = {name: mask & (mask.cumsum(0) > 1) for name, mask in kept.items()}
    with pytest.raises(ChannelError, match="was to keep 48"):
        verify(network, narrow, channels, one_less, latents(), narrow.state_dict())
