"""From a traced graph to sparse programs: which convolutions go together, and what is fused around each.

A *region* is a part of the graph with one map coming in and one going out, made of operations that a
:class:`~gancompress.kernels.Program` has. Inside it batch norms vanish into the weights before or the affine after,
ReLUs, upsampling and additions into the convolutions beside them. A scale and a shift that differ from image to image
(conditional batch norm) become further inputs of the program.
"""

from __future__ import annotations

import contextlib
import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gancompress.export.tracing import value_of
from gancompress.kernels.layout import scale, scale_and_shift
from gancompress.kernels.resample import upsample2
from gancompress.lowering.operations import batch_norm_affine

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["Convolution", "Factor", "Read", "Region", "find_regions", "refusal", "region_nodes"]

_Op = Literal["conv", "norm", "affine", "leaky", "up", "add", "same"]

#: modes of interpolation that repeat every pixel of a map that is doubled
_NEAREST = ("nearest", "nearest-exact")

#: of an affine map: one number per channel, ``(C,)``; a node of the graph that gives one per image and channel,
#: ``(N, C)`` or ``(N, C, 1, 1)``; or none
Factor: TypeAlias = "Tensor | fx.Node | None"


@dataclass(frozen=True)
class Read:
    """A map as something reads it: ``up(leaky_relu(affine(value)))``.

    Attributes:
        value: 0 for the region's input, else the number of the convolution that made it, from 1.
        affine: pairs of a gain and a bias, applied one after the other.
        slope: of the leaky ReLU behind, 0 for a ReLU; None without one.
        up: whether its pixels are doubled at the end.
    """

    value: int
    affine: tuple[tuple[Factor, Factor], ...] = ()
    slope: float | None = None
    up: bool = False

    @property
    def bare(self) -> bool:
        """Whether it is the map itself."""
        return not self.affine and self.slope is None and not self.up

    @property
    def nodes(self) -> list[fx.Node]:
        """The factors that differ from image to image."""
        return [factor for pair in self.affine for factor in pair if isinstance(factor, fx.Node)]


@dataclass
class Convolution:
    """A convolution and all that is fused around it.

    Attributes:
        node: its node in the graph.
        weight: with the batch norm behind it merged in.
        bias: the same, None when there is none.
        source: what it reads.
        add: what is added to its result.
        slope: of the leaky ReLU that ends it, as of a read.
        open: whether only one more operation reads it, which may then be fused.
    """

    node: fx.Node
    module: nn.Conv2d | nn.ConvTranspose2d
    weight: Tensor
    bias: Tensor | None
    source: Read
    add: Read | None = None
    slope: float | None = None
    open: bool = True


@dataclass(frozen=True)
class Region:
    """One program's part of a graph.

    Attributes:
        source: the node whose map comes in.
        exit: the node whose map goes out.
        numbers: of the convolutions, in the order in which they run.
        convolutions: by number.
    """

    source: fx.Node
    exit: fx.Node
    numbers: tuple[int, ...]
    convolutions: dict[int, Convolution]


class _UnsupportedError(Exception):
    """This region cannot be one program."""


def refusal(module: nn.Module) -> str | None:
    """Say why the kernels do not take this convolution, None when they do."""
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        axes = len(module.kernel_size) if isinstance(module, nn.modules.conv._ConvNd) else 0
        return f"a {axes}-d convolution" if axes else "not a convolution"
    if set(module.dilation) != {1}:
        return f"dilation {module.dilation}"
    if module.padding_mode != "zeros":
        return f"padding mode {module.padding_mode}"
    if isinstance(module.padding, str) or len(set(module.padding)) != 1:
        return f"padding {module.padding}"
    if len(set(module.stride)) != 1:
        return f"stride {module.stride}"
    if isinstance(module, nn.ConvTranspose2d) and len(set(module.output_padding)) != 1:
        return f"output padding {module.output_padding}"
    return None


def find_regions(graph: fx.GraphModule) -> list[Region]:
    """Put every convolution that the kernels take into a region, the largest that can be found first."""
    modules = dict(graph.named_modules())
    kinds: dict[fx.Node, _Op] = {}
    for node in graph.graph.nodes:
        kind = _kind(node, modules)
        if kind is not None:
            kinds[node] = kind
    found: list[Region] = []
    taken: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if kinds.get(node) == "conv" and node not in taken:
            tried = (_largest(source, node, kinds, taken, modules) for source in _sources(node, kinds, taken))
            region = next((region for region in tried if region is not None), None)
            if region is not None:
                found.append(region)
                taken |= set(region_nodes(region.source, region.exit))
    return found


def _sources(node: fx.Node, kinds: dict[fx.Node, _Op], taken: Collection[fx.Node]) -> list[fx.Node]:
    """Return what a region around a convolution may start from, most of all first: up through what fuses before it."""
    sources = _maps(node)
    while kinds.get(sources[-1]) in ("norm", "affine", "leaky", "up", "same") and sources[-1] not in taken:
        sources += _maps(sources[-1])
    return sources[::-1]


def _largest(
    source: fx.Node, first: fx.Node, kinds: dict[fx.Node, _Op], taken: Collection[fx.Node], modules: dict[str, Any]
) -> Region | None:
    """Return the region with most convolutions, ``first`` among them, that starts from ``source``."""
    reach = {source}
    for node in source.graph.nodes:
        if node in kinds and node not in taken and set(_maps(node)) <= reach:
            reach.add(node)
    best: Region | None = None
    for exit in [node for node in reversed(source.graph.nodes) if node in reach and node is not source]:
        inside = region_nodes(source, exit)
        convolutions = sum(kinds[node] == "conv" for node in inside)
        if first not in inside or (best is not None and convolutions <= len(best.convolutions)):
            continue
        if all(set(node.users) <= set(inside) for node in inside if node is not exit):
            with contextlib.suppress(_UnsupportedError):
                best = _lower(source, inside, kinds, modules)
    return best


def region_nodes(source: fx.Node, exit: fx.Node) -> list[fx.Node]:
    """Return all nodes on the way from ``source``, which is not among them, to ``exit``, in the order of the graph."""
    inside, ahead = {exit}, [exit]
    while ahead:
        for node in _maps(ahead.pop()):
            if node is not source and node not in inside:
                inside.add(node)
                ahead.append(node)
    return [node for node in source.graph.nodes if node in inside]


# ------------------------------------------------------------------------------------------------ single operations


def _kind(node: fx.Node, modules: dict[str, Any]) -> _Op | None:
    """Say which of a program's operations a node is, None for any other."""
    value, inputs = value_of(node), node.all_input_nodes
    if _is_map(value) and _affine_parts(node) is not None:
        return "affine"
    if not _is_map(value) or not inputs or not all(_is_map(value_of(other)) for other in inputs):
        return None
    if node.op == "call_module":
        module = modules[str(node.target)]
        if isinstance(module, nn.Upsample):
            return "up" if len(inputs) == 1 and module.mode in _NEAREST and _doubles(node) else None
        return _module_kind(module)
    name = node.target if node.op == "call_method" else node.target.__name__ if callable(node.target) else ""
    if node.target in (F.relu, torch.relu) or (node.op == "call_method" and name == "relu"):
        return None if _argument(node, 1, "inplace", False) else "leaky"
    if node.target is F.leaky_relu:
        return None if _argument(node, 2, "inplace", False) else "leaky"
    if node.target is upsample2 or (node.target is F.interpolate and _is_doubling(node)):
        return "up"
    if node.target in (operator.add, torch.add) or (node.op == "call_method" and name == "add"):
        same = len(inputs) == 2 and len(node.args) == 2 and not node.kwargs
        return "add" if same and value_of(inputs[0]).shape == value_of(inputs[1]).shape else None
    if node.op == "call_method" and name in ("float", "contiguous") and not node.kwargs and len(node.args) == 1:
        return "same"
    return None


def _affine_parts(node: fx.Node) -> tuple[fx.Node, Factor, Factor] | None:
    """Return map, gain and bias of an operation that scales and shifts a map by numbers per image and channel."""
    if node.op != "call_function" or node.kwargs or not all(isinstance(other, fx.Node) for other in node.args):
        return None
    args: list[Any] = list(node.args)
    if node.target is scale_and_shift:
        return args[0], args[1], args[2]
    if node.target is scale:
        return args[0], args[1], None
    if node.target is torch.addcmul and len(args) == 3:
        bias, x, gain = args
        x, gain = (gain, x) if _is_per_channel(x, node) else (x, gain)
        fits = _same_map(x, node) and _is_per_channel(gain, node) and _is_per_channel(bias, node)
        return (x, gain, bias) if fits else None
    if node.target in (operator.mul, torch.mul, operator.add, torch.add) and len(args) == 2:
        x, factor = args if _same_map(args[0], node) else args[::-1]
        if _same_map(x, node) and _is_per_channel(factor, node):
            return (x, factor, None) if node.target in (operator.mul, torch.mul) else (x, None, factor)
    return None


def _same_map(x: fx.Node, node: fx.Node) -> bool:
    value = value_of(x)
    return _is_map(value) and value.shape == value_of(node).shape


def _is_per_channel(x: fx.Node, node: fx.Node) -> bool:
    value, shape = value_of(x), value_of(node).shape
    return _is_map(value) and value.shape[1:] == (shape[1], 1, 1) != shape[1:] and value.shape[0] in (1, shape[0])


def _maps(node: fx.Node) -> list[fx.Node]:
    """The inputs of a node that are maps of a region, factors of an affine map left out."""
    parts = _affine_parts(node) if _is_map(value_of(node)) else None
    return node.all_input_nodes if parts is None else [parts[0]]


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and value.dtype is torch.float32


def _module_kind(module: nn.Module) -> _Op | None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return "conv" if refusal(module) is None else None
    if isinstance(module, nn.BatchNorm2d):
        return "norm" if module.running_var is not None and not module.training else None
    if isinstance(module, nn.ReLU | nn.LeakyReLU):
        return None if module.inplace else "leaky"
    if isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout | nn.Dropout2d) and not module.training):
        return "same"
    return None


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _is_doubling(node: fx.Node) -> bool:
    return _doubles(node) and _argument(node, 3, "mode", "nearest") in _NEAREST and len(node.all_input_nodes) == 1


def _doubles(node: fx.Node) -> bool:
    before, after = value_of(node.all_input_nodes[0]).shape, value_of(node).shape
    return bool(after == (*before[:2], 2 * before[2], 2 * before[3]))


# ------------------------------------------------------------------------------------------------ fusing


def _lower(source: fx.Node, inside: Sequence[fx.Node], kinds: dict[fx.Node, _Op], modules: dict[str, Any]) -> Region:
    """Fuse the operations of a region, given in the order of the graph; the last one is its exit."""
    reads: dict[fx.Node, Read] = {source: Read(0)}
    done: dict[int, Convolution] = {}
    order: list[int] = []
    for node in inside:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        taken = [reads[other] for other in _operands(node)]
        read = taken[0]
        conv = done.get(read.value)
        fits = conv is not None and conv.open and read.bare and conv.slope is None
        match kinds[node]:
            case "conv":
                assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
                number = len(done) + 1
                if read.up and isinstance(module, nn.ConvTranspose2d):
                    raise _UnsupportedError
                done[number] = Convolution(node, module, module.weight, module.bias, read)
                order.append(number)
                _close(done, taken)
                read = Read(number)
            case "norm":
                assert isinstance(module, nn.BatchNorm2d)
                scale, shift = _affine(module)
                if fits and conv is not None and conv.add is None:
                    _merge(conv, scale, shift)
                else:
                    read = _scaled(read, scale, shift)
            case "affine":
                parts = _affine_parts(node)
                assert parts is not None
                read = _scaled(read, *parts[1:])
            case "leaky":
                slope = _slope(node, module)
                if fits and conv is not None:
                    conv.slope = slope
                elif read.slope is None:  # repeated pixels may be activated before or after
                    read = replace(read, slope=slope)
                else:
                    raise _UnsupportedError
            case "up":
                if read.up:
                    raise _UnsupportedError
                read = replace(read, up=True)
            case "add":
                read = _added(done, order, *taken)
            case "same":
                pass
        if len(node.users) != 1 and read.value in done:
            done[read.value].open = False
        reads[node] = read
    last = reads[inside[-1]]
    if not last.bare or last.value == 0:
        raise _UnsupportedError
    return Region(source, inside[-1], tuple(order), done)


def _slope(node: fx.Node, module: nn.Module | None) -> float:
    if module is not None:
        return module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0
    return float(_argument(node, 1, "negative_slope", 0.01)) if node.target is F.leaky_relu else 0.0


def _operands(node: fx.Node) -> list[fx.Node]:
    parts = _affine_parts(node)
    if parts is not None:
        return [parts[0]]
    return [other for other in node.args if isinstance(other, fx.Node)] or node.all_input_nodes


def _close(done: dict[int, Convolution], reads: Sequence[Read]) -> None:
    for read in reads:
        if read.value in done:
            done[read.value].open = False


def _added(done: dict[int, Convolution], order: list[int], a: Read, b: Read) -> Read:
    """Fuse an addition into the convolution that makes one of its sides, which then runs after the other side."""
    for own, other in ((a, b), (b, a)):
        conv = done.get(own.value)
        fits = conv is not None and conv.open and own.bare and conv.slope is None and conv.add is None
        if fits and conv is not None and own.value != other.value and not other.affine and other.slope is None:
            conv.add = other
            _close(done, [other])
            # nothing has read it yet, so it may run later
            order.remove(own.value)
            order.append(own.value)
            return own
    raise _UnsupportedError


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return batch_norm_affine(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)


def _scaled(read: Read, gain: Factor, bias: Factor) -> Read:
    if read.slope is not None:
        raise _UnsupportedError
    return replace(read, affine=(*read.affine, (gain, bias)))


def _merge(conv: Convolution, scale: Tensor, shift: Tensor) -> None:
    """Put an affine map behind a convolution into it."""
    weight, groups = conv.weight.double(), conv.module.groups
    if isinstance(conv.module, nn.ConvTranspose2d):  # inputs of one group after the other, each with its own outputs
        conv.weight = (weight.reshape(groups, -1, *weight.shape[1:]) * scale.reshape(groups, 1, -1, 1, 1)).flatten(0, 1)
    else:
        conv.weight = weight * scale[:, None, None, None]
    conv.bias = shift if conv.bias is None else conv.bias.double() * scale + shift
