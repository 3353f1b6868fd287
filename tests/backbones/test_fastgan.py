"""FastGAN: counts of the published networks, layer by layer, and skip-layer excitation by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.fastgan import Excitation, FastGAN, FastGANConfig, Noise, UpStage, gated
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError


def built(resolution: int, **settings: object) -> tuple[nn.Module, nn.Module]:
    with torch.device("meta"):
        backbone = FastGAN(FastGANConfig(**settings), ImageSpec(3, resolution))
        return backbone.generator(), backbone.discriminator()


def weights(network: nn.Module) -> int:
    return sum(weight.parameter.numel() for weight in prunable_weights(network).values())


#: channels of the generator's maps as published, of 4, 8, … 1024 pixels
MAPS = [1024, 512, 256, 128, 128, 64, 32, 16, 8]


def published_generator(stages: int) -> int:
    """Weights of convolutions up to a map of ``4 << stages`` pixels, but for the one that makes 128 pixels."""
    count = 256 * 2 * MAPS[0] * 16
    for index in range(stages):
        before, after = MAPS[index], MAPS[index + 1]
        count += before * 2 * after * 9
        if index % 2 == 0:
            count += after * 2 * after * 9
    # maps of 64, 128, 256 and 512 pixels are gated by those of 4, 8, 16 and 32
    for high, low in ((4, 0), (5, 1), (6, 2), (7, 3)):
        if high <= stages:
            count += MAPS[low] * MAPS[high] * 16 + MAPS[high] ** 2
    return count + MAPS[stages] * 3 * 9


@pytest.mark.parametrize(("resolution", "stages", "total"), [(256, 6, 29_116_256), (1024, 8, 29_164_760)])
def test_the_generator_has_as_many_weights_as_published(resolution: int, stages: int, total: int) -> None:
    generator, _ = built(resolution)
    assert weights(generator) == published_generator(stages) == total
    # gains and biases of batch norms, and a strength for each of six or eight noises
    norms = 2 * (2 * MAPS[0] + sum(2 * MAPS[i + 1] * (2 if i % 2 == 0 else 1) for i in range(stages)))
    deep = 2 * ((stages + 1) // 2)
    assert sum(p.numel() for p in generator.parameters()) == total + norms + deep


def test_the_discriminator_has_as_many_weights_as_published() -> None:
    # 256 pixels: maps of 256 to 8 pixels, gates of 32, 16 and 8, and the small side of 64 to 8
    maps = [16, 32, 64, 128, 256, 512]
    large = 3 * 16 * 9 + sum(a * b * 16 + b * b * 9 + a * b for a, b in pairwise(maps))
    gates = sum(a * b * 16 + b * b for a, b in ((16, 128), (32, 256), (64, 512)))
    head = 512 * 256 + 256 * 16
    small = 3 * 32 * 16 + sum(a * b * 16 for a, b in ((32, 64), (64, 128), (128, 256))) + 256 * 16
    _, discriminator = built(256)
    assert weights(discriminator) == large + gates + head + small == 7_972_272
    _, largest = built(1024)
    # two convolutions of 4x4 in place of one of 3x3
    assert weights(largest) == 7_972_272 - 3 * 16 * 9 + 3 * 8 * 16 + 8 * 16 * 16


def test_excitation_by_hand() -> None:
    block = Excitation(2, 3, 8).eval()
    low, high = torch.rand(2, 2, 8, 8), torch.rand(2, 3, 64, 64)
    pooled = low.view(2, 2, 4, 2, 4, 2).mean((3, 5))
    squeezed = torch.einsum("bcij,ocij->bo", pooled, block.squeeze.weight)
    gate = torch.sigmoid((squeezed * torch.sigmoid(squeezed)) @ block.excite.weight[:, :, 0, 0].t())
    assert torch.allclose(block(low, high), high * gate[:, :, None, None], atol=1e-6)


def test_a_gate_is_half_of_the_channels() -> None:
    x = torch.randn(2, 6, 4, 4)
    assert torch.allclose(gated(x), F.glu(x, 1))


def test_noise_is_drawn_while_training_and_constant_after_it() -> None:
    noise, x = Noise(4), torch.zeros(3, 2, 4, 4)
    assert torch.equal(noise(x), x)  # a strength of 0
    with torch.no_grad():
        noise.strength.fill_(2)
    torch.manual_seed(0)
    one, other = noise(x), noise(x)
    assert not torch.equal(one, other)
    assert torch.equal(one[:, 0], one[:, 1])
    torch.manual_seed(0)
    assert torch.equal(noise(x), one)
    noise.eval()
    assert torch.equal(noise(x)[0, 0], 2 * noise.noise)


def test_every_second_stage_is_deep() -> None:
    generator, _ = built(256)
    deep = [stage.second is not None for stage in generator.stages]
    assert deep == [True, False, True, False, True, False]
    assert all(isinstance(stage, UpStage) for stage in generator.stages)
    assert [*generator.gates] == ["64", "128", "256"]


def test_a_width_that_large_maps_cannot_split_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"channels=12 cannot be split: .*--set model\.channels=16"):
        FastGAN(FastGANConfig(channels=12), ImageSpec(3, 1024))
