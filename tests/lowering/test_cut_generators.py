"""Networks of the shapes that people publish, without some of their channels: their graphs say the new sizes."""

from __future__ import annotations

import pytest
import torch
from foreign_generators import GENERATORS

from gancompress.channels.cut import cut_network, verify
from gancompress.channels.groups import find_channels
from gancompress.foreign.network import capture_module
from gancompress.graphs.build import build
from gancompress.graphs.graph import Graph

#: groups, and layers that stay whole because something counts their channels; the last layer always does
FOUND = {"DCGAN": (3, 0), "pix2pix": (7, 0), "CycleGAN": (5, 0), "SNGAN": (5, 0), "RRDB": (7, 0), "SRVGG": (4, 0),
         "HiFi-GAN": (11, 0), "grouped": (1, 2)}  # fmt: skip


@pytest.mark.parametrize("name", GENERATORS)
def test_a_cut_network_computes_what_zeros_do(name: str) -> None:
    make, shape, dynamic, other = GENERATORS[name]
    torch.manual_seed(3)
    module = make().eval()
    for tensor in [*module.buffers()]:
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    network, x = capture_module(module, [torch.randn(shape)], [dynamic]), torch.randn(other)
    channels = find_channels(network, (torch.randn(shape),))
    assert (len(channels.groups), len(channels.whole) - 1) == FOUND[name]
    for number, count in enumerate(([1], [3], [0, 2, 3])):
        kept = {group.name: torch.isin(torch.arange(group.width) % 4, torch.tensor(count)) for group in channels.groups}
        narrow = cut_network(network, channels, kept)
        state = narrow.state_dict()
        graph = Graph.from_json(narrow.captured.to_json())
        again = build(graph, {key: state[key] for key in graph.tensors}, {"n": 2, "h": 12, "w": 16, "t": 12})
        verify(network, again if number else narrow, channels, kept, (x,), state)
