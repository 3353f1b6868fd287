"""A 3x3 convolution beside a change of resolution, computed with fewer products to the same result.

* ``down``: a 3x3 convolution, then 2x2 average pooling. A convolution commutes with a box filter, so the map is
  averaged over boxes first, at every position, and one convolution of stride 2 is left.
* ``up``: nearest upsampling by two, then a 3x3 convolution: a transposed convolution of stride 2, whose result is
  summed over boxes, for repeating pixels is a box filter too.

Both do 9 products where the written order does 36, with the very weight of the layer: masks, spectral norm, dense
gradients and gradients of gradients are those of a convolution, and a sparse kernel keeps what it keeps. Results agree
to rounding. (A third such identity, that a 1x1 convolution commutes with both, is built into
:class:`~gancompress.backbones.layers.PointwiseShortcut`.) Weights that are not trained any more can take the box
themselves (:func:`folded`): one 4x4 convolution and 16 products.

Parameters, their names and the modules stay as they are: :func:`attach` leaves a note on a convolution, which
:func:`~gancompress.backbones.layers.upsampled` and :func:`~gancompress.backbones.layers.averaged` look for. A network
without notes, and any network in evaluation mode, is computed as written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from gancompress import kernels
from gancompress.kernels.layout import to_images
from gancompress.kernels.resample import box_means, box_sums
from gancompress.kernels.upsampling import FoldKind, folded

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Fold", "FoldKind", "attach", "attached", "combined", "compute", "detach", "folded", "resampling", "turned"]

_NAME = "_gancompress_fold"


def turned(weight: Tensor) -> Tensor:
    """Return a weight or mask ``[R, C, 3, 3]`` as a transposed convolution takes it: ``[C, R, 3, 3]``, backwards."""
    return weight.flip(2, 3).transpose(0, 1)


def combined(
    kind: FoldKind,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    relu: bool = False,
    pattern: kernels.Pattern | None = None,
    sparse: kernels.Attachment | None = None,
) -> Tensor:
    """Convolve with padding 1 and change the resolution, in 9 products for 36.

    Args:
        kind: what stands beside the convolution.
        x: what comes first: the small map (up), or the large one (down).
        weight: ``[R, C, 3, 3]``.
        bias: ``[R]`` or None.
        relu: take ``relu(x)``.
        pattern: with it the convolution runs on the sparse kernels; of :func:`turned` (up).
        sparse: settings of these.
    """
    if kind == "up":
        x, weight = F.relu(x) if relu else x, turned(weight)
    else:
        x = box_means(x, relu=relu)
    if pattern is None:
        if kind == "down":
            return F.conv2d(x, weight, bias, stride=2)
        # torch is slow at the bias of a transposed convolution
        out = box_sums(F.conv_transpose2d(x, weight, stride=2))
        return out if bias is None else out + bias.to(out.dtype)[:, None, None]
    if kind == "up":
        bias = None if bias is None else bias * 0.25  # a box has four
    operation = kernels.conv_transpose2d if kind == "up" else kernels.conv2d
    how = sparse or kernels.Attachment(pattern, masked=True)
    out = operation(
        x, weight, pattern, bias, stride=2, sparse="always", masked=how.masked,
        dense_gradient=how.dense_gradient, batch_last=how.batch_last,
    )  # fmt: skip
    return box_sums(out) if kind == "up" else out


@dataclass
class Fold:
    """How one convolution of a network in training is computed.

    Attributes:
        kind: what stands beside it.
        above: it is folded when its density is above this: 0 always, 1 never. None is not decided yet: as written,
            and :attr:`seen` is kept.
        seen: height and width of the last input while nothing was decided.
        kernel: the 4x4 kernel of a network that is not trained any more; used in evaluation mode too.
    """

    kind: FoldKind
    above: float | None = None
    seen: tuple[int, int] | None = None
    kernel: Tensor | None = None
    _sparse: tuple[kernels.Pattern, kernels.Pattern] | None = None

    def pattern(self, of: kernels.Pattern) -> kernels.Pattern:
        """Return the pattern that :func:`combined` takes, given that of the weight."""
        if self.kind == "down":
            return of
        if self._sparse is None or self._sparse[0] is not of:
            self._sparse = (of, kernels.Pattern(turned(of.mask)))
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
    how = Fold(kind, above)
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
    """Return ``conv`` and what stands beside it in one, or None when it is to be computed as written.

    Args:
        conv: the convolution.
        x: what comes first: the small map (up), or the large one (down).
        relu: take ``relu(x)``.
    """
    how = attached(conv)
    if how is None:
        return None
    if how.kernel is not None:
        x = F.relu(x) if relu else x
        if how.kind == "up":
            return F.conv_transpose2d(x, how.kernel, conv.bias, stride=2, padding=1)
        return F.conv2d(x, how.kernel, conv.bias, stride=2, padding=1)
    if not conv.training:
        return None
    if how.above is None:
        how.seen = (x.shape[2], x.shape[3])
        return None
    sparse = kernels.attached(conv)
    if sparse is not None and sparse.sparse != "never":
        density = kernels.counted_density(sparse.pattern)
        if sparse.sparse == "always" or density <= how.above < 1:
            pattern = how.pattern(sparse.pattern)
            return combined(how.kind, x, conv.weight, conv.bias, relu=relu, pattern=pattern, sparse=sparse)
    else:
        density = 1.0
    if density <= how.above:
        return None
    return combined(how.kind, to_images(x), conv.weight, conv.bias, relu=relu)
