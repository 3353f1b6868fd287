from __future__ import annotations

from pathlib import Path

import gancompress_r3gan
import pytest
import torch
from gancompress_r3gan import R3GAN, R3GANConfig, ResidualBlock, resample

from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError
from gancompress.recipe.load import load_recipe
from gancompress.testing import Check, checks

#: two groups in every block
SMALL = {"channels": 8, "group_width": 8, "blocks": 1, "latent_dim": 8, "embedding": 4}


@pytest.mark.parametrize("check", checks(R3GAN, SMALL), ids=str)
def test_conformance(check: Check) -> None:
    check()


def test_resampling_is_bilinear() -> None:
    dot = torch.zeros(1, 1, 3, 3)
    dot[0, 0, 1, 1] = 4.0
    assert resample(dot, up=True)[0, 0].tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 2, 1, 0, 0],
        [0, 2, 4, 2, 0, 0],
        [0, 1, 2, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    flat = torch.ones(1, 2, 8, 8)
    assert resample(flat, up=False)[:, :, 1:, 1:].unique().tolist() == [1.0]


def test_a_block_starts_as_the_identity_and_mixes_within_its_groups() -> None:
    block = ResidualBlock(8, 8, depth=4)
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x), x)
    assert block.mix.groups == 2
    assert tuple(block.mix.weight.shape) == (16, 8, 3, 3)


def test_the_published_cifar_networks_have_their_shapes() -> None:
    config = R3GANConfig(channels=768, conditional=True)
    with torch.device("meta"):
        generator = R3GAN(config, ImageSpec(3, 32, tuple("abcdefghij"))).generator()
    blocks = [module for module in generator.modules() if isinstance(module, ResidualBlock)]
    # two at each of 4, 8, 16 and 32 pixels; the 3x3 in the middle: 1536 channels in 96 groups
    assert len(blocks) == 8
    assert {block.mix.groups for block in blocks} == {96}
    assert {tuple(block.mix.weight.shape) for block in blocks} == {(1536, 16, 3, 3)}


def test_a_width_that_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"channels=12 cannot be split: .* multiple of 8 \(--set model.channels="):
        R3GAN(R3GANConfig(channels=12), ImageSpec(3, 32))


def test_its_recipe_is_one() -> None:
    if "r3gan-plugin" not in BACKBONES:  # not installed yet
        BACKBONES.register("r3gan-plugin", R3GAN)
    loaded = load_recipe(Path(gancompress_r3gan.__file__).parent / "recipes" / "r3gan_digits.yaml")
    assert loaded.recipe.model.name == "r3gan-plugin"
    assert loaded.recipe.objective.loss.name == "relativistic"
