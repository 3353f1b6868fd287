"""2:4 layers as products of matrices: what they compute, in which order they store, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gancompress.backbones.sngan import SNGAN
from gancompress.data.base import ImageSpec
from gancompress.kernels.semi_structured import keeps_two_of_four, semi_structured, two_of_four


def stored(matrix: Tensor) -> Tensor:
    """Stand in for torch's own storage, which only a GPU has: what it would be given must be in two of four."""
    assert matrix.ndim == 2
    assert matrix.is_contiguous()
    assert bool(((matrix != 0).unflatten(1, (-1, 4)).sum(2) <= 2).all())
    return matrix


@torch.no_grad()
def halve(layer: nn.Module) -> None:
    """Keep the two largest of every four consecutive inputs."""
    weight: Any = layer.weight
    weight.copy_(two_of_four(weight))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(64, 32),
        nn.Linear(128, 64, bias=False),
        nn.Conv2d(64, 32, 3, padding=1),
        nn.Conv2d(64, 32, (3, 2), stride=(2, 1), padding=(0, 2), bias=False),
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(64, 32, 4, stride=2, padding=1),
    ],
    ids=str,
)
def test_a_layer_computes_what_it_did(layer: nn.Module) -> None:
    halve(layer)
    fast, left = semi_structured(nn.Sequential(layer), stored)
    assert left == {}
    x = torch.randn((3, layer.in_features) if isinstance(layer, nn.Linear) else (3, layer.in_channels, 7, 10))  # type: ignore[arg-type]
    torch.testing.assert_close(fast(x), layer(x), atol=1e-5, rtol=1e-5)
    assert not any(one is layer for one in fast.modules())


def test_the_two_largest_of_four_inputs_are_kept_at_every_position() -> None:
    weight = torch.tensor([[1.0, -4, 3, 2, -1, 0, -2, 5], [9, 8, 7, 6, 1, 2, 3, 4]])
    wanted = torch.tensor([[0.0, -4, 3, 0, 0, 0, -2, 5], [9, 8, 0, 0, 0, 0, 3, 4]])
    assert two_of_four(weight).equal(wanted)
    assert two_of_four(weight.view(2, 8, 1, 1)).equal(wanted.view(2, 8, 1, 1))
    assert two_of_four(torch.stack([weight, weight.flip(1)], -1)).equal(torch.stack([wanted, wanted.flip(1)], -1))


def test_two_of_four_is_counted_along_the_inputs_at_every_position() -> None:
    weight = torch.zeros(1, 8, 1, 2)
    weight[0, [0, 3, 4, 5], 0, 0] = 1
    weight[0, [1, 2], 0, 1] = 1
    assert keeps_two_of_four(weight)
    weight[0, 6, 0, 1] = 1
    assert keeps_two_of_four(weight)
    weight[0, 0, 0, 1] = 1  # the third of its four
    assert not keeps_two_of_four(weight)
    assert keeps_two_of_four(torch.ones(1, 6)[:, :2])
    assert not keeps_two_of_four(torch.ones(1, 7)[:, :7])
    assert keeps_two_of_four(torch.tensor([[1.0, 1, 0, 0, 1, 1]]))


def test_a_whole_generator_keeps_its_images_and_says_what_stays() -> None:
    torch.manual_seed(0)
    backbone = SNGAN(SNGAN.Config(channels=64, conditional=False), ImageSpec(3, 32))
    generator = backbone.generator().eval()
    convolutions = [name for name, one in generator.named_modules() if isinstance(one, nn.Conv2d)]
    for name in convolutions[:-1]:
        halve(generator.get_submodule(name))
    fast, left = semi_structured(generator, stored)
    z = torch.randn(2, generator.latent_dim)
    torch.testing.assert_close(fast(z, None), generator(z, None), atol=1e-5, rtol=1e-4)
    linear = next(name for name, one in generator.named_modules() if isinstance(one, nn.Linear))
    assert left == dict.fromkeys((linear, convolutions[-1]), "keeps more than two of four inputs")
    assert sum(isinstance(one, nn.Conv2d) for one in generator.modules()) == len(convolutions)  # a copy was changed


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(64, 32, 3, groups=2), "has groups"),
        (nn.Conv2d(64, 32, 3, dilation=2), "is dilated"),
        (nn.Conv2d(64, 32, 3, padding=1, padding_mode="reflect"), "another border than zeros"),
        (nn.Conv2d(64, 32, 3, padding="same"), "another border than zeros"),
        (nn.Conv2d(64, 3, 3), "is 3 by 576, which 32 by 64 do not divide"),
        (nn.Linear(66, 32), "is 32 by 66"),
        (nn.ConvTranspose2d(64, 32, 4), "transposed"),
        (Doubled(64, 32), "in a way of its own"),
        (spectral_norm(nn.Linear(64, 32)), "merge its norm first"),
    ],
)
def test_what_cannot_be_run_so_is_named(layer: nn.Module, reason: str) -> None:
    weight: Any = layer.weight
    with torch.no_grad():
        weight.zero_()
    with pytest.raises(ValueError, match=reason):
        semi_structured(nn.Sequential(layer), stored)


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="no layers with weights"):
        semi_structured(nn.ReLU(), stored)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_it_on_its_own_units() -> None:
    layer = nn.Conv2d(64, 64, 3, padding=1).cuda().bfloat16()
    halve(layer)
    fast, left = semi_structured(nn.Sequential(layer))
    x = torch.randn(8, 64, 16, 16, device="cuda", dtype=torch.bfloat16)
    assert left == {}
    torch.testing.assert_close(fast(x).float(), layer(x).float(), atol=0.02, rtol=0.02)
