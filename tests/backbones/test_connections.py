"""Whether masks leave a path through a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.connections import passes_through
from gancompress.data.base import ImageSpec
from gancompress.experiment.networks import Networks, build_backbone, build_networks
from gancompress.recipe.load import parse_recipe


def networks(resolution: int = 32, **model: Any) -> Networks:
    recipe = parse_recipe({"name": "x", "data": "shapes", "model": model, "training": {"steps": 1}}).recipe
    return build_networks(build_backbone(recipe, ImageSpec(3, resolution, ("a", "b"))), 0)


def masks_without(network: Any, *empty: str) -> dict[str, torch.Tensor]:
    """Empty some layers of a network in place, and return its masks."""
    weights = prunable_weights(network)
    with torch.no_grad():
        for name in empty:
            weights[name].parameter.zero_()
    return {name: torch.full(one.parameter.shape, name not in empty) for name, one in weights.items()}


@pytest.mark.parametrize("role", ["generator", "discriminator"])
def test_every_layer_of_a_chain_is_needed(role: Any) -> None:
    names = list(prunable_weights(networks(name="dcgan", channels=4).of(role)))
    assert len(names) > 3
    for name in names:
        network = networks(name="dcgan", channels=4).of(role)
        assert passes_through(network, masks_without(network))
        assert not passes_through(network, masks_without(network, name)), name


def test_a_path_leads_around_a_layer_of_a_residual_block_unless_its_shortcut_is_empty_too() -> None:
    network = networks(name="sngan", channels=8).discriminator
    names = list(prunable_weights(network))
    block = [name for name in names if name.startswith("blocks.1.")]
    shortcut = [name for name in block if "shortcut" in name]
    inner = [name for name in block if "shortcut" not in name]
    assert shortcut
    assert inner
    assert passes_through(network, masks_without(network, *inner))
    assert not passes_through(network, masks_without(network, *block))


@pytest.mark.parametrize("model", ["dcgan", "sngan", "biggan"])
def test_an_output_layer_that_starts_at_zero_is_no_empty_one(model: str) -> None:
    built = networks(name=model, channels=8)
    for network in (built.generator, built.discriminator):
        output = next(one for one in prunable_weights(network).values() if one.output)
        torch.nn.init.zeros_(output.parameter)
        masks = masks_without(network)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        assert passes_through(network, masks)
        # a projection discriminator's classes look at its features without the output layer
        around = model == "biggan" and network is built.discriminator
        assert passes_through(network, {**masks, output.name: torch.zeros_like(masks[output.name])}) == around
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_kept_weights_that_do_not_meet_lead_nowhere() -> None:
    network = networks(name="dcgan", channels=4).generator
    masks = masks_without(network)
    first, second = [name for name in masks if name.startswith("convs.")][:2]
    masks[first][:, 1:] = False  # a transposed convolution: this leaves output channel 0
    masks[second][0] = False  # and this reads every channel but that
    with torch.no_grad():
        for name in (first, second):
            prunable_weights(network)[name].parameter.mul_(masks[name])
    assert not passes_through(network, masks)
    masks[second][0, 0, 0, 0] = True
    assert passes_through(network, masks)
