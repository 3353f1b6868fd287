"""Masked layers on ordinary tensors: the same numbers as torch, computed at the kept weights only where that is faster.

``conv2d(x, weight, mask)`` means ``F.conv2d(x, where(mask, weight, 0))``; the two others likewise. Nothing about the
tensors changes: the weight stays dense (it may be the output of a spectral norm), the gradient has its shape.

When is a call computed sparse? On a CPU, in float32, outside autocast and graph capture, when the native kernels are
there (:func:`gancompress.kernels.status`), and when the density is below the break-even that was *measured* for this
layer on this machine (:mod:`gancompress.kernels.tuning`). In all other cases, dense.

A map may lie in memory batch last (:mod:`gancompress.kernels.layout`), which spares the kernels all copying. The result
of a sparse call lies as its input does, or batch last when ``batch_last`` asks for it.

What stays as dense does it: an input or a gradient with NaN or Inf makes the call fall back to dense arithmetic, for
``0 * inf`` spreads through masked weights too; a gradient of a gradient (``create_graph=True``, as for R1 or gradient
penalties) is computed dense. What masked positions of ``weight`` hold is never looked at, finite or not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancompress.errors import KernelError
from gancompress.kernels import calls, tuning
from gancompress.kernels.layout import LANES, is_batch_last, rows_of, to_batch_last, to_images
from gancompress.kernels.native_library import Library, library
from gancompress.kernels.pattern import Pattern, Plan, as_pattern
from gancompress.kernels.tuning import Layer, Mode

__all__ = ["conv2d", "conv_transpose2d", "keep", "linear"]


class _Keep(torch.autograd.Function):
    """``where(mask, weight, 0)``; the gradient is masked too, or passes whole when the dense one is asked for."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, dense_gradient: bool) -> Tensor:
        ctx.dense_gradient = dense_gradient
        ctx.save_for_backward(mask)
        return torch.where(mask, weight, torch.zeros((), dtype=weight.dtype, device=weight.device))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        if ctx.dense_gradient:
            return gradient, None, None
        (mask,) = ctx.saved_tensors
        return torch.where(mask, gradient, torch.zeros((), dtype=gradient.dtype, device=gradient.device)), None, None


def keep(weight: Tensor, pattern: Pattern, dense_gradient: bool = False) -> Tensor:
    """``weight`` with zeros off the pattern, as dense arithmetic needs it.

    Args:
        weight: dense weight of the pattern's shape.
        pattern: what is kept.
        dense_gradient: let the gradient through at masked positions too.
    """
    if pattern.mask.device != weight.device:
        return _apply(_Keep, weight, pattern.mask.to(weight.device), dense_gradient)
    return _apply(_Keep, weight, pattern.mask, dense_gradient)


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    result: Tensor = function.apply(*args)
    return result


def _dense(layer: Layer, x: Tensor, kept: Tensor, bias: Tensor | None) -> Tensor:
    if layer.op == "linear":
        return F.linear(x, kept, bias)
    if layer.op == "conv":
        return F.conv2d(x, kept, bias, layer.stride, layer.padding)
    return F.conv_transpose2d(x, kept, bias, layer.stride, layer.padding, layer.output_padding)


def _dense_gradients(
    layer: Layer, gradient: Tensor, x: Tensor, kept: Tensor, want: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients towards the input and the whole weight, differentiable themselves."""
    if layer.op == "linear":
        return gradient @ kept if want[0] else None, gradient.t() @ x if want[1] else None
    s, p, o = [layer.stride] * 2, [layer.padding] * 2, [layer.output_padding] * 2
    result = torch.ops.aten.convolution_backward(
        gradient, x, kept, None, s, p, [1, 1], layer.op == "transpose", o, 1, [*want, False]
    )
    return result[0], result[1]


def _forward_plan(lib: Library, layer: Layer, pattern: Pattern) -> Plan:
    make = pattern.phased if layer.op == "transpose" else pattern.direct
    return make(lib, layer.stride, layer.padding, _grid(layer, layer.out_size))


def _backward_plans(lib: Library, layer: Layer, pattern: Pattern) -> tuple[Plan, Plan]:
    """The plans of the gradients towards the input and towards the weight."""
    here, there = (_grid(layer, size) for size in ((layer.height, layer.width), layer.out_size))
    stride, padding = layer.stride, layer.padding
    if layer.op == "transpose":
        return pattern.direct(lib, stride, padding, here), pattern.weights(lib, stride, padding, here)
    return pattern.phased(lib, stride, padding, here), pattern.weights(lib, stride, padding, there)


def _grid(layer: Layer, size: tuple[int, int]) -> tuple[int, int]:
    return (1, -(-layer.batch // LANES)) if layer.op == "linear" else size


class _Sparse(torch.autograd.Function):
    """A masked layer on the native kernels."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Pattern, layer: Layer, lib: Library,
        dense_gradient: bool, batch_last: bool, pre_relu: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight)
        ctx.pattern, ctx.layer, ctx.lib, ctx.dense_gradient = pattern, layer, lib, dense_gradient
        ctx.pre_relu = pre_relu
        plan = _forward_plan(lib, layer, pattern)
        x, weight = _taken(x.detach()), weight.detach().contiguous()
        bias = None if bias is None else bias.detach().contiguous()
        out = calls.conv(lib, plan, x, weight, bias, layer.out_shape, batch_last=batch_last, pre_relu=pre_relu)
        return _dense(layer, torch.relu(x) if pre_relu else x, keep(weight, pattern), bias) if out is None else out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        need_x, need_w, need_b = ctx.needs_input_grad[:3]
        for_bias = _bias_gradient(gradient) if need_b else None
        layer: Layer = ctx.layer
        if torch.is_grad_enabled():  # a graph of the gradient is wanted: dense operations record one
            kept = keep(weight, ctx.pattern)
            inside = torch.relu(x) if ctx.pre_relu else x
            for_x, for_w = _dense_gradients(layer, gradient, inside, kept, (need_x, need_w))
            if for_x is not None and ctx.pre_relu:
                for_x = torch.where(x <= 0, 0.0, for_x)
            if for_w is not None and not ctx.dense_gradient:
                for_w = keep(for_w, ctx.pattern)
        else:
            for_x, for_w = _sparse_gradients(ctx, _taken(gradient), _taken(x), weight.contiguous())
        return for_x, for_w, for_bias, None, None, None, None, None, None


def _taken(x: Tensor) -> Tensor:
    """``x`` in a memory format that the kernels take."""
    return x if is_batch_last(x) else x.contiguous()


def _bias_gradient(gradient: Tensor) -> Tensor:
    if gradient.dim() != 4:
        return gradient.sum(0)
    return rows_of(gradient).sum((0, 2, 3)) if is_batch_last(gradient) else gradient.sum((0, 2, 3))


def _sparse_gradients(ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor | None, Tensor | None]:
    need_x, need_w = ctx.needs_input_grad[:2]
    lib: Library = ctx.lib
    layer: Layer = ctx.layer
    pattern: Pattern = ctx.pattern
    for_x = for_w = None
    want = (need_x, need_w and not ctx.dense_gradient)
    if any(want):
        plans = _backward_plans(lib, layer, pattern)
        transpose = layer.op == "transpose"
        done = calls.backward(
            lib, plans, x, gradient, weight, transpose=transpose, want=want, pre_relu=ctx.pre_relu
        )  # fmt: skip
        for_x, for_w = done or (None, None)
    missing = (need_x and for_x is None, need_w and for_w is None)
    if any(missing):  # asked for, or something is not finite
        images = to_images(x)
        inside = torch.relu(images) if ctx.pre_relu else images
        dense_x, dense_w = _dense_gradients(layer, to_images(gradient), inside, keep(weight, pattern), missing)
        if dense_x is not None and ctx.pre_relu:
            dense_x = torch.where(images <= 0, 0.0, dense_x)
        if dense_w is not None and not ctx.dense_gradient:
            dense_w = keep(dense_w, pattern)
        for_x = dense_x if missing[0] else for_x
        for_w = dense_w if missing[1] else for_w
    return for_x, for_w


def _plain(t: Tensor) -> bool:
    return t.dtype == torch.float32 and t.device.type == "cpu" and type(t) in (Tensor, torch.nn.Parameter)


def _may_run_sparse(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        _plain(x)
        and _plain(weight)
        and (bias is None or _plain(bias))
        and x.shape[0] > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()  # whoever watches operations is to see them
        and not torch._C._is_tracing()
        and not torch._C._are_functorch_transforms_active()
    )


def _run(
    layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Pattern, dense_gradient: bool,
    sparse: Mode | None, masked: bool, table: dict[str, float] | None, batch_last: bool = False,
    pre_relu: bool = False,
) -> Tensor:  # fmt: skip
    lib = library()
    if lib is not None and _may_run_sparse(x, weight, bias):
        last = x.dim() == 4 and x.shape[0] % LANES == 0 and (batch_last or is_batch_last(x))
        training = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        shape = replace(layer, batch_last=last)
        if tuning.choose(shape, pattern.density, training=training, mode=sparse, table=table) == "sparse":
            fits = pre_relu and layer.op == "conv"
            x = torch.relu(x) if pre_relu and not fits else x
            return _apply(_Sparse, x, weight, bias, pattern, layer, lib, dense_gradient, last, fits)
        if last and is_batch_last(x):  # torch's convolutions would convert one number at a time
            x = to_images(x)
            kept = weight if masked else keep(weight, pattern, dense_gradient)
            return to_batch_last(_dense(layer, torch.relu(x) if pre_relu else x, kept, bias))
    x = torch.relu(x) if pre_relu else x
    return _dense(layer, x, weight if masked else keep(weight, pattern, dense_gradient), bias)


def _check(
    name: str, x: Tensor, weight: Tensor, pattern: Pattern, bias: Tensor | None, dims: int, transpose: bool
) -> None:
    if tuple(weight.shape) != pattern.shape:
        raise KernelError(f"{name}: the mask has shape {pattern.shape}, the weight {tuple(weight.shape)}")
    if weight.dim() != dims or x.dim() != dims:
        raise KernelError(f"{name}: needs {dims}-d tensors, got x {tuple(x.shape)} and weight {tuple(weight.shape)}")
    takes, gives = (weight.shape[0], weight.shape[1]) if transpose else (weight.shape[1], weight.shape[0])
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
    dense_gradient: bool = False,
    sparse: Mode | None = None,
    masked: bool = False,
    table: dict[str, float] | None = None,
    batch_last: bool = False,
    pre_relu: bool = False,
) -> Tensor:
    """``F.conv2d(x, where(mask, weight, 0), bias, stride, padding)``.

    Args:
        x: ``[N, C, H, W]``.
        weight: dense, ``[R, C, kh, kw]``.
        mask: bool of the weight's shape, or the :class:`Pattern` of one. A tensor is looked up by identity and version,
            so passing the same mask again costs nothing, and changing it in place is noticed.
        bias: ``[R]`` or None.
        stride: of both dimensions.
        padding: zeros on every side.
        dense_gradient: give the gradient at masked positions too, as growth criteria need; else it is exactly 0 there.
        sparse: ``"always"``, ``"never"`` or ``"auto"``; default: ``GANCOMPRESS_SPARSE``, else ``"auto"``.
        masked: the weight is exactly 0 off the mask already and the caller masks its gradient, so that dense arithmetic
            is the plain operation and its gradient always whole.
        table: see :func:`gancompress.kernels.break_even`.
        batch_last: when computed sparse, lay the result out batch last, if the batch is a multiple of 16.
        pre_relu: take ``relu(x)``.

    Returns:
        ``[N, R, Ho, Wo]``; when computed sparse it lies in memory as ``x`` does, contiguous or batch last.

    Raises:
        KernelError: shapes do not fit, or the mask is no bool mask.
    """
    pattern = as_pattern(mask)
    _check("conv2d", x, weight, pattern, bias, 4, transpose=False)
    layer = Layer("conv", tuple(weight.shape), x.shape[0], x.shape[2], x.shape[3], stride, padding)
    if min(layer.out_size) < 1:
        raise KernelError(f"conv2d: x {tuple(x.shape)} is smaller than the kernel {tuple(weight.shape[2:])}")
    return _run(layer, x, weight, bias, pattern, dense_gradient, sparse, masked, table, batch_last, pre_relu)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    mask: Tensor | Pattern,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dense_gradient: bool = False,
    sparse: Mode | None = None,
    masked: bool = False,
    table: dict[str, float] | None = None,
    batch_last: bool = False,
) -> Tensor:
    """``F.conv_transpose2d(x, where(mask, weight, 0), bias, stride, padding, output_padding)``.

    Args:
        x: ``[N, C, H, W]``.
        weight: dense, ``[C, R, kh, kw]``.
        mask: as for :func:`conv2d`.
        bias: ``[R]`` or None.
        stride: of both dimensions.
        padding: cut from every side of the result.
        output_padding: rows and columns added at its end.
        dense_gradient: as for :func:`conv2d`.
        sparse: as for :func:`conv2d`.
        masked: as for :func:`conv2d`.
        table: as for :func:`conv2d`.
        batch_last: as for :func:`conv2d`.

    Raises:
        KernelError: as :func:`conv2d`.
    """
    pattern = as_pattern(mask)
    _check("conv_transpose2d", x, weight, pattern, bias, 4, transpose=True)
    layer = Layer("transpose", tuple(weight.shape), x.shape[0], x.shape[2], x.shape[3], stride, padding, output_padding)
    if min(layer.out_size) < 1:
        raise KernelError(f"conv_transpose2d: padding {padding} leaves nothing of x {tuple(x.shape)}")
    return _run(layer, x, weight, bias, pattern, dense_gradient, sparse, masked, table, batch_last)


def linear(
    x: Tensor,
    weight: Tensor,
    mask: Tensor | Pattern,
    bias: Tensor | None = None,
    *,
    dense_gradient: bool = False,
    sparse: Mode | None = None,
    masked: bool = False,
    table: dict[str, float] | None = None,
) -> Tensor:
    """``F.linear(x, where(mask, weight, 0), bias)``.

    Args:
        x: ``[..., in]``.
        weight: dense, ``[out, in]``.
        mask: as for :func:`conv2d`.
        bias: ``[out]`` or None.
        dense_gradient: as for :func:`conv2d`.
        sparse: as for :func:`conv2d`.
        masked: as for :func:`conv2d`.
        table: as for :func:`conv2d`.

    Raises:
        KernelError: as :func:`conv2d`.
    """
    pattern = as_pattern(mask)
    points = x.reshape(-1, x.shape[-1]) if x.dim() != 2 else x
    _check("linear", points, weight, pattern, bias, 2, transpose=False)
    layer = Layer("linear", tuple(weight.shape), points.shape[0])
    out = _run(layer, points, weight, bias, pattern, dense_gradient, sparse, masked, table)
    return out if x.dim() == 2 else out.reshape(*x.shape[:-1], weight.shape[0])
