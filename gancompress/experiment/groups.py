"""Groups of channels of a network that is about to be trained, as methods see them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from gancompress.backbones.base import blank_inputs
from gancompress.channels.empty import prunable_groups
from gancompress.channels.groups import find_channels
from gancompress.channels.module import read_module
from gancompress.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Collection

    from gancompress.architecture.description import Architecture
    from gancompress.backbones.base import Discriminator, Generator
    from gancompress.channels.groups import ChannelGroup
    from gancompress.sparsity.state import Name

__all__ = ["channel_groups"]


#: what was found, by all that it depends on: reading a network takes seconds, and runs of a comparison share theirs
_FOUND: dict[str, tuple[ChannelGroup, ...]] = {}


def channel_groups(
    architecture: Architecture, role: Name, network: Generator | Discriminator, masked: Collection[str]
) -> tuple[ChannelGroup, ...]:
    """Return the groups of a network whose channels masks can empty; none where it has no channels to cut.

    Args:
        architecture: of the network.
        role: what the network is called.
        network: left as it is; neither its buffers nor a random state move.
        masked: names of the weights that masks are held on.
    """
    key = json.dumps([architecture.to_json(), role, sorted(masked)], sort_keys=True)
    if key not in _FOUND:
        _FOUND[key] = _found(network, masked)
    return _FOUND[key]


def _found(network: Generator | Discriminator, masked: Collection[str]) -> tuple[ChannelGroup, ...]:
    inputs = [one for one in blank_inputs(network, 2) if one is not None]
    with torch.random.fork_rng(devices=[]):
        graph = read_module(network, inputs)
        try:
            channels = find_channels(graph, inputs)
        except ChannelError:
            return ()
        return tuple(prunable_groups(graph, channels, masked, inputs))
