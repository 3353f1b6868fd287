"""What a channel is worth, by the measures of torch-pruning over our groups, or by what it does to the outputs.

torch-pruning (Fang et al., "DepGraph", CVPR 2023) judges; which channels belong together it is told: what it finds out
itself is wrong for many generators (docs/adr/0015).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from gancompress.errors import ChannelError
from gancompress.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gancompress.channels.groups import ChannelGroup, Channels, Place
    from gancompress.graphs.build import CapturedModule

__all__ = ["IMPORTANCES", "Importance", "best_channels", "channel_scores"]

Importance: TypeAlias = Literal["magnitude", "taylor", "bn-scale", "lamp", "outputs"]
#: how channels may be ranked
IMPORTANCES: tuple[str, ...] = get_args(Importance)
#: random signs that outputs are looked at through
_PROBES = 8

Loss: TypeAlias = Callable[[tuple[Tensor, ...]], Tensor]


def channel_scores(
    network: CapturedModule,
    channels: Channels,
    importance: str,
    inputs: Sequence[tuple[Tensor, ...]] = (),
    *,
    loss: Loss | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return a score for every channel (width,), float64, by the names of groups; the larger, the better.

    Args:
        network: the whole one, left as it is.
        channels: of it.
        importance: ``magnitude``: the mean square of what makes and reads a channel; ``lamp``: the same, over all that
            is no smaller; ``bn-scale``: the scale of its batch norms, and magnitude where it has none; ``taylor``:
            weights times their gradients; ``outputs``: how far the outputs move, to first order, without it.
        inputs: for ``taylor`` and ``outputs``: what to look at, a tuple per call.
        loss: of all outputs, for ``taylor``; default: outputs under random signs.
        seed: of the signs.

    Raises:
        ChannelError: there is no such measure, or it has nothing to go by.
    """
    if importance not in IMPORTANCES:
        raise ChannelError(f"importance {importance!r} is not known; known: {', '.join(IMPORTANCES)}")
    if importance in ("taylor", "outputs") and not inputs:
        raise ChannelError(f"importance {importance} needs calibration inputs; magnitude, lamp and bn-scale need none")
    if importance == "outputs":
        return _by_outputs(network, channels, inputs, seed)

    import torch_pruning as tp

    judge: Any = {
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "bn-scale": tp.importance.BNScaleImportance,
        "lamp": tp.importance.LAMPImportance,
    }[importance]()
    if importance == "taylor":
        _gradients(network, [_loss(network, call, loss, seed) for call in inputs])
    try:
        found, without = {}, 0
        for group in channels.groups:
            score = judge(_described(tp, network, group, importance))
            if score is None:
                without += 1
                score = tp.importance.GroupMagnitudeImportance()(_described(tp, network, group, "magnitude"))
            found[group.name] = torch.zeros(group.width) if score is None else score[: group.width].double()
        if importance == "bn-scale" and without == len(channels.groups):
            raise ChannelError("no channel has a batch norm with a scale; choose magnitude, lamp, taylor or outputs")
    finally:
        for parameter in network.parameters():
            parameter.grad = None
    for name, score in found.items():
        if not bool(score.isfinite().all()):
            raise ChannelError(f"the channels of {name} have no finite {importance}")
    return found


def best_channels(scores: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """Return which channels are kept, bool (width,), by the names of groups; of equal ones the first.

    Args:
        scores: of every channel.
        widths: how many to keep of every group.

    Raises:
        ChannelError: a group is not there, or would keep none, or more than it has.
    """
    kept = {}
    for name, count in widths.items():
        if name not in scores:
            raise ChannelError(f"there is no group {name!r}; known: {', '.join(scores)}")
        width = len(scores[name])
        if not 1 <= count <= width:
            raise ChannelError(f"group {name} has {width} channels and was to keep {count}; it can keep 1 to {width}")
        order = torch.sort(scores[name], descending=True, stable=True).indices
        kept[name] = torch.zeros(width, dtype=torch.bool)
        kept[name][order[:count]] = True
    return kept


def _described(tp: Any, network: CapturedModule, group: ChannelGroup, importance: str) -> Any:
    """Return a group in the words of torch-pruning: layers, what cuts them, and which index is which channel's."""
    from torch_pruning.dependency import Dependency, Group, Node

    found: Any = Group()
    for place in sorted(group.places, key=lambda one: -int((one.owners >= 0).sum())):
        layer = _layer(network, place)
        handler = None if layer is None else _handler(tp, layer, place.axis, importance)
        if layer is None or handler is None:
            continue
        node = Node(layer, None, place.tensor)
        at = (place.owners >= 0).nonzero().flatten()
        found.add_dep(Dependency(handler, handler, node, node), at.tolist())
        found[len(found) - 1].root_idxs = place.owners[at].tolist()
    return found


def _layer(network: CapturedModule, place: Place) -> nn.Module | None:
    path, _, leaf = place.tensor.rpartition(".")
    layer = network.get_submodule(path)
    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm)
    return layer if leaf == "weight" and isinstance(layer, kinds) else None


def _handler(tp: Any, layer: nn.Module, axis: int, importance: str) -> Any:
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        # Its Taylor importance passes batch norms over, and means them where it takes group norms.
        return tp.prune_groupnorm_out_channels if importance == "taylor" else tp.prune_batchnorm_out_channels
    if isinstance(layer, nn.Linear):
        return (tp.prune_linear_out_channels, tp.prune_linear_in_channels)[axis]
    assert isinstance(layer, nn.modules.conv._ConvNd)
    makes = axis == (1 if layer.transposed else 0)
    return tp.prune_conv_out_channels if makes else tp.prune_conv_in_channels


def _loss(network: CapturedModule, call: tuple[Tensor, ...], loss: Loss | None, seed: int) -> Tensor:
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        outputs = network.compute(call)
        return next(_probed(outputs, 1, seed)) if loss is None else loss(outputs)


def _gradients(network: CapturedModule, losses: Sequence[Tensor]) -> None:
    try:
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
    finally:
        network.requires_grad_(False)
    for parameter in network.parameters():
        if parameter.grad is None:  # nothing of it reaches the loss
            parameter.grad = torch.zeros_like(parameter)


def _probed(outputs: tuple[Tensor, ...], probes: int, seed: int) -> Iterator[Tensor]:
    """Yield sums of all outputs under random signs."""
    for probe in range(probes):
        rng = generator(seed, "channels", "signs", probe)
        total = torch.zeros(())
        for one in outputs:
            signs = torch.randint(0, 2, one.shape, generator=rng) * 2 - 1
            total = total + (one * signs.to(one)).sum()
        yield total


def _by_outputs(
    network: CapturedModule, channels: Channels, inputs: Sequence[tuple[Tensor, ...]], seed: int
) -> dict[str, Tensor]:
    """Return the squared change of all outputs, to first order in the weights that read a channel.

    The expectation over random signs of the square of their product with the change is the square of its length.
    """
    read = [
        (group.name, place, network.get_parameter(place.tensor))
        for group in channels.groups for place in group.places
        if place.reads and _layer(network, place) is not None
    ]  # fmt: skip
    weights = list({id(weight): weight for _, _, weight in read}.values())
    scores = {group.name: torch.zeros(group.width, dtype=torch.float64) for group in channels.groups}
    for weight in weights:
        weight.requires_grad_(True)
    try:
        for call in inputs:
            with torch.enable_grad():
                losses = list(_probed(network.compute(call), _PROBES, seed))
            for number, loss in enumerate(losses):
                more = number + 1 < len(losses)
                found = torch.autograd.grad(loss, weights, retain_graph=more, allow_unused=True)
                slopes = {id(weight): slope for weight, slope in zip(weights, found, strict=True)}
                changes = {name: torch.zeros_like(score) for name, score in scores.items()}
                for name, place, weight in read:
                    slope = slopes[id(weight)]
                    if slope is not None:
                        own = (weight.detach() * slope).double().movedim(place.axis, 0).flatten(1).sum(1)
                        at = place.owners >= 0
                        changes[name].index_add_(0, place.owners[at], own[at])
                for name, change in changes.items():
                    scores[name] += change.square() / (_PROBES * len(inputs))
    finally:
        network.requires_grad_(False)
    return scores
