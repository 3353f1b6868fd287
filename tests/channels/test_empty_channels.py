"""Channels that nothing depends on: found where they are by hand, and gone without a trace from every backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from channel_networks import PAIRS, Attending, Conditioned, found, grouped, images, latents, normed, settled, shuffled
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress.backbones.base import blank_inputs, prunable_weights
from gancompress.channels.empty import Empty, empty_channels, prunable_groups
from gancompress.channels.module import written_out
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.graphs.build import CapturedModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.sparsity.state import Role


def emptied(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, list[int]]:
    """Take the empty channels away, compare the outputs, and return which went."""
    network, channels = found(module, inputs)
    empty = empty_channels(network, channels, inputs)
    equal(empty, network, inputs)
    return {name: (~kept).nonzero().flatten().tolist() for name, kept in empty.kept.items()}


def equal(empty: Empty, network: Any, inputs: Sequence[Tensor]) -> None:
    wanted, got = network(*inputs), empty.cut_network(network)(*inputs)
    assert wanted.shape == got.shape
    assert float((wanted - got).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))


def plain(padding: int = 1, norm: bool = False, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    between = [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), *between, nn.ReLU(), nn.Conv2d(4, 3, 3, padding=padding, bias=bias)
    )


@torch.no_grad()
def test_what_nobody_reads_is_empty_whatever_it_carries() -> None:
    module = plain()
    module[2].weight[:, 2] = 0
    assert emptied(module, images()) == {"0": [2]}


@torch.no_grad()
def test_a_channel_that_is_read_is_not_empty() -> None:
    module = plain()
    module[2].weight[:, 2] = 0
    module[2].weight[1, 2, 0, 0] = 1e-3
    assert emptied(module, images()) == {"0": []}


@torch.no_grad()
def test_what_carries_zero_is_empty_whoever_reads_it() -> None:
    module = plain()
    module[0].weight[1] = 0
    module[0].bias[1] = -0.5  # below the ReLU
    assert emptied(module, images()) == {"0": [1]}


@torch.no_grad()
@pytest.mark.parametrize(("padding", "bias", "goes"), [(1, True, []), (0, True, [1]), (0, False, [])])
def test_a_constant_goes_where_a_bias_takes_it_in_and_no_border_is_seen(
    padding: int, bias: bool, goes: list[int]
) -> None:
    module = plain(padding=padding, bias=bias)
    module[0].weight[1] = 0
    module[0].bias[1] = 0.5
    network, channels = found(module, images())
    empty = empty_channels(network, channels, images())
    equal(empty, network, images())
    assert (~empty.kept["0"]).nonzero().flatten().tolist() == goes
    if goes:
        torch.testing.assert_close(empty.folded["2.bias"], 0.5 * module[2].weight[:, 1].sum((1, 2)))
    else:
        assert not empty.folded


@torch.no_grad()
@pytest.mark.parametrize(("shift", "goes"), [(-0.1, [3]), (0.1, [])])
def test_the_shift_of_a_norm_decides_what_a_dead_channel_carries(shift: float, goes: list[int]) -> None:
    module = settled(plain(norm=True))
    module[0].weight[3] = 0
    module[0].bias[3] = module[1].running_mean[3] = 0.7
    module[1].bias[3] = shift
    assert emptied(module, images()) == {"0": goes}


@torch.no_grad()
def test_a_norm_that_multiplies_by_zero_makes_a_channel_constant() -> None:
    module = settled(plain(norm=True))
    module[1].weight[0], module[1].bias[0] = 0, -0.2
    assert emptied(module, images()) == {"0": [0]}


@torch.no_grad()
def test_channels_that_only_empty_ones_read_are_empty() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.Conv2d(5, 3, 1))
    module[4].weight[:, [0, 2]] = 0
    module[2].weight[[1, 3, 4], 3] = 0  # its readers are the two that go
    assert emptied(module, images()) == {"0": [3], "2": [0, 2]}


@torch.no_grad()
def test_a_layer_keeps_one_channel_and_what_that_needs() -> None:
    module = plain(padding=0)
    module[2].weight.zero_()
    assert emptied(module, images()) == {"0": [1, 2, 3]}
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1))
    module[0].weight.zero_()
    module[0].bias.fill_(1.0)  # so all of both layers is constant, and a bias could take it in
    assert emptied(module, images()) == {"0": [1, 2, 3], "2": [1]}


class Around(nn.Module):
    """A sum of two branches, one of which carries zeros in some channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False)
        self.out = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        out: Tensor = self.out(F.relu(h + self.second(F.relu(h))))
        return out


@torch.no_grad()
def test_a_channel_that_goes_around_a_layer_is_not_empty() -> None:
    torch.manual_seed(0)
    module = Around()
    module.second.weight[2] = 0
    module.second.weight[:, 1] = 0
    assert emptied(module, images()) == {"first": []}
    module.out.weight[:, 1] = 0
    assert emptied(module, images()) == {"first": [1]}


@torch.no_grad()
@pytest.mark.parametrize("factor", ["query", "key"])
def test_attention_loses_the_products_that_are_zero(factor: str) -> None:
    module = settled(Attending())
    getattr(module.attention, factor).parametrizations.weight.original[0] = 0
    module.attention.merge.parametrizations.weight.original[:, 5] = 0
    assert emptied(module, images()) == {"first": [], "attention.query": [0], "attention.value": [5]}


NETWORKS = {
    "normed": (normed, latents), "shuffled": (shuffled, images), "grouped": (grouped, images),
    "conditioned": (Conditioned, lambda: (*latents(), torch.tensor([1, 3]))),
}  # fmt: skip


@torch.no_grad()
def lost_to_masks(module: nn.Module, inputs: Sequence[Tensor], densities: Sequence[float]) -> int:
    """Mask weights at random, and in some layers whole rows and columns; return how many channels went, in equality."""
    network, channels = found(module, inputs)
    rng, gone = torch.Generator().manual_seed(0), 0
    for density in densities:
        masked = CapturedModule(network.captured, {name: one.clone() for name, one in network.state_dict().items()})
        for weight in prunable_weights(masked).values():
            own = weight.parameter
            own[torch.rand(own.shape, generator=rng) > density] = 0
            for axis in (0, 1):
                lost = torch.rand(own.shape[axis], generator=rng) < 0.2
                if int(lost.sum()) < own.shape[axis]:
                    own.movedim(axis, 0)[lost] = 0
        empty = empty_channels(masked, channels, inputs)
        equal(empty, masked, inputs)
        gone += empty.count
    return gone


@pytest.mark.parametrize("name", NETWORKS)
def test_random_masks_leave_networks_that_compute_the_same(name: str) -> None:
    make, inputs = NETWORKS[name]
    torch.manual_seed(0)
    assert lost_to_masks(settled(make()), inputs(), (0.5, 0.3, 0.1, 0.1, 0.05)) > 3


@pytest.mark.parametrize(
    ("name", "role"),
    [
        pytest.param(name, role, marks=[pytest.mark.slow] if name.startswith("biggan") else [])
        for name in PAIRS for role in ("generator", "discriminator")
    ],
)  # fmt: skip
def test_random_masks_leave_backbones_that_compute_the_same(name: str, role: Role) -> None:
    assert lost_to_masks(*backbone(name, role), (0.5, 0.3, 0.1)) > 3


def backbone(name: str, role: Role) -> tuple[Any, tuple[Tensor, ...]]:
    registered, config, size, _ = PAIRS[name]
    kind: Any = BACKBONES.get(registered)
    torch.manual_seed(0)
    network = settled(getattr(kind(kind.Config(**config), ImageSpec(3, size, ("a", "b", "c"))), role)())
    x, labels = blank_inputs(network, 2)
    return network, (torch.randn(x.shape), *(() if labels is None else (torch.tensor([2, 0]),)))


def test_few_channels_are_empty_after_random_single_weights() -> None:
    network, inputs = backbone("sngan", "generator")
    plain = written_out(network)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in prunable_weights(plain).values():
            weight.parameter[torch.rand(weight.parameter.shape, generator=rng) > 0.2] = 0
    assert sum(map(len, emptied(plain, inputs).values())) == 0


def test_the_groups_that_masks_can_empty() -> None:
    network, inputs = backbone("dcgan", "discriminator")
    graph, channels = found(network, inputs)
    names = {*prunable_weights(network)}
    assert {group.name for group in channels.groups} == {"convs.0", "convs.1"}
    # the last features are multiplied by embeddings, which no mask is held on
    assert [group.name for group in prunable_groups(graph, channels, names, inputs)] == ["convs.0"]
    assert [group.name for group in prunable_groups(graph, channels, {"convs.1.weight"}, inputs)] == ["convs.0"]
    assert prunable_groups(graph, channels, {"convs.0.weight"}, inputs) == []
