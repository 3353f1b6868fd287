"""Every built-in pair, cut: what is rebuilt from its description computes what zeros in its channels' place would."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from channel_networks import PAIRS, found, settled, some_of

from gancompress.architecture.description import Architecture, shapes_of
from gancompress.backbones.base import blank_inputs
from gancompress.backbones.spectral import settle
from gancompress.channels.cut import cut_state, verify
from gancompress.channels.module import written_out
from gancompress.components.registry import BACKBONES
from gancompress.data.base import ImageSpec

if TYPE_CHECKING:
    from gancompress.sparsity.state import Role

CASES = [
    pytest.param(name, role, marks=[pytest.mark.slow] if name.startswith(("biggan", "projected")) else [])
    for name in PAIRS
    for role in ("generator", "discriminator")
    if (name, role) != ("projected", "discriminator")  # whole channels of frozen layers would go as well
]


def test_every_built_in_backbone_is_here() -> None:
    assert {backbone for backbone, *_ in PAIRS.values()} == {*BACKBONES.builtin_names()}


@pytest.mark.parametrize(("name", "role"), CASES)
def test_a_cut_network_computes_what_zeros_do(name: str, role: Role) -> None:
    backbone, config, size, counts = PAIRS[name]
    kind: Any = BACKBONES.get(backbone)
    torch.manual_seed(0)
    made = kind(kind.Config(**config), ImageSpec(3, size, ("a", "b", "c")))
    architecture = Architecture.of(backbone, made)
    whole = settled(getattr(architecture, role)())
    settle(whole)
    x, labels = blank_inputs(whole, 2)
    inputs = (torch.randn(x.shape), *(() if labels is None else (torch.tensor([2, 0]),)))
    network, channels = found(whole, inputs)
    assert len(channels.groups) == counts[role]
    features = (name, role) == ("r3gan", "discriminator")  # its last layer makes what is held against the class
    if name == "stylegan2":
        counted = {"blocks.1.second", "blocks.1.skip"} if role == "discriminator" else {"first.conv", "ups.1.style"}
        assert counted <= {*channels.whole}
    elif (name, role) == ("fastgan", "discriminator"):
        assert [*channels.whole] == ["output", "small_output"]
    else:
        assert [*channels.whole] == ([] if features else ["output"])
    for density in (0.75, 0.5, 0.1, 0.37):
        kept = some_of(channels, density, seed=int(100 * density))
        state = cut_state(whole, channels.indices(kept))
        description = dataclasses.replace(architecture, shapes={role: {n: tuple(t.shape) for n, t in state.items()}})
        narrow = getattr(Architecture.from_json(description.to_json()), role)()
        narrow.load_state_dict(state)
        assert shapes_of(narrow) == description.shapes[role]
        verify(network, narrow.eval(), channels, kept, inputs, written_out(narrow).state_dict())
