"""What programs can do: a function for every operation of a graph, which gives what later operations read."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.lowering.fuse import UnfitError
from gancompress.lowering.made import NO_SIDES, Conv, Norm, Read, Sides, composed

if TYPE_CHECKING:
    from collections.abc import Callable

    from gancompress.graphs.graph import Node
    from gancompress.kernels import Border
    from gancompress.lowering.fuse import Fusion

__all__ = ["OPERATIONS", "batch_norm_affine"]


def _pair(value: Any, axes: int, one: int) -> tuple[int, int]:
    """Return a setting of a convolution for two axes; a signal's rows have ``one``."""
    value = (value,) if isinstance(value, int) else tuple(value)
    value = value * axes if len(value) == 1 else value
    return (value[0], value[1]) if axes == 2 else (one, value[0])


def _conv(f: Fusion, node: Node) -> Read:
    transposed = "transpose" in node.op
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    if transposed:
        names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")  # type: ignore[assignment]
    given = dict(zip(names, f.arguments(node, *names), strict=True))
    weight, bias, axes = f.stored(given["weight"]), f.stored(given["bias"]), len(f.shapes[node.name]) - 2
    if weight is None or (bias is None and given["bias"] is not None):
        raise UnfitError(node.name)
    stride, dilation, extra = (
        _pair(least if given.get(name) is None else given[name], axes, least)
        for name, least in (("stride", 1), ("dilation", 1), ("output_padding", 0))
    )
    weight = weight if axes == 2 else weight.unsqueeze(2)
    sides = _sides(given["padding"], axes, weight, dilation)
    read, up = f.map(given["input"]), 1
    if read.slope == "sigmoid":  # which no convolution takes in: its border would hold other numbers than 0
        read = f.settled(read)
    if tuple(weight.shape[2:]) == stride == (1, 1) and sides == read.sides == NO_SIDES and extra == (0, 0):
        read, up = replace(read, up=1), read.up  # pixels that are alike stay alike: compute them once
    if read.up > (1 if transposed else 2) or (transposed and read.sides != NO_SIDES):
        read = Read((f.whole(read),), read.by)
    border: Border = "zeros"
    if read.sides != NO_SIDES:
        if read.border != "zeros" and sides != NO_SIDES:
            raise UnfitError(read.by)
        border = read.border
        sides = (sides[0] + read.sides[0], sides[1] + read.sides[1], sides[2] + read.sides[2], sides[3] + read.sides[3])
    f.close(read)
    channels, rows, columns = _shape(f, node)
    made = Conv(
        node.name, (channels, rows // up, columns // up), given["weight"].name,
        replace(read, factor=1.0, sides=NO_SIDES), weight if read.factor == 1 else weight * read.factor, bias,
        transposed, stride, sides, dilation,
        given["groups"] or 1, extra, border,
    )  # fmt: skip
    f.made.append(made)
    return Read((made,), node.name, up=up)


def _sides(padding: Any, axes: int, weight: Tensor, dilation: tuple[int, int]) -> Sides:
    """Return the padding of a convolution, which may be ``same`` or ``valid``."""
    if padding == "same":
        rows, columns = (step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True))
        return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2
    rows, columns = _pair(0 if padding in (None, "valid") else padding, axes, 0)
    return rows, rows, columns, columns


def _shape(f: Fusion, node: Node) -> tuple[int, int, int]:
    _, channels, *sizes = f.shapes[node.name]
    return (channels, sizes[0], sizes[1]) if len(sizes) == 2 else (channels, 1, sizes[0])


def _batch_norm(f: Fusion, node: Node) -> Read:
    x, weight, bias, mean, variance, training, _, eps, _ = node.args
    mean, variance = f.stored(mean), f.stored(variance)
    if training or mean is None or variance is None:
        raise UnfitError(node.name)
    return f.affine(f.map(x), *batch_norm_affine(mean, variance, f.stored(weight), f.stored(bias), eps), node)


def batch_norm_affine(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Return the gain and bias, ``(C,)`` float64, that a batch norm is in eval mode."""
    gain = (variance.double() + eps).rsqrt()
    gain = gain if weight is None else gain * weight.double()
    shift = -mean.double() * gain
    return gain, shift if bias is None else shift + bias.double()


def _norm(f: Fusion, node: Node, x: Any, groups: int | None, weight: Any, bias: Any, eps: float) -> Read:
    gains, biases = f.stored(weight), f.stored(bias)
    if (gains is None and weight is not None) or (biases is None and bias is not None):
        raise UnfitError(node.name)
    read = f.map(x, regrouped=True)
    source = f.whole(replace(read, regrouped=()))
    channels = source.shape[0]
    if read.regrouped:
        seen = f.shapes[x.name][1]
        groups = seen if groups is None else groups
        gains, biases = (None if one is None else one.repeat_interleave(channels // seen) for one in (gains, biases))
    made = Norm(node.name, source.shape, source, channels if groups is None else groups, eps, gains, biases)
    f.made.append(made)
    return Read((made,), node.name, regrouped=read.regrouped)


def _group_norm(f: Fusion, node: Node) -> Read:
    x, groups, weight, bias, eps = f.arguments(node, "input", "num_groups", "weight", "bias", "eps", eps=1e-5)
    return _norm(f, node, x, groups, weight, bias, eps)


def _native_group_norm(f: Fusion, node: Node) -> Read:
    x, weight, bias, _, _, _, groups, eps = f.arguments(
        node, "input", "weight", "bias", "N", "C", "HxW", "group", "eps"
    )
    return _norm(f, node, x, groups, weight, bias, eps)


def _instance_norm(f: Fusion, node: Node) -> Read:
    x, weight, bias, _, _, own, _, eps, _ = node.args
    if not own:
        raise UnfitError(node.name)
    return _norm(f, node, x, None, weight, bias, eps)


def _relu(f: Fusion, node: Node) -> Read:
    return f.activated(f.map(node.args[0]), 0.0, node)


def _leaky(f: Fusion, node: Node) -> Read:
    x, slope = f.arguments(node, "self", "negative_slope", negative_slope=0.01)
    return f.activated(f.map(x), float(slope), node)


def _prelu(f: Fusion, node: Node) -> Read:
    slopes = f.stored(node.args[1])
    if slopes is None:
        raise UnfitError(node.name)
    read = f.map(node.args[0])
    slopes = slopes.reshape(-1)
    return f.activated(read, slopes.expand(read.channels) if slopes.numel() == 1 else slopes, node)


def _smooth(f: Fusion, node: Node) -> Read:
    kind: Any = node.op.split(".")[1]
    return f.activated(f.map(node.args[0]), kind, node)


def _add(f: Fusion, node: Node) -> Read:
    a, b, alpha = f.arguments(node, "self", "other", "alpha", alpha=1)
    alpha = -alpha if ".sub." in f".{node.op}." else alpha
    if f.is_map(a) and f.is_map(b) and f.shapes[a.name] == f.shapes[b.name]:
        if a == b:
            return f.times(f.map(a), 1.0 + alpha, node)
        return f.added(f.map(a), f.map(b) if alpha == 1 else f.times(f.map(b), alpha, node), node)
    if f.is_map(a):
        shift = f.factor(b, node)
        if isinstance(shift, Tensor):
            return f.affine(f.map(a), None, shift * alpha, node)
        if alpha != 1:
            raise UnfitError(node.name)
        return f.affine(f.map(a), None, shift, node)
    read = f.map(b) if alpha == 1 else f.times(f.map(b), alpha, node)
    return f.affine(read, None, f.factor(a, node), node)


def _rsub(f: Fusion, node: Node) -> Read:
    x, other, alpha = f.arguments(node, "self", "other", "alpha", alpha=1)
    return f.affine(f.times(f.map(x), -float(alpha), node), None, f.factor(other, node), node)


def _neg(f: Fusion, node: Node) -> Read:
    return f.times(f.map(node.args[0]), -1.0, node)


def _mul(f: Fusion, node: Node) -> Read:
    a, b = f.arguments(node, "self", "other")
    divides = ".div." in f".{node.op}."
    if f.is_map(a) and f.is_map(b) and not divides:
        for x, gate in ((f.map(a), f.map(b)), (f.map(b), f.map(a))):
            if gate.slope == "sigmoid" and x.slope is None and _alike(x, gate):
                return replace(x, slope="silu", by=node.name)
    if not f.is_map(a) and not divides:
        a, b = b, a
    if not f.is_map(a) or f.shapes[a.name] != f.shapes[node.name]:
        raise UnfitError(node.name)
    gain = f.factor(b, node)
    if divides and not isinstance(gain, Tensor):
        raise UnfitError(node.name)
    if isinstance(gain, Tensor):
        gain = gain.reciprocal() if divides else gain
        if bool((gain == gain[0]).all()):
            return f.times(f.map(a), float(gain[0]), node)
    return f.affine(f.map(a), gain, None, node)


def _alike(a: Read, b: Read) -> bool:
    """Return whether two reads are of the same, but for their activations."""
    return a.affine is b.affine and all(
        getattr(a, name) == getattr(b, name) for name in ("parts", "factor", "up", "sides", "border", "regrouped")
    )


def _cat(f: Fusion, node: Node) -> Read:
    tensors, axis = f.arguments(node, "tensors", "dim", dim=0)
    if axis not in (1, 1 - len(f.shapes[node.name])):
        raise UnfitError(node.name)
    reads = [f.map(one) for one in tensors]
    if len({read.up for read in reads}) > 1:
        reads = [Read((f.whole(read),), read.by) if read.up > 1 else read for read in reads]
    if len({(read.sides, read.border if read.sides != NO_SIDES else "") for read in reads}) > 1:
        raise UnfitError(node.name)
    factors = {read.factor for read in reads}
    smooth = {read.slope if isinstance(read.slope, str) else None for read in reads}
    if "sigmoid" in smooth or (smooth != {None} and len(factors) + len(smooth) > 2):
        reads, smooth = [f.settled(read) if isinstance(read.slope, str) else read for read in reads], {None}
    if len(factors) > 1:
        reads = [f.unscaled(read, node) for read in reads]
    if any(read.given for read in reads):
        raise UnfitError(node.name)
    parts = tuple(part for read in reads for part in read.parts)
    joined = replace(reads[0], parts=parts, affine=(), slope=None, by=node.name)
    if any(read.affine for read in reads):
        pairs = [composed(read) for read in reads]
        joined = replace(joined, affine=((torch.cat([one for one, _ in pairs]), torch.cat([one for _, one in pairs])),))
    if smooth != {None}:
        joined = replace(joined, slope=reads[0].slope)
    elif any(read.slope is not None for read in reads):
        slopes = [1.0 if read.slope is None else read.slope for read in reads if not isinstance(read.slope, str)]
        alike = len({one for one in slopes if isinstance(one, float)}) == 1 and not any(
            isinstance(one, Tensor) for one in slopes
        )
        vectors = [
            one.reshape(-1) if isinstance(one, Tensor) else torch.full((read.channels,), one)
            for one, read in zip(slopes, reads, strict=True)
        ]
        joined = replace(joined, slope=slopes[0] if alike else torch.cat(vectors))
    f.close(joined)
    return joined


def _pad(f: Fusion, node: Node) -> Read:
    x, pads, *rest = f.arguments(node, "input", "pad", "mode", "value")
    mode, value = rest
    if "constant_pad" in node.op:
        mode, value = "constant", mode
    elif "reflection" in node.op or "replication" in node.op:
        mode, value = "reflect" if "reflection" in node.op else "replicate", 0
    axes = len(f.shapes[node.name]) - 2
    pads = (*pads, 0, 0, 0, 0)[: max(4, len(pads))]
    if min(pads) < 0 or value or any(pads[2 * axes :]) or mode not in ("constant", "reflect", "replicate", None):
        raise UnfitError(node.name)
    left, right, top, bottom = pads[:4]
    read = f.map(x)
    border: Border = "zeros" if mode in ("constant", None) else mode
    if read.sides != NO_SIDES and (border != "zeros" or read.border != "zeros"):
        raise UnfitError(node.name)
    sides = (read.sides[0] + top, read.sides[1] + bottom, read.sides[2] + left, read.sides[3] + right)
    f.close(read)
    return replace(read, sides=sides, border=border, by=node.name)


def _shuffle(f: Fusion, node: Node) -> Read:
    x, r = f.arguments(node, "self", "upscale_factor")
    read = f.map(x)
    made = read.parts[0]
    flat = isinstance(made, Conv) and not isinstance(made.activation, Tensor)
    if not (flat and read.bare and made.open and not made.add and made.shuffle == 1) or made.transposed:  # type: ignore[attr-defined]
        raise UnfitError(node.name)
    made.shuffle = r  # type: ignore[attr-defined]
    made.shape = _shape(f, node)
    return replace(read, by=node.name)


def _nearest(f: Fusion, node: Node) -> Read:
    x = node.args[0]
    before, after = f.shapes[x.name][2:], f.shapes[node.name][2:]
    factors = {big // small if big % small == 0 else 0 for small, big in zip(before, after, strict=True)}
    (up, *others), read = factors, f.map(x)
    if others or not up or len(before) != 2 or read.sides != NO_SIDES:
        raise UnfitError(node.name)
    f.close(read)
    return replace(read, up=read.up * up, by=node.name)


def _bilinear(f: Fusion, node: Node) -> Read:
    """Doubling, as a convolution of every channel onto the four pixels that one becomes; others stay in torch."""
    x, _, corners, scales = f.arguments(node, "input", "output_size", "align_corners", "scale_factors")
    before, after = f.shapes[x.name][2:], f.shapes[node.name][2:]
    read = f.map(x)
    if (
        corners
        or scales not in (None, (2.0, 2.0))
        or after != tuple(2 * size for size in before)
        or read.up != 1
        or read.sides != NO_SIDES
    ):
        raise UnfitError(node.name)
    read = f.settled(read) if read.slope == "sigmoid" else read
    f.close(read)
    channels = read.channels
    taps = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
    weight = torch.einsum("ik,jl->ijkl", taps, taps).reshape(4, 1, 3, 3).repeat(channels, 1, 1, 1) * read.factor
    made = Conv(
        node.name, _shape(f, node), "", replace(read, factor=1.0), weight, None, False, (1, 1), (1, 1, 1, 1), (1, 1),
        channels, border="replicate", shuffle=2,
    )  # fmt: skip
    f.made.append(made)
    return Read((made,), node.name)


def _same(f: Fusion, node: Node) -> Read:
    x = node.args[0][0] if isinstance(node.args[0], tuple) else node.args[0]
    read, before, after = f.map(x, regrouped=True), f.shapes[x.name], f.shapes[node.name]
    groups = len(after) == 3 and after[0] == before[0] and not before[1] % after[1] and prod(after) == prod(before)
    if groups and before != after and not read.regrouped:
        return replace(read, regrouped=before, by=node.name)
    if after not in (before, read.regrouped):
        raise UnfitError(node.name)
    return replace(read, regrouped=() if after == read.regrouped else read.regrouped, by=node.name)


def _item(f: Fusion, node: Node) -> Read:
    if node.args[1] != 0:
        raise UnfitError(node.name)
    return replace(f.map(node.args[0]), by=node.name)


_FUNCTIONS: tuple[tuple[str, Callable[[Fusion, Node], Read]], ...] = (
    ("conv1d.default conv2d.default conv1d.padding conv2d.padding conv_transpose1d.default "
     "conv_transpose2d.input", _conv),
    ("batch_norm.default", _batch_norm),
    ("group_norm.default", _group_norm),
    ("native_group_norm.default", _native_group_norm),
    ("instance_norm.default", _instance_norm),
    ("relu.default", _relu),
    ("leaky_relu.default", _leaky),
    ("prelu.default _prelu_kernel.default", _prelu),
    ("tanh.default sigmoid.default silu.default", _smooth),
    ("add.Tensor add.Scalar sub.Tensor sub.Scalar", _add),
    ("rsub.Scalar", _rsub),
    ("neg.default", _neg),
    ("mul.Tensor mul.Scalar div.Tensor div.Scalar", _mul),
    ("cat.default", _cat),
    ("pad.default constant_pad_nd.default reflection_pad1d.default reflection_pad2d.default "
     "replication_pad1d.default replication_pad2d.default", _pad),
    ("pixel_shuffle.default", _shuffle),
    ("upsample_nearest2d.vec", _nearest),
    ("upsample_bilinear2d.vec", _bilinear),
    ("clone.default view.default reshape.default _unsafe_view.default expand.default to.dtype _to_copy.default", _same),
)  # fmt: skip

#: What programs can do, by the name of the operation.
OPERATIONS: dict[str, Callable[[Fusion, Node], Read]] = {
    f"aten.{name}": function for names, function in _FUNCTIONS for name in names.split()
} | {"operator.getitem": _item}
