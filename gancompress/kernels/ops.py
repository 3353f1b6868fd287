"""Masked layers on ordinary tensors: the same numbers as torch, computed at the kept weights only where that is faster.

``conv2d(x, weight, mask)`` means ``F.conv2d(x, where(mask, weight, 0))``; the two others likewise. Nothing about the
tensors changes: the weight stays dense (it may be the output of a spectral norm), the gradient has its shape.

When is a call computed sparse? On a CPU, in float32, outside graph capture, when the native kernels are
there (:func:`gancompress.kernels.status`), and when the density is below the break-even that was *measured* for this
layer on this machine (:mod:`gancompress.kernels.tuning`). In all other cases, dense.

Under autocast in bf16 a layer with even numbers of channels takes products of numbers rounded to bf16 and sums them up
in float32, in all three passes, where the machine has an instruction for that (``status().bf16``); it gives float32.
Layers without pairs, as of colours, are computed in float32 there, where that is faster than dense in bf16. Blocks of
2x2 weights gain from it (``sparsity.pattern=2x2``), single weights hardly do. Without the instruction, layers stay
dense under autocast.

A map may lie in memory batch last (:mod:`gancompress.kernels.layout`), which spares the kernels all copying. The result
of a sparse call lies as its input does, or batch last when ``batch_last`` asks for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
from torch import Tensor

from gancompress.errors import KernelError
from gancompress.kernels import masked as arithmetic
from gancompress.kernels import tuning
from gancompress.kernels.layer import Layer
from gancompress.kernels.layout import LANES, is_batch_last, is_eager
from gancompress.kernels.masked import keep
from gancompress.kernels.native_library import library
from gancompress.kernels.pattern import as_pattern

if TYPE_CHECKING:
    from gancompress.kernels.pattern import Pattern
    from gancompress.kernels.tuning import Mode

__all__ = ["Options", "conv2d", "conv_transpose2d", "counted_density", "keep", "linear"]


class Options(TypedDict, total=False):
    """How a layer is computed; every operator takes these as keywords.

    Attributes:
        dense_gradient: give the gradient at masked positions too, as growth criteria need; else it is exactly 0 there.
        sparse: ``"always"``, ``"never"`` or ``"auto"``; default: ``GANCOMPRESS_SPARSE``, else ``"auto"``.
        masked: the weight is exactly 0 off the mask already and the caller masks its gradient, so that dense arithmetic
            is the plain operation and its gradient always whole.
        table: see :func:`gancompress.kernels.break_even`.
        batch_last: when computed sparse, lay the result out batch last, if the batch is a multiple of 16.
        pre_relu: take ``relu(x)``.
    """

    dense_gradient: bool
    sparse: Mode | None
    masked: bool
    table: dict[str, float] | None
    batch_last: bool
    pre_relu: bool


def _plain(t: Tensor, *, or_bf16: bool = False) -> bool:
    known = t.dtype == torch.float32 or (or_bf16 and t.dtype == torch.bfloat16)
    return known and t.device.type == "cpu" and type(t) in (Tensor, torch.nn.Parameter)


def _may_run_sparse(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    plain = _plain(x, or_bf16=layer.bf16) and _plain(weight) and (bias is None or _plain(bias))
    return plain and x.shape[0] > 0 and is_eager()


def _autocasts_to_bf16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def counted_density(pattern: Pattern) -> float:
    """The density of a convolution's or linear layer's mask that break-evens are held against, in [0, 1].

    Under autocast in bf16, where the machine multiplies pairs, it is that of pairs (:attr:`Pattern.pair_density`).
    """
    lib = library()
    pairs = lib is not None and lib.computes_bf16 and _autocasts_to_bf16()
    return pattern.pair_density if pairs and not any(side % 2 for side in pattern.shape[:2]) else pattern.density


def _run(
    layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Pattern, options: Options,
) -> Tensor:  # fmt: skip
    lib = library()
    dense_gradient, pre_relu = options.get("dense_gradient", False), options.get("pre_relu", False)
    autocast = torch.is_autocast_enabled("cpu")
    if lib is not None and _autocasts_to_bf16() and lib.computes_bf16:
        layer, autocast = replace(layer, bf16=True), False
    if lib is not None and not autocast and _may_run_sparse(layer, x, weight, bias):
        last = x.dim() == 4 and x.shape[0] % LANES == 0 and (options.get("batch_last", False) or is_batch_last(x))
        layer = replace(layer, batch_last=last)
        training = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        mode, table = options.get("sparse"), options.get("table")
        density = pattern.pair_density if layer.in_pairs else pattern.density
        if tuning.choose(layer, density, training=training, mode=mode, table=table) == "sparse":
            how = {"dense_gradient": dense_gradient, "pre_relu": pre_relu, "masked": options.get("masked", False)}
            # a dense layer in front may have given bf16
            return arithmetic.sparse(lib, layer, x.float(), weight, bias, pattern, **how)
    kept = weight if options.get("masked") else keep(weight, pattern, dense_gradient)
    return arithmetic.dense(layer, x, kept, bias, pre_relu=pre_relu)


def _check(
    name: str,
    x: Tensor,
    weight: Tensor,
    pattern: Pattern,
    bias: Tensor | None,
    *,
    dims: int = 4,
    transpose: bool = False,
    groups: int = 1,
) -> None:
    if tuple(weight.shape) != pattern.shape:
        raise KernelError(f"{name}: the mask has shape {pattern.shape}, the weight {tuple(weight.shape)}")
    if weight.dim() != dims or x.dim() != dims:
        raise KernelError(f"{name}: needs {dims}-d tensors, got x {tuple(x.shape)} and weight {tuple(weight.shape)}")
    whole, of_group = (weight.shape[0], weight.shape[1] * groups)
    takes, gives = (whole, of_group) if transpose else (of_group, whole)
    if whole % groups:
        raise KernelError(f"{name}: {groups} groups do not divide the {whole} channels of the weight's first axis")
    if x.shape[1] != takes:
        raise KernelError(f"{name}: x has {x.shape[1]} channels, the weight {tuple(weight.shape)} takes {takes}")
    if bias is not None and tuple(bias.shape) != (gives,):
        raise KernelError(f"{name}: bias has shape {tuple(bias.shape)}, needs ({gives},)")


def conv2d(
    x: Tensor,
    weight: Tensor,
    mask: Tensor | Pattern,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    **options: Unpack[Options],
) -> Tensor:
    """``F.conv2d(x, where(mask, weight, 0), bias, stride, padding, 1, groups)``.

    Args:
        x: ``[N, C, H, W]``.
        weight: dense, ``[R, C / groups, kh, kw]``.
        mask: bool of the weight's shape, or the :class:`Pattern` of one. A tensor is looked up by identity and version,
            so passing the same mask again costs nothing, and changing it in place is noticed.
        bias: ``[R]`` or None.
        stride: of both dimensions.
        padding: zeros on every side.
        groups: of channels that see only each other.
        **options: see :class:`Options`.

    Returns:
        ``[N, R, Ho, Wo]``; when computed sparse it lies in memory as ``x`` does, contiguous or batch last.

    Raises:
        KernelError: shapes do not fit, or the mask is no bool mask.
    """
    pattern = as_pattern(mask)
    _check("conv2d", x, weight, pattern, bias, groups=groups)
    layer = Layer("conv", tuple(weight.shape), x.shape[0], x.shape[2], x.shape[3], stride, padding, groups=groups)
    if min(layer.out_size) < 1:
        raise KernelError(f"conv2d: x {tuple(x.shape)} is smaller than the kernel {tuple(weight.shape[2:])}")
    return _run(layer, x, weight, bias, pattern, options)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    mask: Tensor | Pattern,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    **options: Unpack[Options],
) -> Tensor:
    """``F.conv_transpose2d(x, where(mask, weight, 0), bias, stride, padding, output_padding, groups)``.

    The weight is ``[C, R / groups, kh, kw]``; ``padding`` is cut from every side of the result, and ``output_padding``
    rows and columns are added at its end. All else is as for :func:`conv2d`.
    """
    pattern = as_pattern(mask)
    _check("conv_transpose2d", x, weight, pattern, bias, transpose=True, groups=groups)
    size = (x.shape[0], x.shape[2], x.shape[3])
    layer = Layer("transpose", tuple(weight.shape), *size, stride, padding, output_padding, groups)
    if min(layer.out_size) < 1:
        raise KernelError(f"conv_transpose2d: padding {padding} leaves nothing of x {tuple(x.shape)}")
    return _run(layer, x, weight, bias, pattern, options)


def linear(
    x: Tensor, weight: Tensor, mask: Tensor | Pattern, bias: Tensor | None = None, **options: Unpack[Options]
) -> Tensor:
    """``F.linear(x, where(mask, weight, 0), bias)`` for ``x`` ``[..., in]`` and a weight ``[out, in]``.

    All else is as for :func:`conv2d`.
    """
    pattern = as_pattern(mask)
    points = x.reshape(-1, x.shape[-1]) if x.dim() != 2 else x
    _check("linear", points, weight, pattern, bias, dims=2)
    layer = Layer("linear", tuple(weight.shape), points.shape[0])
    out = _run(layer, points, weight, bias, pattern, options)
    return out if x.dim() == 2 else out.reshape(*x.shape[:-1], weight.shape[0])
