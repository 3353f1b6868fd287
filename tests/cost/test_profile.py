from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gancompress.backbones.dcgan import DCGAN, DCGANConfig
from gancompress.backbones.layers import LinearToMap, spectral
from gancompress.backbones.sngan import SNGAN, SNGANConfig
from gancompress.cost.profile import profile, profile_call, sample_cost
from gancompress.data.base import ImageSpec

CLASSES = tuple("abc")


class ByHand(nn.Module):
    """Every kind of layer, small enough to count on paper."""

    def __init__(self):
        super().__init__()
        self.input = LinearToMap(nn.Linear(5, 4 * 2 * 2), 2)
        self.up = nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = spectral(nn.Conv2d(6, 4, 3, padding=1, groups=2, bias=False))
        self.twice = nn.Conv2d(4, 4, 1)
        self.idle = nn.Linear(3, 3)

    def forward(self, z):
        x = self.norm(self.up(self.input(z)))
        return self.twice(self.twice(self.grouped(x)))


def test_by_hand():
    found = profile_call(ByHand(), torch.zeros(1, 5))
    macs = {layer.name: layer.macs() for layer in found.layers}
    assert macs == {
        "input.linear.weight": 5 * 16,
        "up.weight": 4 * 6 * 16 * 4,  # on the 2x2 input pixels, not on the 4x4 output
        "grouped.weight": 4 * 3 * 9 * 16,  # each output channel reads 3 of 6
        "twice.weight": 2 * 16 * 16,
        "idle.weight": 0,
    }
    assert found.norm == 2 * 6 * 16
    assert found.products == 0
    assert found.other_macs() == 16 + 6 * 16 + 2 * 4 * 16  # biases; the twice-used layer adds its own twice


def test_products_without_weights_are_seen():
    class Attention(nn.Module):
        def forward(self, x):
            return x @ x.transpose(1, 2)

    assert profile_call(Attention(), torch.ones(1, 4, 5)).products == 4 * 4 * 5


def test_rows_of_a_linear_layer_count():
    assert profile_call(nn.Linear(3, 2), torch.ones(1, 7, 3)).weight_macs() == 7 * 6


def test_sngan_known_answers():
    backbone = SNGAN(SNGANConfig(), ImageSpec(3, 32))
    generator, discriminator = profile(backbone.generator()), profile(backbone.discriminator())
    assert generator.weight_macs() == 1_681_129_472
    assert discriminator.weight_macs() == 272_072_832
    assert f"{generator.weight_macs():.4e}" == "1.6811e+09"
    assert f"{discriminator.weight_macs():.3e}" == "2.721e+08"
    # a quarter of the products of three 1x1 shortcuts of the generator and one of the discriminator
    assert generator.weight_macs(counting="executed") == 1_681_129_472 - 3 * 256**2 * (16 + 64 + 256)
    assert discriminator.weight_macs(counting="executed") == 272_072_832 - 3 * 128**2 * 64


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(
    "backbone",
    [
        lambda c: SNGAN(SNGANConfig(channels=16, discriminator_channels=16, conditional=c), ImageSpec(3, 32, CLASSES)),
        lambda c: SNGAN(SNGANConfig(channels=16, discriminator_channels=16, conditional=c), ImageSpec(1, 48, CLASSES)),
        lambda c: DCGAN(DCGANConfig(channels=8, conditional=c), ImageSpec(1, 16, CLASSES)),
        lambda c: DCGAN(DCGANConfig(channels=8, conditional=c), ImageSpec(3, 64, CLASSES)),
    ],
)
def test_executed_macs_agree_with_torch(backbone, conditional):
    made = backbone(conditional)
    for network, shape in ((made.generator(), (128,)), (made.discriminator(), None)):
        sample = (shape or (made.image.channels, made.image.resolution, made.image.resolution),)[0]
        labels = torch.zeros(3, dtype=torch.int64) if conditional else None
        network.eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(3, *sample), labels)
        found = profile(network)
        assert counter.get_total_flops() == 2 * 3 * found.weight_macs(counting="executed")
        assert found.products == 0


class _FromAConstant(nn.Module):
    """Its first layer gets a view of a parameter, as that of StyleGAN2 does."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.layer = nn.Parameter(torch.ones(1, 3)), nn.Linear(3, 5)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(self.start.expand(len(z), -1)) * z[:, :1]


def test_layers_may_read_views_of_parameters():
    network = _FromAConstant()
    assert profile_call(network, torch.zeros(1, 2)).layers[0].macs(counting="executed") == 15
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_looking_changes_nothing():
    network = SNGAN(SNGANConfig(channels=8, discriminator_channels=8), ImageSpec(3, 32)).discriminator().train()
    network.blocks[0].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    profile(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert not network.blocks[0].training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_sparse_macs_from_real_masks():
    found = profile_call(nn.Conv2d(2, 3, 3, padding=1), torch.zeros(1, 2, 8, 8))
    mask = torch.zeros(3, 2, 3, 3, dtype=torch.bool)
    mask.view(-1)[[0, 5, 50]] = True
    cost = sample_cost(found, {"weight": int(mask.sum())})
    assert (cost.dense_macs, cost.macs, cost.other_macs) == (54 * 64, 3 * 64, 3 * 64)
    assert cost.ratio == 3 / 54
    assert cost.to_dict()["flops"] == 2 * cost.macs


@pytest.mark.parametrize("budgets", [{"weight": 7}, {"weight": -1}, {"other": 1}])
def test_impossible_budgets_are_refused(budgets):
    with pytest.raises(ValueError, match="prunable weights"):
        sample_cost(profile_call(nn.Linear(3, 2), torch.zeros(1, 3)), budgets)
