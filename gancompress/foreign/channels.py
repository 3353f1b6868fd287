"""Whole channels of a network from elsewhere taken away, and what reads the others refitted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from gancompress.backbones.base import prunable_weights
from gancompress.channels.cut import cut_network, verify, zeroed
from gancompress.channels.groups import find_channels
from gancompress.channels.scores import channel_scores
from gancompress.channels.target import Clock, Timer, choose, parse_target
from gancompress.errors import RecipeError
from gancompress.foreign.calibration import typical_inputs
from gancompress.graphs.build import CapturedModule
from gancompress.lowering.network import SparseNetwork
from gancompress.reconstruct.norms import estimate_norms
from gancompress.reconstruct.prune import refit_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from gancompress.channels.groups import Channels
    from gancompress.foreign.calibration import Inputs

__all__ = ["ChannelOptions", "cut"]

#: size of the input that channels are found by, and of that whose cost counts, along every axis that is open
_SMALL, _COUNTED = 24, 128


@dataclasses.dataclass(frozen=True)
class ChannelOptions:
    """What is asked of method ``channels`` beside a density.

    Attributes:
        target: what the network may cost, in place of the density: ``ms=10``, ``macs=40%``, ``parameters=300k``.
        importance: how channels are ranked; None takes ``outputs`` with calibration inputs, ``magnitude`` without.
        timer: measures milliseconds.
    """

    target: str | None = None
    importance: str | None = None
    timer: Timer | None = None

    def check(self, method: str, pattern: object) -> None:
        """Refuse what does not go together.

        Raises:
            GancompressError: options of another method, or a pattern of single weights for channels.
        """
        if method != "channels":
            if given := [key for key in ("target", "importance") if getattr(self, key)]:
                raise RecipeError(f"{given[0]} is for method channels, not {method}")
        elif pattern is not None:
            raise RecipeError(f"method channels keeps whole channels, which leaves no pattern {pattern} to keep")
        if self.target is not None:
            parse_target(self.target)

    @property
    def settings(self) -> tuple[str, ...]:
        """As part of a distillation's fingerprint."""
        return tuple(f"{key}={value}" for key in ("target", "importance") if (value := getattr(self, key)))


def cut(
    network: CapturedModule,
    density: float,
    pieces: Sequence[Inputs],
    options: ChannelOptions,
    seed: int,
    known: Mapping[str, Tensor] | None,
    say: Callable[[str], None],
) -> tuple[CapturedModule, Mapping[str, Tensor]]:
    """Return a network without some of its channels, and which it keeps, bool (width,), by the names of groups.

    Args:
        network: the whole one, left as it is.
        density: share of channels to keep, without a target.
        pieces: calibration inputs; empty where there are none.
        options: what else is asked.
        seed: of what is looked at.
        known: channels that were chosen before; nothing is refitted then.
        say: told what is being done.

    Raises:
        ChannelError: nothing can be cut, or not so far.
    """
    say("finding the channels that go together")
    graph = network.captured
    example = typical_inputs(graph, _SMALL)
    channels = find_channels(network, example)
    if known is not None:
        return cut_network(network, channels, known), known
    importance = options.importance or ("outputs" if pieces else "magnitude")
    scores = channel_scores(network, channels, importance, pieces, seed=seed)
    wanted = density if options.target is None else parse_target(options.target)
    counted = typical_inputs(graph, _COUNTED)
    clock = None if options.timer is None else _clock(options.timer, network, channels, counted)
    kept = choose(network, channels, scores, wanted, counted, clock, say)
    narrow = cut_network(network, channels, kept)
    verify(network, narrow, channels, kept, example, narrow.state_dict())
    if pieces:
        say("refitting what reads the channels that are left")
        own = CapturedModule(graph, {name: one.clone() for name, one in network.state_dict().items()})
        ones = {name: torch.ones_like(one.parameter) for name, one in prunable_weights(own).items()}
        masks = {name: one.bool() for name, one in zeroed(ones, channels.indices(kept)).items()}
        refit_layers(own, pieces, masks, seed=seed)
        if estimate_norms(own, network, pieces):
            say("statistics of batch norms estimated anew")
        narrow = cut_network(own, channels, kept)
    for group in channels.groups:
        say(f"{group.name}: {int(kept[group.name].sum())} of {group.width} channels kept")
    return narrow, kept


def _clock(timer: Timer, network: CapturedModule, channels: Channels, inputs: tuple[Tensor, ...]) -> Clock:
    """Return what times a narrow network as its file will run."""

    def clock(kept: Mapping[str, Tensor]) -> tuple[float, float]:
        narrow = cut_network(network, channels, kept)
        masks = {name: torch.ones_like(one.parameter).bool() for name, one in prunable_weights(narrow).items()}
        return timer(network, SparseNetwork(narrow, masks), inputs)

    return clock
