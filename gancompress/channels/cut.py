"""Networks without some of their channels: tensors, graphs and training state cut alike, and held against the whole."""

from __future__ import annotations

import dataclasses
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm

from gancompress.channels.atoms import narrowed
from gancompress.channels.trace import SIZED, axis_of, short
from gancompress.errors import ChannelError
from gancompress.graphs.build import CapturedModule
from gancompress.graphs.graph import Graph, Stored
from gancompress.graphs.naming import is_layer
from gancompress.sparsity.weights import Scaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.channels.groups import Channels
    from gancompress.graphs.graph import Argument, Node

__all__ = ["cut_network", "cut_state", "cut_tensors", "verify", "zeroed"]

#: largest difference of outputs, of the largest, to a network whose cut channels are zeros
_TOLERANCE = 1e-4


def cut_tensors(state: Mapping[str, Tensor], indices: Mapping[str, Mapping[int, Tensor]]) -> dict[str, Tensor]:
    """Return tensors with only some indices along some of their axes; weights, gradients or moments alike.

    Args:
        state: by name; those that ``indices`` does not name stay.
        indices: by name and axis, from :meth:`~gancompress.channels.groups.Channels.indices`.
    """
    found = {}
    for name, tensor in state.items():
        cut = tensor
        for axis, kept in indices.get(name, {}).items():
            cut = cut.index_select(axis, kept.to(cut.device))
        found[name] = cut if cut is tensor else cut.contiguous()
    return found


def zeroed(state: Mapping[str, Tensor], indices: Mapping[str, Mapping[int, Tensor]]) -> dict[str, Tensor]:
    """Return tensors of their old shapes with zeros where :func:`cut_tensors` cuts: what reads a channel reads 0."""
    found = dict(state)
    for name in state.keys() & indices.keys():
        if not name.endswith("running_var"):
            own = state[name]
            found[name] = torch.where(_stays(own.shape, indices[name]), own, torch.zeros((), dtype=own.dtype))
    return found


def _stays(shape: Sequence[int], indices: Mapping[int, Tensor]) -> Tensor:
    """Return which elements of a tensor stay, bool of its shape, on the CPU."""
    mask = torch.ones(shape, dtype=torch.bool)
    for axis, index in indices.items():
        own = torch.zeros(shape[axis], dtype=torch.bool)
        own[index.cpu()] = True
        mask &= own.view([-1 if place == axis else 1 for place in range(len(shape))])
    return mask


def cut_network(network: CapturedModule, channels: Channels, kept: Mapping[str, Tensor]) -> CapturedModule:
    """Return a captured network without the channels that are not kept; its graph has the new sizes.

    Args:
        network: the whole one, left as it is.
        channels: of it.
        kept: by the names of groups, bool (width,); groups that are not named stay whole.
    """
    tensors = cut_tensors(network.state_dict(), channels.indices(kept))
    graph = _CutGraph(network.captured, channels, channels.gone(kept)).result()
    return CapturedModule(graph, {name: tensors[name].clone() for name in graph.tensors})


class _CutGraph:
    def __init__(self, graph: Graph, channels: Channels, gone: Tensor) -> None:
        self.graph, self.found = graph, channels.trace
        self.gone = gone

    def result(self) -> Graph:
        return Graph(self.graph.inputs, tuple(map(self._node, self.graph.nodes)), self.graph.outputs)

    def _stays(self, name: str, axis: int) -> Tensor:
        """Return which indices along an axis of a value stay, bool (size,)."""
        labels = self.found.values[name].movedim(axis, 0)
        size = labels.shape[0]
        if not self.found.atoms.varies(labels, 0):
            return torch.ones(size, dtype=torch.bool)
        own = narrowed(self.found.atoms.roots(labels))
        own = own.flatten(1)[:, 0] if own.dim() > 1 else own
        return ~torch.isin(own.expand(size), self.gone)

    def _size(self, name: str, axis: int) -> int:
        return int(self._stays(name, axis).sum())

    def _node(self, node: Node) -> Node:
        name = "" if node.op.startswith("operator.") else short(node.op)
        args: list[Any] = list(node.args)
        if is_layer(node) and "linear" not in node.op and len(args) > 6 and args[6] != 1:
            before = self.found.values[args[0].name].shape[1]
            args[6] = self._size(args[0].name, 1) if args[6] == before else args[6]
        elif name in SIZED and node.name in self.found.values:
            place = 2 if name == "unflatten" else 1
            rank = self.found.values[args[0].name].dim() if not isinstance(args[0], Stored) else 0
            first = int(args[1]) % rank if name == "unflatten" else 0
            args[place] = self._sizes(node.name, first, args[place])
        elif name in ("split", "split_with_sizes", "chunk", "slice") and not isinstance(args[0], Stored):
            return self._parts(node, name)
        return dataclasses.replace(node, args=tuple(args))

    def _sizes(self, name: str, first: int, sizes: Sequence[Argument]) -> tuple[Argument, ...]:
        labels = self.found.values[name]
        return tuple(
            self._size(name, first + place)
            if isinstance(size, int) and size == labels.shape[first + place] and self._cuts(name, first + place)
            else size
            for place, size in enumerate(sizes)
        )

    def _cuts(self, name: str, axis: int) -> bool:
        return not bool(self._stays(name, axis).all())

    def _parts(self, node: Node, name: str) -> Node:
        x, axis = node.args[0].name, axis_of(node)
        stays = self._stays(x, axis)
        if bool(stays.all()):
            return node
        size = len(stays)
        if name == "slice":
            start, end = (*node.args[2:4], None, None)[:2]
            first, last, _ = slice(start, end).indices(size)
            bounds = (int(stays[:first].sum()), int(stays[:last].sum()))
            return dataclasses.replace(node, args=(node.args[0], axis, *bounds))
        if name == "split_with_sizes":
            sizes: Sequence[int] = node.args[1]
        else:
            step = node.args[1] if name == "split" else -(-size // node.args[1])
            sizes = [min(step, size - first) for first in range(0, size, step)]
        ends = [0, *accumulate(sizes)]
        counts = tuple(int(stays[a:b].sum()) for a, b in pairwise(ends))
        return dataclasses.replace(node, op="aten.split_with_sizes.default", args=(node.args[0], counts, axis))


def cut_state(network: nn.Module, indices: Mapping[str, Mapping[int, Tensor]]) -> dict[str, Tensor]:
    """Return the state of a module without some channels, computed weights included.

    Weights stay what they were in eval mode. Under spectral norm both vectors are cut, and the first is scaled so that
    the weight is divided by what it was divided by before; the next training step divides by the norm of the narrower
    weight, as that norm asks. The gain of a weight norm is scaled likewise, for good.

    Args:
        network: the whole one.
        indices: by the names of plain weights (``conv.weight``) and axis.
    """
    own, state = dict(indices), network.state_dict()
    tied: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        tied.setdefault(id(parameter), []).append(name)
    for names in tied.values():
        own |= {name: own[known] for known in names if known in indices for name in names}
    scaled: dict[str, Tensor] = {}
    for path, module in network.named_modules():
        if not parametrize.is_parametrized(module):
            if module._forward_pre_hooks and f"{path}.weight" in indices:
                raise ChannelError(f"{path}: a forward pre-hook computes its weight, which cannot be cut")
            continue
        parametrisations: Any = module.parametrizations
        for leaf, chain in parametrisations.items():
            kept = indices.get(f"{path}.{leaf}")
            if kept is None:
                continue
            prefix = f"{path}.parametrizations.{leaf}"
            for number, norm in enumerate(chain):
                if isinstance(norm, Scaled) and len(chain) == 1:
                    own[f"{prefix}.original"] = kept
                elif isinstance(norm, _SpectralNorm) and len(chain) == 1:
                    own[f"{prefix}.original"] = kept
                    scaled |= _cut_norm(norm, state[f"{prefix}.original"], kept, f"{prefix}.{number}")
                elif isinstance(norm, _WeightNorm) and len(chain) == 1:
                    scaled |= _cut_direction(norm, state, kept, prefix)
                else:
                    raise ChannelError(f"{path}: {type(norm).__name__} computes its weight, which cannot be cut")
    return {**cut_tensors(state, own), **scaled}


def _cut_direction(norm: Any, state: Mapping[str, Tensor], kept: Mapping[int, Tensor], path: str) -> dict[str, Tensor]:
    """Cut direction and gain of a weight norm; the gain of a shorter direction is as much smaller."""
    gain, direction = (state[f"{path}.original{number}"] for number in (0, 1))
    (cut,) = cut_tensors({"": direction}, {"": kept}).values()
    lengths, shorter = (torch.norm_except_dim(one, 2, norm.dim) for one in (direction, cut))
    gains = {"": {axis: index for axis, index in kept.items() if gain.shape[axis] > 1}}
    gain, lengths = (cut_tensors({"": one}, gains)[""] for one in (gain, lengths))
    return {f"{path}.original0": gain * shorter / lengths, f"{path}.original1": cut}


def _cut_norm(norm: Any, weight: Tensor, kept: Mapping[int, Tensor], path: str) -> dict[str, Tensor]:
    if weight.dim() == 1:
        return {}
    mask = _stays(weight.shape, kept)
    matrix, chosen = norm._reshape_weight_to_matrix(weight.detach()), norm._reshape_weight_to_matrix(mask)
    rows, columns = (chosen.any(axis).nonzero().flatten().to(weight.device) for axis in (1, 0))
    u, v = norm._u[rows], norm._v[columns]
    before = torch.vdot(norm._u, matrix @ norm._v)
    after = torch.vdot(u, matrix[rows][:, columns] @ v)
    if float(after) == 0:
        raise ChannelError(f"{path}: the norm of what is kept of the weight is 0")
    return {f"{path}._u": u * (before / after), f"{path}._v": v.clone()}


def verify(
    network: CapturedModule,
    narrow: Any,
    channels: Channels,
    kept: Mapping[str, Tensor],
    inputs: Sequence[Tensor],
    state: Mapping[str, Tensor],
) -> None:
    """Hold a cut network against what was asked: the width of every tensor, and the outputs of a zeroed whole one.

    Args:
        network: the whole one.
        narrow: what was made of it, called with ``inputs``.
        channels: of the whole one.
        kept: what was asked for.
        inputs: of a call.
        state: tensors of the narrow one, by the names of plain ones.

    Raises:
        ChannelError: a width is another one, or the outputs differ.
    """
    for name, axes in channels.indices(kept).items():
        for axis, index in axes.items():
            if state[name].shape[axis] != len(index):
                raise ChannelError(
                    f"{name} has {state[name].shape[axis]} channels along axis {axis} and was to keep {len(index)}"
                )
    blank = CapturedModule(network.captured, zeroed(network.state_dict(), channels.indices(kept)))
    with torch.no_grad():
        expected = blank.compute(inputs)
        try:
            found = narrow(*inputs)
        except Exception as error:  # someone else's code
            raise ChannelError(f"does not run without its channels ({' '.join(str(error).split())[:200]})") from error
    found = found if isinstance(found, tuple) else (found,)
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            raise ChannelError(f"outputs are {tuple(other.shape)} without the channels, {tuple(one.shape)} with them")
        difference = float((one.double() - other.double()).abs().max()) / max(float(one.abs().max()), 1.0)
        if not difference <= _TOLERANCE:
            raise ChannelError(
                f"without its channels the network gives outputs that differ by {difference:.1e} of the largest from "
                "those with zeros in their place: its code depends on widths that a graph does not show"
            )
