"""2:4 on a GPU: layers that keep at most two of every four inputs, on its units for sparse matrices.

torch multiplies such matrices (``torch.sparse.to_sparse_semi_structured``) by dense ones, in half precision, from
compute capability 8.0 on. A linear layer is that as it stands. A convolution is brought into the form: its weight and
the patches it sees are laid out tap after tap with the inputs of one tap side by side, so that the four inputs of a
group, consecutive at one position of the kernel, lie in a row.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SemiStructuredConv2d", "SemiStructuredLinear", "keeps_two_of_four", "semi_structured", "two_of_four"]

#: rows and columns that torch's kernels for half precision divide a matrix into, by the stricter of the two
_ROWS, _COLUMNS = 32, 64


def keeps_two_of_four(weight: Tensor) -> bool:
    """Whether no four consecutive inputs (axis 1) of a weight, (O, I, *kernel), have more than two that are not 0.

    The last group is shorter where four do not divide the inputs.
    """
    groups = F.pad((weight != 0).movedim(1, -1), (0, -weight.shape[1] % 4)).reshape(-1, 4)
    return bool((groups.sum(1) <= 2).all())


def two_of_four(weight: Tensor) -> Tensor:
    """Return a weight, (O, I, *kernel), with the two largest of every four consecutive inputs, which four divides."""
    groups = weight.movedim(1, -1).unflatten(-1, (-1, 4))  # type: ignore[no-untyped-call]
    kept: Tensor = groups.scatter(-1, groups.abs().topk(2, -1, largest=False).indices, 0.0)
    return kept.flatten(-2).movedim(-1, 1)


class SemiStructuredLinear(nn.Module):
    """A linear layer whose weight is stored in two of four.

    Args:
        layer: the layer.
        compress: makes the stored matrix of a dense one, (O, I).
    """

    matrix: Tensor

    def __init__(self, layer: nn.Linear, compress: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.register_buffer("matrix", compress(layer.weight.detach()), persistent=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, O) of inputs (…, I)."""
        return F.linear(x, self.matrix, self.bias)


class SemiStructuredConv2d(nn.Module):
    """A convolution whose weight is stored in two of four, as a matrix of (O, kernel positions times inputs).

    Args:
        layer: the convolution: one group, no dilation, zeros around the image.
        compress: makes the stored matrix of a dense one.
    """

    matrix: Tensor

    def __init__(self, layer: nn.Conv2d, compress: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        matrix = layer.weight.detach().permute(0, 2, 3, 1).flatten(1).contiguous()
        self.register_buffer("matrix", compress(matrix), persistent=False)
        self.bias = layer.bias
        self.kernel, self.stride = layer.kernel_size, layer.stride
        top, left = (int(size) for size in layer.padding)
        self.around = (0, 0, left, left, top, top)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, O, H', W'), in the channels-last format, of images (B, I, H, W)."""
        images = F.pad(x.permute(0, 2, 3, 1), self.around)
        (high, wide), (down, across) = self.kernel, self.stride
        # (B, H', W', I, high, wide), a view; the inputs go last
        patches = images.unfold(1, high, down).unfold(2, wide, across).permute(0, 1, 2, 4, 5, 3)
        rows, columns = patches.shape[1:3]
        patches = patches.flatten(3).flatten(0, 2)
        out = F.linear(patches, self.matrix, self.bias)
        return out.reshape(len(x), rows, columns, -1).permute(0, 3, 1, 2)


def semi_structured(
    network: nn.Module, compress: Callable[[Tensor], Tensor] = torch.sparse.to_sparse_semi_structured
) -> tuple[nn.Module, dict[str, str]]:
    """Return a copy of a network whose 2:4 layers run on a GPU's units for sparse matrices. It is for inference.

    Args:
        network: on a GPU of compute capability 8.0 or more, in half precision.
        compress: what makes a stored matrix of a dense one.

    Returns:
        The copy, and why each of its other linear layers and convolutions is as before, by name.

    Raises:
        ValueError: no layer fits.
    """
    fast, left = copy.deepcopy(network), {}
    for name, layer in list(fast.named_modules()):
        if not isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            continue
        reason = _unfit(layer)
        if reason:
            left[name] = reason
            continue
        parent, _, attribute = name.rpartition(".")
        kind = SemiStructuredLinear if isinstance(layer, nn.Linear) else SemiStructuredConv2d
        setattr(fast.get_submodule(parent), attribute, kind(layer, compress))  # type: ignore[arg-type]
    if len(left) == sum(isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) for layer in network.modules()):
        reasons = "; ".join(f"{name} {reason}" for name, reason in left.items())
        raise ValueError(f"no layer of the network can be run in 2:4: {reasons or 'it has no layers with weights'}")
    return fast.requires_grad_(False).eval(), left


def _unfit(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> str:
    """Return why a layer stays as it is; empty where it fits."""
    if isinstance(layer, nn.ConvTranspose2d):
        return "is a transposed convolution"
    if type(layer).forward not in (nn.Linear.forward, nn.Conv2d.forward):
        return "computes in a way of its own"
    if nn.utils.parametrize.is_parametrized(layer, "weight"):
        return "computes its weight anew every time: merge its norm first"
    if isinstance(layer, nn.Conv2d):
        if layer.groups != 1:
            return "has groups"
        if layer.dilation != (1, 1):
            return "is dilated"
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return "has another border than zeros"
    if not keeps_two_of_four(layer.weight):
        return "keeps more than two of four inputs"
    rows, columns = len(layer.weight), layer.weight[0].numel()
    if layer.weight.shape[1] % 4 or rows % _ROWS or columns % _COLUMNS:
        return f"is {rows} by {columns}, which {_ROWS} by {_COLUMNS} do not divide"
    return ""
