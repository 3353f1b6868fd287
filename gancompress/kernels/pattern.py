"""The fixed part of a sparse layer: where its kept weights are, ready for the kernels.

A :class:`Pattern` belongs to one mask. It builds the index structures ("plans") that each direction and output size
needs when they are first asked for, and keeps them until the mask changes.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gancompress.errors import KernelError
from gancompress.kernels.native_library import PHASED, Library, PlanShape

__all__ = ["OUTPUTS_IN_LANES", "Pattern", "as_pattern", "blocks_of_outputs"]

#: output channels that are computed side by side where a mask keeps or drops them as one
OUTPUTS_IN_LANES = 16


@dataclass(frozen=True)
class PlanKey:
    """What a plan depends on beside the mask; pairs are of rows and columns.

    Attributes:
        kind: ``DIRECT``: a convolution, or a transposed one's input gradient; ``PHASED``: a transposed convolution, or
            a plain one's input gradient; ``WEIGHTS``: the weight gradient of either.
        stride: of the layer.
        padding: of the layer, above and to the left.
        grid: rows and columns of one phase of the result.
        isa: the instruction set.
        dilation: of the layer.
        groups: of the layer.
        shuffle: the factor of the pixel shuffle behind a convolution.
        flat: for the kernel that takes one image with pixels in the lanes.
        regions: whether several register tiles may be packed at a time.
        blocks: rows that share every entry, whose sums are kept side by side.
        in_lanes: for the kernel that takes one image with outputs in the lanes; the mask is one of blocks.
        pairs: for products of pairs of input channels, in bf16.
    """

    kind: int
    stride: tuple[int, int]
    padding: tuple[int, int]
    grid: tuple[int, int]
    isa: str
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    shuffle: int = 1
    flat: bool = False
    regions: bool = False
    blocks: int = 1
    in_lanes: bool = False
    pairs: bool = False


def blocks_of_outputs(mask: Tensor, transpose: bool) -> Tensor:
    """Return which blocks of sixteen consecutive output channels keep anything.

    Args:
        mask: of a convolution ``[R, C, kh, kw]``, or of a transposed one ``[C, R, kh, kw]``; sixteen divides R.
        transpose: which of both.
    """
    return _any_of(mask, 1 if transpose else 0, OUTPUTS_IN_LANES)


def _pairs_of_inputs(mask: Tensor, transpose: bool) -> Tensor:
    """Return which pairs of consecutive input channels of a mask keep anything, as :func:`blocks_of_outputs`."""
    return _any_of(mask, 0 if transpose else 1, 2).contiguous()


def _any_of(mask: Tensor, axis: int, size: int) -> Tensor:
    return mask.reshape(*mask.shape[:axis], -1, size, *mask.shape[axis + 1 :]).any(axis + 1)


class Plan:
    """Owns one native plan."""

    def __init__(self, lib: Library, mask: Tensor, key: PlanKey) -> None:
        # without tiles and chunk: the library chooses them
        if key.pairs:
            mask = _pairs_of_inputs(mask, key.kind == PHASED)
        shape = PlanShape(
            key.kind, *mask.shape, *key.stride, *key.padding, *key.dilation, key.groups, key.shuffle, int(key.flat),
            *key.grid, 0, 0, *((0, 0) if key.regions else (1, 1)), 0, key.blocks,
            int(key.in_lanes), 2 if key.pairs else 1,
        )  # fmt: skip
        address = lib.raw.gc_plan_new(mask.data_ptr(), ctypes.byref(shape), lib.isa_index)
        if not address:
            raise KernelError(f"no sparse plan for a weight of shape {tuple(mask.shape)} with {key}")
        self.address: int = address
        weakref.finalize(self, lib.raw.gc_plan_free, address)


class Pattern:
    """The kept positions of one weight.

    Args:
        mask: bool tensor of the weight's shape, ``[out, in, kh, kw]`` (convolution), ``[in, out, kh, kw]`` (transposed
            convolution) or ``[out, in]`` (linear). It is copied: later changes of the tensor are not seen; make a new
            pattern, or pass the mask itself to the operators, which notice changes.

    Raises:
        KernelError: the mask is not a bool tensor with two or four dimensions, or is empty.
    """

    def __init__(self, mask: Tensor) -> None:
        if mask.dtype != torch.bool:
            raise KernelError(f"a mask is a bool tensor, got {mask.dtype}")
        if mask.dim() not in (2, 4) or mask.numel() == 0:
            raise KernelError(f"a mask has the shape of a linear or 2-d convolution weight, got {tuple(mask.shape)}")
        self.mask = mask.detach().clone(memory_format=torch.contiguous_format)
        self.shape: tuple[int, ...] = tuple(mask.shape)
        self.kept = int(self.mask.sum())
        self._host = self.mask.cpu().reshape(*self.shape, *(1,) * (4 - mask.dim()))
        self._plans: dict[PlanKey, Plan] = {}
        self._lock = threading.Lock()

    @property
    def density(self) -> float:
        """Share of weights kept, in [0, 1]."""
        return self.kept / self.mask.numel()

    @functools.cached_property
    def pair_density(self) -> float:
        """Share of the pairs of channels that keep anything, of output and of input channels, their mean.

        Products of pairs take that much of the time of a dense layer; a pattern of 2x2 blocks has its density here.
        Both numbers of channels are even.
        """
        shares = (_any_of(self.mask, axis, 2).float().mean() for axis in (0, 1))
        return float(sum(shares)) / 2

    def plan(
        self,
        lib: Library,
        kind: int,
        stride: int | tuple[int, int],
        padding: int | tuple[int, int],
        out: tuple[int, int],
        **more: Any,
    ) -> Plan:
        """Return the plan of one direction, building it when it is first needed.

        Args:
            lib: the loaded kernels.
            kind: see :class:`PlanKey`.
            stride: of the layer.
            padding: of the layer, above and to the left.
            out: rows and columns of what a convolution makes, or of what a transposed one reads for ``WEIGHTS``.
            **more: what else :class:`PlanKey` has.
        """
        strides = (stride, stride) if isinstance(stride, int) else stride
        sides = (padding, padding) if isinstance(padding, int) else padding
        shuffle = more.get("shuffle", 1)
        phases = strides if kind == PHASED else (shuffle, shuffle)
        rows, columns = (-(-side // of) for side, of in zip(out, phases, strict=True))
        key = PlanKey(kind, strides, sides, (rows, columns), lib.isa, **more)
        plan = self._plans.get(key)
        if plan is None:
            with self._lock:
                plan = self._plans.get(key) or Plan(lib, self._host, key)
                self._plans[key] = plan
        return plan

    def __deepcopy__(self, memo: dict[int, Any]) -> Pattern:
        return self  # never changes: copies of a model may share it

    def __reduce__(self) -> tuple[type[Pattern], tuple[Tensor]]:
        return Pattern, (self.mask,)

    def __repr__(self) -> str:
        return f"Pattern(shape={self.shape}, kept={self.kept}, density={self.density:.4g})"


# Patterns of masks passed as tensors, by identity; an entry dies with its mask.
_known: dict[int, tuple[weakref.ReferenceType[Tensor], int, Pattern]] = {}


def as_pattern(mask: Tensor | Pattern) -> Pattern:
    """Return the pattern of ``mask``, built anew only when the tensor was changed in place since the last call.

    Args:
        mask: a pattern (returned as it is) or a bool mask.

    Raises:
        KernelError: as :class:`Pattern`.
    """
    if isinstance(mask, Pattern):
        return mask
    key = id(mask)
    known = _known.get(key)
    if known is not None and known[0]() is mask and known[1] == mask._version:
        return known[2]
    pattern = Pattern(mask)

    def forget(_: Any, key: int = key) -> None:
        _known.pop(key, None)

    _known[key] = (weakref.ref(mask, forget), mask._version, pattern)
    return pattern
