"""How many channels are kept: a share of every group, or as many as a cost leaves room for."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from gancompress.channels.cut import cut_network
from gancompress.channels.scores import best_channels
from gancompress.errors import ChannelError
from gancompress.graphs.build import CapturedModule
from gancompress.graphs.naming import is_layer
from gancompress.graphs.values import values_of
from gancompress.sparsity.rounding import least_share, nearest_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from gancompress.channels.groups import Channels

__all__ = ["Clock", "Cost", "Target", "Timer", "bytes_of", "choose", "cost_of", "parse_target"]

_KINDS = ("ms", "macs", "parameters", "bytes")
_FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
#: how near a measured time is to what was asked for before no other width is tried, and how many are
_NEAR, _TRIES = 0.03, 9

#: measures the network that keeps these channels: milliseconds of a call, and its share of the whole network's
Clock: TypeAlias = Callable[["Mapping[str, Tensor]"], "tuple[float, float]"]
#: measures two networks in turn on inputs, the whole one and a narrow one, and returns what a clock does
Timer: TypeAlias = Callable[[Callable[..., object], Callable[..., object], "tuple[Tensor, ...]"], "tuple[float, float]"]


@dataclasses.dataclass(frozen=True)
class Target:
    """What a network may cost.

    Attributes:
        kind: ``ms`` of a call, ``macs`` of a call, ``parameters`` or ``bytes``.
        value: how many; a share of the whole network's where ``share`` is set.
        share: whether ``value`` is one.
    """

    kind: str
    value: float
    share: bool

    def __str__(self) -> str:
        return f"{self.kind}={self.value:.0%}" if self.share else f"{self.kind}={self.value:g}"

    @property
    def slug(self) -> str:
        """As part of a file's name."""
        return f"{self.kind}{100 * self.value:g}pc" if self.share else f"{self.kind}{self.value:g}"


def parse_target(text: str) -> Target:
    """Read ``ms=10``, ``macs=40%``, ``parameters=300k`` or ``bytes=2M``.

    Raises:
        ChannelError: it is none.
    """
    found = re.fullmatch(r"\s*([a-z]+)\s*=\s*(\d+(?:\.\d*)?(?:e\d+)?)\s*(%|k|M|G|)\s*", text)
    if found is None or found[1] not in _KINDS or not float(found[2]):
        raise ChannelError(
            f"target {text!r}: give ms, macs, parameters or bytes, as many or a share of the whole network's: "
            "ms=10, ms=40%, macs=1.2G, parameters=300k, bytes=2M"
        )
    if found[3] == "%":
        share = float(found[2]) / 100
        if share >= 1:
            raise ChannelError(f"target {text!r}: a share of the whole network's must be below 100%")
        return Target(found[1], share, True)
    return Target(found[1], float(found[2]) * _FACTORS[found[3]], False)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network costs, counted.

    Attributes:
        macs: multiply-adds of a call, of convolutions and linear layers and products of matrices.
        parameters: numbers in its floating-point tensors, statistics of norms included.
        bytes: of all its tensors.
    """

    macs: int
    parameters: int
    bytes: int


def cost_of(network: CapturedModule, inputs: Sequence[Tensor]) -> Cost:
    """Count what a network costs for inputs of these sizes; it may lie on the meta device."""
    state = network.state_dict()
    tensors = {name: state[name] for name in network.captured.tensors}
    meta = CapturedModule(network.captured, {name: tensor.to("meta") for name, tensor in tensors.items()})
    values = values_of(meta, inputs)
    macs = 0
    for node in network.captured.nodes:
        if is_layer(node):
            weight, given = _tensor(node.args[1], values, tensors), values[node.args[0].name]
            # a weight is used once per place of what it is laid over: of the input where it is transposed
            over = given if "transpose" in node.op else values[node.name]
            macs += over.numel() // over.shape[-1 if "linear" in node.op else 1] * weight.numel()
        elif node.op in ("aten.bmm.default", "aten.mm.default", "aten.matmul.default"):
            macs += values[node.name].numel() * int(_tensor(node.args[0], values, tensors).shape[-1])
    numbers = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    return Cost(macs, sum(tensor.numel() for tensor in numbers), bytes_of(network))


def bytes_of(network: CapturedModule) -> int:
    """Return the bytes of all tensors of a network."""
    state = network.state_dict()
    return sum(state[name].numel() * state[name].element_size() for name in network.captured.tensors)


def _tensor(argument: object, values: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    name = getattr(argument, "name", "")
    return values[name] if name in values else tensors[name]


def choose(
    network: CapturedModule,
    channels: Channels,
    scores: Mapping[str, Tensor],
    wanted: float | Target,
    inputs: Sequence[Tensor],
    clock: Clock | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Tensor]:
    """Return which channels are kept, bool (width,), by the names of groups.

    Args:
        network: the whole one.
        channels: of it.
        scores: of every channel.
        wanted: the share that every group keeps, or what the network may cost.
        inputs: of the call whose cost counts.
        clock: measures milliseconds; needed for them alone.
        say: told what was tried.

    Raises:
        ChannelError: a group would keep no channel, no network with a channel in every group costs so little, or the
            whole one costs no more.
    """
    if not isinstance(wanted, Target):
        if not 0 < wanted <= 1:
            raise ChannelError(f"density must be more than 0 and at most 1, got {wanted:g}")
        narrowest = min(channels.groups, key=lambda group: group.width)
        if not nearest_share(wanted, narrowest.width):
            raise ChannelError(
                f"density {wanted:g} leaves {narrowest.name}, which has {narrowest.width} channels, without one; "
                f"the least possible is {least_share(narrowest.width):g}"
            )
        if all(
            kept == group.width for group, kept in zip(channels.groups, channels.widths(wanted).values(), strict=True)
        ):
            raise ChannelError(f"density {wanted:g} keeps every channel: the widest group has {_widest(channels)}")
        return best_channels(scores, channels.widths(wanted))
    if wanted.kind == "ms":
        if clock is None:
            raise ChannelError("milliseconds are measured: give a clock")
        return _by_clock(channels, scores, wanted, clock, say)
    return _by_count(network, channels, scores, wanted, inputs)


def _widest(channels: Channels) -> int:
    return max(group.width for group in channels.groups)


def _by_count(
    network: CapturedModule,
    channels: Channels,
    scores: Mapping[str, Tensor],
    target: Target,
    inputs: Sequence[Tensor],
) -> dict[str, Tensor]:
    """Keep as many as possible by bisection: what is counted never falls with density."""
    whole = CapturedModule(network.captured, {name: one.to("meta") for name, one in network.state_dict().items()})
    counted = getattr(cost_of(whole, inputs), target.kind)
    limit = target.value * counted if target.share else target.value

    def cost(density: float) -> int:
        kept = best_channels(scores, channels.widths(density))
        return int(getattr(cost_of(cut_network(whole, channels, kept), inputs), target.kind))

    least = cost(0.0)
    _possible(target, least, limit, counted, "")
    low, high = 0.0, 1.0
    while high - low > 0.5 / _widest(channels):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= limit else (low, middle)
    return best_channels(scores, channels.widths(low))


def _possible(target: Target, least: float, limit: float, whole: float, unit: str) -> None:
    if least > limit:
        asked = str(target) if not target.share else f"{target} ({limit:,.4g}{unit})"
        raise ChannelError(
            f"target {asked} is out of reach: with one channel in every group it is {least:,.4g}{unit}, of {whole:,.4g}"
        )
    if limit >= whole:
        raise ChannelError(f"target {target} is met by the whole network, which has {whole:,.4g}{unit}")


def _by_clock(
    channels: Channels,
    scores: Mapping[str, Tensor],
    target: Target,
    clock: Clock,
    say: Callable[[str], None],
) -> dict[str, Tensor]:
    """Try widths between one whose time is above and one whose time is below, and keep the nearest."""
    unit = "" if target.share else " ms"

    def timed(density: float) -> tuple[float, dict[str, Tensor]]:
        kept = best_channels(scores, channels.widths(density))
        milliseconds, share = clock(kept)
        say(
            f"with {density:.3g} of its channels a call takes {milliseconds:.4g} ms, {share:.3g} of the whole network's"
        )
        return (share if target.share else milliseconds), kept

    (least, fewest), (whole, everything) = timed(0.0), timed(1.0)
    _possible(target, least, target.value, whole, unit)
    low, high = (0.0, least), (1.0, whole)
    best = min(((least, fewest), (whole, everything)), key=lambda one: _off(one[0], target))
    for _ in range(_TRIES):
        # time grows with the square of widths, about
        roots = [math.sqrt(max(one, 0.0)) for one in (low[1], target.value, high[1])]
        share = (roots[1] - roots[0]) / max(roots[2] - roots[0], 1e-12)
        density = low[0] + (high[0] - low[0]) * min(max(share, 0.1), 0.9)
        found, kept = timed(density)
        best = min(best, (found, kept), key=lambda one: _off(one[0], target))
        if _off(found, target) <= _NEAR or high[0] - low[0] <= 0.5 / _widest(channels):
            break
        low, high = ((density, found), high) if found < target.value else (low, (density, found))
    return best[1]


def _off(found: float, target: Target) -> float:
    return abs(found / target.value - 1)
