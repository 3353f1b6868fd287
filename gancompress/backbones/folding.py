"""A 3x3 convolution beside a change of resolution, computed as one convolution: the same result, fewer products.

* ``up``: nearest upsampling by two, then a 3x3 convolution, is one transposed 4x4 convolution of stride 2.
* ``down``: a 3x3 convolution, then 2x2 average pooling, is one 4x4 convolution of stride 2.

Both do 16 products where the written order does 36. They follow from linearity: repeating or averaging pixels is a sum
over a 2x2 box, which can be taken over the kernel instead. (The third such identity, that a 1x1 convolution commutes
with both, is built into :class:`~gancompress.backbones.layers.PointwiseShortcut`.) The 4x4 kernel is linear in the 3x3
one, so masks, spectral norm and gradients, of gradients too, pass through; results agree to rounding.

Of a sparse kernel the folded one keeps fewer than four times as many positions, each met by a quarter of the pixels: it
runs on the sparse kernels like any other layer, and the map between convolution and resampling never exists.

Parameters, their names and the modules stay as they are: :func:`attach` leaves a note on a convolution, which
:func:`~gancompress.backbones.layers.upsampled` and :func:`~gancompress.backbones.layers.averaged` look for. A network
without notes, and any network in evaluation mode, is computed as written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancompress import kernels
from gancompress.kernels.layout import to_images

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Fold", "FoldKind", "attach", "attached", "compute", "detach", "folded", "matrix", "resampling"]

FoldKind: TypeAlias = Literal["up", "down"]

_NAME = "_gancompress_fold"


def matrix(kind: FoldKind, like: Tensor | None = None) -> Tensor:
    """Return the (16, 9) matrix that takes a 3x3 kernel to the 4x4 one.

    Args:
        kind: which of the two.
        like: gives dtype and device; default: float32 on the CPU.
    """
    # in one dimension: pixel 2i-1+j of the large map meets position k of the kernel in j - k = 0 or 1 (down), and in
    # j + k - 2 = 0 or 1 (up, where the kernel of a transposed convolution runs backwards)
    rows = [[(j - k if kind == "down" else j + k - 2) in (0, 1) for k in range(3)] for j in range(4)]
    once = torch.tensor(rows, dtype=torch.float64) * (0.5 if kind == "down" else 1.0)
    both = torch.kron(once, once)
    return both.float() if like is None else both.to(like)


def folded(weight: Tensor, kind: FoldKind, by: Tensor | None = None) -> Tensor:
    """Return the 4x4 kernel: ``[C, R, 4, 4]`` of a transposed convolution (up), ``[R, C, 4, 4]`` (down).

    Both are applied with stride 2 and padding 1.

    Args:
        weight: ``[R, C, 3, 3]`` of a convolution with stride 1 and padding 1.
        kind: what stands beside it.
        by: :func:`matrix`, when it is at hand.
    """
    by = matrix(kind, weight) if by is None else by
    rows, columns = weight.shape[:2]
    if weight.stride(1) == 1 and columns > 1:  # channels last: the result is too
        kernel = torch.matmul(by, weight.permute(0, 2, 3, 1).reshape(rows, 9, columns))
        kernel = kernel.view(rows, 4, 4, columns).permute(0, 3, 1, 2)
    else:
        kernel = F.linear(weight.reshape(rows, columns, 9), by).view(rows, columns, 4, 4)
    return kernel.transpose(0, 1) if kind == "up" else kernel


@dataclass
class Fold:
    """How one convolution of a network in training is computed.

    Attributes:
        kind: what stands beside it.
        by: :func:`matrix`, on the device and in the type of the weight.
        above: it is folded when its density is above this: 0 always, 1 never. None is not decided yet: as written,
            and :attr:`seen` is kept.
        seen: height and width of the last input while nothing was decided.
        kernel: the folded kernel of a network that is not trained any more; used in evaluation mode too.
    """

    kind: FoldKind
    by: Tensor
    above: float | None = None
    seen: tuple[int, int] | None = None
    kernel: Tensor | None = None
    _sparse: tuple[kernels.Pattern, kernels.Pattern] | None = None

    def pattern(self, of: kernels.Pattern) -> kernels.Pattern:
        """Return where the folded kernel is not 0, given where the 3x3 one may not be."""
        if self._sparse is None or self._sparse[0] is not of:
            kept = folded(of.mask.to(self.by), self.kind, self.by) != 0
            self._sparse = (of, kernels.Pattern(kept))
        return self._sparse[1]


def _fits(conv: nn.Module) -> bool:
    return (
        isinstance(conv, nn.Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def resampling(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d, FoldKind]]:
    """Yield name, module and kind of every convolution of ``network`` that can be folded.

    Blocks name them in a method ``resampling() -> Iterable[(convolution's attribute, kind)]``.
    """
    for name, block in network.named_modules():
        listed = getattr(block, "resampling", None)
        for attribute, kind in listed() if callable(listed) else ():
            conv = getattr(block, attribute)
            if _fits(conv):
                yield f"{name}.{attribute}" if name else attribute, conv, kind


def attach(conv: nn.Conv2d, kind: FoldKind, above: float | None = None) -> Fold:
    """Leave a note on ``conv``; it replaces an earlier one."""
    how = Fold(kind, matrix(kind, next(conv.parameters()).detach()), above)
    conv.__dict__[_NAME] = how
    return how


def attached(conv: nn.Module) -> Fold | None:
    """Return the note on ``conv``, or None."""
    how = conv.__dict__.get(_NAME)
    return how if isinstance(how, Fold) else None


def detach(conv: nn.Module) -> None:
    """Remove the note."""
    conv.__dict__.pop(_NAME, None)


def compute(conv: nn.Conv2d, x: Tensor, *, relu: bool = False) -> Tensor | None:
    """Return ``conv`` and what stands beside it in folded form, or None when it is to be computed as written.

    Args:
        conv: the convolution.
        x: what comes first: the small map (up), or the large one (down).
        relu: take ``relu(x)``.
    """
    how = attached(conv)
    if how is None:
        return None
    kernel = how.kernel
    if kernel is None:
        if not conv.training:
            return None
        if how.above is None:
            how.seen = (x.shape[2], x.shape[3])
            return None
        sparse = kernels.attached(conv)
        runs = sparse is not None and sparse.sparse != "never"
        if sparse is not None and runs and (sparse.sparse == "always" or sparse.pattern.density <= how.above < 1):
            return _compute_sparse(conv, how, sparse, x, relu)
        if (sparse.pattern.density if sparse is not None and runs else 1.0) <= how.above:
            return None
        # in the weight's own precision: autocast rounds the kernel once, as it would round the weight
        with torch.autocast(x.device.type, enabled=False):
            kernel = folded(conv.weight, how.kind, how.by)
    x = F.relu(to_images(x)) if relu else to_images(x)
    if how.kind == "up":
        return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)
    return F.conv2d(x, kernel, conv.bias, stride=2, padding=1)


def _compute_sparse(conv: nn.Conv2d, how: Fold, sparse: kernels.Attachment, x: Tensor, relu: bool) -> Tensor:
    """Compute ``conv`` in folded form on the sparse kernels."""
    weight = conv.weight if sparse.masked else kernels.keep(conv.weight, sparse.pattern, sparse.dense_gradient)
    kernel, pattern = folded(weight, how.kind, how.by), how.pattern(sparse.pattern)
    if how.kind == "up":
        return kernels.conv_transpose2d(
            F.relu(x) if relu else x, kernel, pattern, conv.bias, stride=2, padding=1, sparse="always", masked=True,
            dense_gradient=sparse.dense_gradient, batch_last=sparse.batch_last,
        )  # fmt: skip
    return kernels.conv2d(
        x, kernel, pattern, conv.bias, stride=2, padding=1, sparse="always", masked=True,
        dense_gradient=sparse.dense_gradient, batch_last=sparse.batch_last, pre_relu=relu,
    )  # fmt: skip
