"""The memory format in which the sparse kernels read and write without copying: images side by side.

A map ``[N, C, H, W]`` is *batch last* when it lies in memory as ``[C, H, W, N]``, N being a multiple of 16. It is an
ordinary tensor with unusual strides: every operation of torch takes it, and elementwise ones keep the format. In the
usual format a sparse layer spends as long on changing the layout, on its way in and out, as on its products at density
0.05.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.kernels.native_library import library

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "empty_batch_last",
    "is_batch_last",
    "is_eager",
    "norm_forward",
    "rows_of",
    "scale",
    "scale_and_shift",
    "to_batch_last",
    "to_images",
]

#: images that the kernels take at a time
LANES = 16
_ALIGNMENT = 64


def is_eager() -> bool:
    """Whether operations run as they are called: nothing compiles, traces, transforms or watches them."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()  # whoever watches operations is to see them
        or torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
    )


def is_batch_last(x: Tensor) -> bool:
    """Whether ``x`` is a batch-last map that the kernels can take as it lies (and no map in the usual format)."""
    if torch.compiler.is_exporting():  # looking at a symbolic size would tie the exported graph to it
        return False
    if x.dim() != 4 or x.shape[0] % LANES or x.is_contiguous():
        return False
    n, c, h, w = x.shape
    wanted = (1, h * w * n, w * n, n)
    fits = all(have == want or size == 1 for have, want, size in zip(x.stride(), wanted, (n, c, h, w), strict=True))
    return fits and x.data_ptr() % _ALIGNMENT == 0


def empty_batch_last(shape: tuple[int, ...]) -> Tensor:
    """Return an uninitialised float32 map of this shape (N, C, H, W), batch last."""
    n, c, h, w = shape
    return torch.empty(c, h, w, n).permute(3, 0, 1, 2)


def rows_of(x: Tensor) -> Tensor:
    """See a batch-last map as ``[1, C, H*W, N]``, contiguous: for what treats every channel alike, order aside."""
    n, c, h, w = x.shape
    return x.permute(1, 2, 3, 0).reshape(1, c, h * w, n)


class _Laid(torch.autograd.Function):
    """A map in the other format; so is its gradient, the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, batch_last: bool) -> Tensor:
        ctx.batch_last = batch_last
        return _copied(x, batch_last)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return to_images(gradients[0]) if ctx.batch_last else to_batch_last(gradients[0]), None


def _copied(x: Tensor, batch_last: bool) -> Tensor:
    lib = library()
    x = x.detach()
    if lib is None or x.dtype != torch.float32 or not (x.is_contiguous() if batch_last else is_batch_last(x)):
        return x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2) if batch_last else x.contiguous()
    shape = tuple(x.shape)
    out = empty_batch_last(shape) if batch_last else torch.empty(shape)
    copy = lib.raw.gc_to_batch_last if batch_last else lib.raw.gc_from_batch_last
    copy(x.data_ptr(), shape[0], x[0].numel(), out.data_ptr())
    return out


def to_batch_last(x: Tensor) -> Tensor:
    """Lay a map (N a multiple of 16) out batch last; one that is is returned as it is."""
    if is_batch_last(x):
        return x
    out: Tensor = _Laid.apply(x, True)
    return out


def to_images(x: Tensor) -> Tensor:
    """Lay a batch-last map out as ``[N, C, H, W]``; any other is returned as it is."""
    if not is_batch_last(x):
        return x
    out: Tensor = _Laid.apply(x, False)
    return out


def scale(x: Tensor, gain: Tensor) -> Tensor:
    """Return ``gain * x`` for a map and a gain per image and channel, ``[N, C]``."""
    if is_batch_last(x):
        gain = gain.t().contiguous().t()
    return x * gain[:, :, None, None]


def scale_and_shift(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Return ``gain * x + bias`` for a map and a gain and a bias per image and channel, ``[N, C]``."""
    if is_batch_last(x):  # numbers that are used together lie together
        gain, bias = gain.t().contiguous().t(), bias.t().contiguous().t()
    return torch.addcmul(bias[:, :, None, None], x, gain[:, :, None, None])


def norm_forward(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm of a map in either format, at full speed: torch's own is slow on unusual strides."""
    plain = type(norm).forward
    if not is_batch_last(x):
        return plain(norm, x)
    n, c, h, w = x.shape
    return plain(norm, rows_of(x)).view(c, h, w, n).permute(3, 0, 1, 2)
