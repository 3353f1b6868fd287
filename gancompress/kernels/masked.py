"""The arithmetic of a masked layer, sparse on the native kernels or dense in torch, with its gradients: no choice here.

What stays as dense does it: an input or a gradient with NaN or Inf makes a sparse call fall back to dense arithmetic,
for ``0 * inf`` spreads through masked weights too. What masked positions of ``weight`` hold is never looked at, finite
or not, unless the caller says that they are 0. A gradient of a gradient towards the input (``create_graph=True``, as
for R1 and other penalties) runs on the kernels as well: it is linear in what comes back and in the weight, so its own
gradients are the layer and the layer's weight gradient. A third gradient is computed dense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancompress.kernels import calls
from gancompress.kernels.layout import LANES, is_batch_last, rows_of, to_batch_last, to_images
from gancompress.kernels.native_library import DIRECT, PHASED, WEIGHTS

if TYPE_CHECKING:
    from gancompress.kernels.layer import Layer
    from gancompress.kernels.native_library import Library
    from gancompress.kernels.pattern import Pattern, Plan

__all__ = ["dense", "keep", "sparse"]


class _Keep(torch.autograd.Function):
    """``where(mask, weight, 0)``; the gradient is masked too, or passes whole when the dense one is asked for."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, dense_gradient: bool) -> Tensor:
        ctx.dense_gradient = dense_gradient
        ctx.save_for_backward(mask)
        return torch.where(mask, weight, 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        if ctx.dense_gradient:
            return gradient, None, None
        (mask,) = ctx.saved_tensors
        return torch.where(mask, gradient, 0.0), None, None


def keep(weight: Tensor, pattern: Pattern, dense_gradient: bool = False) -> Tensor:
    """``weight`` with zeros off the pattern, as dense arithmetic needs it.

    Args:
        weight: dense weight of the pattern's shape.
        pattern: what is kept.
        dense_gradient: let the gradient through at masked positions too.
    """
    return _apply(_Keep, weight, pattern.mask.to(weight.device), dense_gradient)


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    result: Tensor = function.apply(*args)
    return result


def _dense(layer: Layer, x: Tensor, kept: Tensor, bias: Tensor | None) -> Tensor:
    if layer.op == "linear":
        return F.linear(x, kept, bias)
    if layer.op == "conv":
        return F.conv2d(x, kept, bias, layer.stride, layer.padding, 1, layer.groups)
    return F.conv_transpose2d(x, kept, bias, layer.stride, layer.padding, layer.output_padding, layer.groups)


def _dense_gradients(
    ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, want: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients towards the input and the weight, differentiable themselves."""
    layer: Layer = ctx.layer
    kept, inside = keep(weight, ctx.pattern), torch.relu(x) if ctx.pre_relu else x
    for_x: Tensor | None
    for_w: Tensor | None
    if layer.op == "linear":
        for_x, for_w = gradient @ kept if want[0] else None, gradient.t() @ inside if want[1] else None
    else:
        s, p, o = [layer.stride] * 2, [layer.padding] * 2, [layer.output_padding] * 2
        for_x, for_w, _ = torch.ops.aten.convolution_backward(
            gradient, inside, kept, None, s, p, [1, 1], layer.op == "transpose", o, layer.groups, [*want, False]
        )
    if for_x is not None and ctx.pre_relu:
        for_x = torch.where(x <= 0, 0.0, for_x)
    if for_w is not None and not ctx.dense_gradient:
        for_w = keep(for_w, ctx.pattern)
    return for_x, for_w


def _backward_plans(lib: Library, layer: Layer, pattern: Pattern) -> tuple[Plan, Plan]:
    """The plans of the gradients towards the input and towards the weight."""
    here, there = (_grid(layer, size) for size in ((layer.height, layer.width), layer.out_size))
    transpose = layer.op == "transpose"
    return (
        _plan(lib, layer, pattern, DIRECT if transpose else PHASED, here),
        _plan(lib, layer, pattern, WEIGHTS, here if transpose else there),
    )


def _plan(lib: Library, layer: Layer, pattern: Pattern, kind: int, out: tuple[int, int]) -> Plan:
    pairs = layer.in_pairs and kind != WEIGHTS
    return pattern.plan(lib, kind, layer.stride, layer.padding, out, groups=layer.groups, pairs=pairs)


def _grid(layer: Layer, size: tuple[int, int]) -> tuple[int, int]:
    return (1, -(-layer.batch // LANES)) if layer.op == "linear" else size


class _Sparse(torch.autograd.Function):
    """A masked layer on the native kernels."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Pattern, layer: Layer, lib: Library,
        dense_gradient: bool, pre_relu: bool, masked: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight)
        ctx.pattern, ctx.layer, ctx.lib, ctx.dense_gradient = pattern, layer, lib, dense_gradient
        ctx.pre_relu, ctx.masked = pre_relu, masked
        kind = PHASED if layer.op == "transpose" else DIRECT
        plan = _plan(lib, layer, pattern, kind, _grid(layer, layer.out_size))
        x, weight = _taken(x.detach()), _given(ctx, weight)
        bias = None if bias is None else bias.detach().contiguous()
        out = calls.conv(lib, plan, x, weight, bias, layer.out_shape, batch_last=layer.batch_last, pre_relu=pre_relu)
        if out is not None:
            return out
        # autocast may be on: the result is of one type, whatever was found in the input
        return _dense(layer, torch.relu(x) if pre_relu else x, keep(weight, pattern), bias).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        need_x, need_w, need_b = ctx.needs_input_grad[:3]
        for_bias = _bias_gradient(ctx.lib, gradient) if need_b else None
        if torch.is_grad_enabled():  # a graph of the gradient is wanted
            need_x, need_w = need_x and _asked_for(ctx, 0), need_w and _asked_for(ctx, 1)
            for_x = _apply(_InputGradient, gradient, weight, x.detach(), ctx) if need_x else None
            _, for_w = _dense_gradients(ctx, gradient, x, weight, (False, need_w)) if need_w else (None, None)
        else:
            for_x, for_w = _sparse_gradients(ctx, gradient, x, weight)
        return for_x, for_w, for_bias, None, None, None, None, None, None


class _InputGradient(torch.autograd.Function):
    """The gradient of a masked layer towards its input, as a function of what comes back and of the weight."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, x: Tensor, layer: Any) -> Tensor:
        """``layer`` is the context of the layer itself."""
        ctx.of = layer
        ctx.save_for_backward(gradient, weight, x)
        found = _native_gradients(layer, gradient, x, weight, (True, False))[0]
        if found is None:
            found = _dense_gradients(layer, to_images(gradient), to_images(x), weight, (True, False))[0]
        assert found is not None
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        of, (gradient, weight, x) = ctx.of, ctx.saved_tensors
        layer: Layer = of.layer
        passed = torch.where(x <= 0, 0.0, gradients[0]) if of.pre_relu else gradients[0]
        need_g, need_w = ctx.needs_input_grad[:2]
        for_g = for_w = None
        if torch.is_grad_enabled():
            for_g = _dense(layer, to_images(passed), keep(weight, of.pattern), None) if need_g else None
        elif need_g:
            for_g = sparse(of.lib, layer, passed.detach(), weight.detach(), None, of.pattern, masked=of.masked)
        if need_w:
            inner = _Linear(of)
            for_w = (
                None
                if of.dense_gradient or torch.is_grad_enabled()
                else _native_gradients(inner, gradient, passed, weight, (False, True))[1]
            )
            if for_w is None:
                for_w = _dense_gradients(inner, to_images(gradient), to_images(passed), weight, (False, True))[1]
        return for_g, for_w, None, None


class _Linear:
    """A layer's context without the ReLU in front of it."""

    def __init__(self, of: Any) -> None:
        self.layer, self.pattern, self.lib, self.dense_gradient = of.layer, of.pattern, of.lib, of.dense_gradient
        self.masked, self.pre_relu = of.masked, False


def _asked_for(ctx: Any, index: int) -> bool:
    """Whether the gradient towards an input is used, where ``autograd.grad`` was asked for some alone.

    ``needs_input_grad`` does not say so; a penalty on the input's gradient would pay for the weight's as well.
    """
    node = ctx.next_functions[index][0]
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # a leaf that was asked for
        return True


def _taken(x: Tensor) -> Tensor:
    """``x`` in a memory format that the kernels take."""
    return x if is_batch_last(x) else x.contiguous()


def _given(ctx: Any, weight: Tensor) -> Tensor:
    """``weight`` as the kernels take it; those for pairs read what is masked beside a kept weight too."""
    if ctx.layer.in_pairs and not ctx.masked:
        return torch.where(ctx.pattern.mask, weight.detach(), 0.0)
    return weight.detach().contiguous()


def _bias_gradient(lib: Library, gradient: Tensor) -> Tensor:
    if gradient.dim() != 4:
        return gradient.sum(0)
    if gradient.dtype == torch.float32 and not torch.is_grad_enabled() and is_batch_last(gradient):
        return calls.totals(lib, gradient)
    return rows_of(gradient).sum((0, 2, 3)) if is_batch_last(gradient) else gradient.sum((0, 2, 3))


def _native_gradients(
    ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, want: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients on the kernels; None where one is not wanted, or something is not finite."""
    layer: Layer = ctx.layer
    plans = _backward_plans(ctx.lib, layer, ctx.pattern)
    how = {"transpose": layer.op == "transpose", "want": want, "pre_relu": ctx.pre_relu, "bf16": layer.in_pairs}
    given = (_taken(x.detach()), _taken(gradient.detach()), _given(ctx, weight))
    return calls.backward(ctx.lib, plans, *given, **how) or (None, None)


def _sparse_gradients(ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor | None, Tensor | None]:
    need_x, need_w = ctx.needs_input_grad[:2]
    want = (need_x, need_w and not ctx.dense_gradient)
    for_x, for_w = _native_gradients(ctx, gradient, x, weight, want) if any(want) else (None, None)
    missing = (need_x and for_x is None, need_w and for_w is None)
    if any(missing):  # asked for, or something is not finite
        dense_x, dense_w = _dense_gradients(ctx, to_images(gradient), to_images(x), weight, missing)
        for_x, for_w = dense_x if missing[0] else for_x, dense_w if missing[1] else for_w
    return for_x, for_w


def sparse(
    lib: Library, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Pattern,
    *, dense_gradient: bool = False, pre_relu: bool = False, masked: bool = False,
) -> Tensor:  # fmt: skip
    """Compute a layer at its kept weights; the result lies batch last where ``layer`` says so.

    Args:
        lib: the loaded kernels.
        layer: the shape of all tensors.
        x: the input, ``layer.in_shape``.
        weight: dense; masked positions may hold anything, if not ``masked``.
        bias: per output channel, or None.
        pattern: what is kept.
        dense_gradient: give the gradient at masked positions too.
        pre_relu: take ``relu(x)``.
        masked: the weight is exactly 0 off the mask already.
    """
    inside = pre_relu and layer.op == "conv"
    x = torch.relu(x) if pre_relu and not inside else x
    return _apply(_Sparse, x, weight, bias, pattern, layer, lib, dense_gradient, inside, masked)


def dense(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, *, pre_relu: bool = False) -> Tensor:
    """Compute a layer whose weight has its zeros already; a batch-last map gives one, at full speed."""
    if layer.batch_last and layer.pointwise:
        return _product(to_batch_last(torch.relu(x) if pre_relu else x), weight, bias)
    unusual = layer.batch_last and is_batch_last(x)  # torch's convolutions would convert one number at a time
    x = to_images(x) if unusual else x
    out = _dense(layer, torch.relu(x) if pre_relu else x, weight, bias)
    return to_batch_last(out) if unusual else out


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution of a batch-last map, which is a product of matrices as it lies."""
    n, c, h, w = x.shape
    rows, points = weight.reshape(-1, c), x.permute(1, 2, 3, 0).reshape(c, -1)
    out = rows @ points if bias is None else torch.addmm(bias[:, None], rows, points)
    return out.view(-1, h, w, n).permute(3, 0, 1, 2)
