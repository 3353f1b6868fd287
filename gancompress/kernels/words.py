"""The int8 weights of a convolution of bytes as the kernels take them: words of four, for blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from gancompress.kernels.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gancompress.kernels.steps import ConvStep

__all__ = ["Words", "words_of"]

#: Rows are taken together where that adds no more than this share of words, of zeros.
_MOST_ADDED = 0.1


@dataclass(frozen=True)
class Words:
    """Words of weights.

    Attributes:
        words: int32 ``[*pattern.shape, blocks]``: four weights of consecutive inputs, the first in the lowest byte.
        pattern: where any weight of a block is not zero, ``[R/blocks, C/4, kh, kw]``; transposed
            ``[C/4, R/blocks, kh, kw]``.
        blocks: neighbouring outputs that share it.
    """

    words: Tensor
    pattern: Pattern
    blocks: int


def words_of(step: ConvStep, together: Sequence[int]) -> Words:
    """Return the words of a step's weights, for as many rows at a time as keep the same ones.

    Args:
        step: a convolution of bytes.
        together: numbers of rows that may be taken at a time, preferred ones first.
    """
    kept = step.kept_weight()
    outputs = kept.shape[1] if step.transpose else kept.shape[0] // step.groups
    single = _blocked(kept, 1, step.transpose)
    for blocks in together:
        if outputs % blocks == 0:
            some = _blocked(kept, blocks, step.transpose)
            if some.pattern.kept * blocks <= (1 + _MOST_ADDED) * single.pattern.kept:
                return some
    return single


def _blocked(kept: Tensor, blocks: int, transpose: bool) -> Words:
    inputs = 0 if transpose else 1
    missing = -kept.shape[inputs] % 4
    kept = pad(kept, (0, 0, 0, 0, 0, 0, 0, missing) if transpose else (0, 0, 0, 0, 0, missing))
    size = list(kept.shape)
    outputs = [size[1 - inputs] // blocks, blocks]
    parts = [size[inputs] // 4, 4]
    if transpose:
        spread = kept.reshape(*parts, *outputs, *size[2:]).permute(0, 2, 4, 5, 3, 1)
    else:
        spread = kept.reshape(*outputs, *parts, *size[2:]).permute(0, 2, 4, 5, 1, 3)
    words = spread.reshape(-1).view(torch.int32).reshape(spread.shape[:-1])
    return Words(words, Pattern((words != 0).any(-1)), blocks)
