"""How many channels a cost leaves room for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch
from channel_networks import found, images, settled
from torch import nn

from gancompress.channels.cut import cut_network
from gancompress.channels.scores import channel_scores
from gancompress.channels.target import Target, choose, cost_of, parse_target
from gancompress.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.channels.groups import Channels
    from gancompress.graphs.build import CapturedModule


def chain() -> nn.Module:
    torch.manual_seed(0)
    return settled(nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(20, 30, 4, 2, 1), nn.ReLU(), nn.Conv2d(30, 3, 1),
    ))  # fmt: skip


def test_costs_by_hand() -> None:
    network, _ = found(chain(), images(2, 8))
    cost = cost_of(network, images(2, 8))
    parameters = 3 * 20 * 9 + 20 + 20 * 30 * 16 + 30 + 30 * 3 + 3
    macs = 2 * (64 * 3 * 20 * 9 + 64 * 20 * 30 * 16 + 256 * 30 * 3)
    assert (cost.macs, cost.parameters, cost.bytes) == (macs, parameters, 4 * parameters)
    attending = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 2))
    assert cost_of(found(attending, (torch.zeros(4, 5),))[0], (torch.zeros(4, 5),)).macs == 4 * (5 * 7 + 7 * 2)


@pytest.mark.parametrize("kind", ["macs", "parameters", "bytes"])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_as_many_are_kept_as_fit(kind: str, share: float) -> None:
    network, channels = found(chain(), images())
    scores, whole = channel_scores(network, channels, "magnitude"), getattr(cost_of(network, images()), kind)

    def cost(kept: dict[str, torch.Tensor]) -> int:
        return int(getattr(cost_of(cut_network(network, channels, kept), images()), kind))

    kept = choose(network, channels, scores, Target(kind, share, True), images())
    assert cost(kept) <= share * whole
    count = int(kept["2"].sum())
    more = channels.widths((count + 1) / 30)
    assert cost({name: torch.arange(len(mask)) < more[name] for name, mask in kept.items()}) > share * whole
    exact = choose(network, channels, scores, Target(kind, share * whole, False), images())
    assert {name: int(mask.sum()) for name, mask in exact.items()} == {n: int(m.sum()) for n, m in kept.items()}


class Clock:
    """A machine on which a call takes 2 ms and 18 more for the whole network, by its multiply-adds."""

    def __init__(self, network: CapturedModule, channels: Channels) -> None:
        self.network, self.channels, self.calls = network, channels, 0

    def __call__(self, kept: Mapping[str, torch.Tensor]) -> tuple[float, float]:
        self.calls += 1
        narrow, whole = cut_network(self.network, self.channels, kept), self.network
        taken = 2 + 18 * cost_of(narrow, images()).macs / cost_of(whole, images()).macs
        return taken, taken / 20


@pytest.mark.parametrize("text", ["ms=10", "ms=4", "ms=40%", "ms=90%"])
def test_measured_time_is_what_was_asked_for(text: str) -> None:
    network, channels = found(chain(), images())
    scores, clock, said = channel_scores(network, channels, "magnitude"), Clock(network, channels), list[str]()
    target = parse_target(text)
    kept = choose(network, channels, scores, target, images(), clock, said.append)
    taken, share = clock(kept)
    assert (share if target.share else taken) == pytest.approx(target.value, rel=0.1)
    assert clock.calls <= 12
    assert len(said) == clock.calls - 1


@pytest.mark.parametrize(("text", "match"), [
    ("ms=2", "target ms=2 is out of reach: with one channel in every group it is 2.0"),
    ("ms=20", "is met by the whole network, which has 20 ms"),
    ("ms=9%", "target ms=9% (0.09) is out of reach"),
    ("parameters=10", "out of reach: with one channel in every group it is"),
    ("bytes=1M", "is met by the whole network"),
])  # fmt: skip
def test_what_cannot_be_met_says_the_least_possible(text: str, match: str) -> None:
    network, channels = found(chain(), images())
    scores = channel_scores(network, channels, "magnitude")
    with pytest.raises(ChannelError, match=re.escape(match)):
        choose(network, channels, scores, parse_target(text), images(), Clock(network, channels))


def test_densities_are_shares_of_every_group() -> None:
    network, channels = found(chain(), images())
    scores = channel_scores(network, channels, "magnitude")
    kept = choose(network, channels, scores, 0.1, images())
    assert {name: int(mask.sum()) for name, mask in kept.items()} == {"0": 2, "2": 3}
    for density, match in ((0.0, "more than 0"), (1.5, "at most 1"), (1.0, "keeps every channel")):
        with pytest.raises(ChannelError, match=match):
            choose(network, channels, scores, density, images())
    narrowest = min(channels.groups, key=lambda group: group.width)
    least = -(-5000 // narrowest.width) / 1e4
    match = (
        f"leaves {narrowest.name}, which has {narrowest.width} channels, without one; the least possible is {least:g}"
    )
    with pytest.raises(ChannelError, match=re.escape(match)):
        choose(network, channels, scores, least - 1e-4, images())
    kept = choose(network, channels, scores, least, images())
    assert int(kept[narrowest.name].sum()) == 1
    with pytest.raises(ChannelError, match="give a clock"):
        choose(network, channels, scores, parse_target("ms=3"), images())


def test_targets_are_read_and_refused() -> None:
    assert parse_target(" macs = 1.5G ") == Target("macs", 1.5e9, False)
    assert str(parse_target("ms=40%")) == "ms=40%"
    assert parse_target("parameters=300k").slug == "parameters300000"
    assert parse_target("ms=40%").slug == "ms40pc"
    for text in ("10", "ms", "ms=", "ms=0", "ms=-3", "ms=100%", "flops=3", "ms=10 s", "bytes=2T"):
        with pytest.raises(ChannelError, match="target"):
            parse_target(text)
