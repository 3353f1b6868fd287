"""Layers cut to described shapes: what a backbone's config cannot say."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from gancompress.architecture.description import Architecture, shapes_of
from gancompress.architecture.resize import resize
from gancompress.backbones.layers import ConditionalBatchNorm2d
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError


def network(a: int, b: int) -> nn.ModuleDict:
    """A stack with a map of ``a`` and one of ``b`` channels, every kind of layer in it."""
    return nn.ModuleDict({
        "linear": nn.Linear(3, a * 4),
        "norm": ConditionalBatchNorm2d(a, 2),
        "up": nn.ConvTranspose2d(a, b, 4, stride=2, padding=1),
        "plain": nn.BatchNorm2d(b),
        "each": nn.Conv2d(b, b, 3, padding=1, groups=b),
        "slope": nn.PReLU(b),
        "conv": parametrizations.spectral_norm(nn.Conv2d(b, 3, 3, padding=1)),
    })  # fmt: skip


def run(net: nn.ModuleDict, z: torch.Tensor) -> torch.Tensor:
    h = net["norm"](net["linear"](z).reshape(len(z), -1, 2, 2), torch.arange(len(z)) % 2)
    out: torch.Tensor = net["conv"](net["slope"](net["each"](net["plain"](net["up"](h)))))
    return out


def test_every_kind_of_layer_is_cut_to_what_a_narrower_network_is() -> None:
    torch.manual_seed(0)
    narrow, wide = network(5, 3), network(8, 6)
    before = wide["up"].weight.detach().clone()
    resize(wide, shapes_of(narrow))
    assert torch.equal(wide["up"].weight, before[:5, :3])  # the first channels stay
    for name in ("linear", "up", "plain", "each", "slope", "conv"):
        assert wide[name].extra_repr() == narrow[name].extra_repr(), name
    wide.load_state_dict(narrow.state_dict())
    z = torch.randn(4, 3)
    torch.testing.assert_close(run(wide.eval(), z), run(narrow.eval(), z))
    run(wide.train(), z).sum().backward()  # spectral norm takes its steps with the new vectors
    assert wide["linear"].weight.grad is not None


def test_equal_shapes_change_nothing() -> None:
    net = network(4, 4)
    before = {name: tensor.data_ptr() for name, tensor in net.state_dict().items()}
    resize(net, shapes_of(net))
    assert {name: tensor.data_ptr() for name, tensor in net.state_dict().items()} == before


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("up.weight", (4, 5, 4, 4), "up.weight is (4, 5, 4, 4), the config gives (4, 4, 4, 4)"),  # no layer grows
        ("up.weight", (4, 4, 3, 4), "ConvTranspose2d cannot be cut"),
        ("up.weight", (4, 4), "ConvTranspose2d cannot be cut"),
        ("up.weight", (0, 4, 4, 4), "cannot be cut"),
        ("raw", (2,), "ModuleDict cannot be cut"),
        ("pairs.weight", (3, 2, 1, 1), "pairs has 2 groups and cannot be cut to 3 rows"),
    ],
)
def test_what_cannot_be_cut_is_one_line(name: str, shape: tuple[int, ...], match: str) -> None:
    net = network(4, 4)
    net.register_parameter("raw", nn.Parameter(torch.zeros(3)))
    net["pairs"] = nn.Conv2d(4, 4, 1, groups=2)
    with pytest.raises(BackboneError, match=re.escape(match)):
        resize(net, {**shapes_of(net), name: shape})


def test_names_that_differ_are_named() -> None:
    net = network(4, 4)
    with pytest.raises(BackboneError, match="tensor more is unknown"):
        resize(net, {**shapes_of(net), "more": (1,)})


def test_a_description_survives_json_and_forged_ones_are_one_line() -> None:
    found = Architecture(
        "dcgan", "gancompress 1", {"channels": 4}, ImageSpec(3, 16, ("a", "b")), {"generator": {"w": (1, 2)}}
    )
    assert Architecture.from_json(found.to_json()) == found
    for content in ({}, {"backbone": "x", "config": 3, "image": {}}, {**found.to_json(), "shapes": {"generator": 3}}):
        with pytest.raises(BackboneError, match="not the description of an architecture"):
            Architecture.from_json(content)
