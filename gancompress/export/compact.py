"""Generators without the channels that nothing depends on: fewer numbers in the file, the same images."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from gancompress.channels.cut import cut_tensors
from gancompress.channels.empty import empty_channels
from gancompress.channels.groups import find_channels
from gancompress.channels.module import read_module
from gancompress.errors import ExportError
from gancompress.export.plain import example_inputs, plain_copy
from gancompress.export.rebuild import build_generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gancompress.architecture.description import Architecture
    from gancompress.backbones.base import Generator

__all__ = ["Compacted", "compact"]

#: largest difference of a pixel
_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Compacted:
    """A generator without empty channels.

    Attributes:
        generator: as it was where none is empty.
        masks: of its weights; empty where all that is left is kept.
        removed: how many channels went, and of how many, by the names of the layers that make them; of all layers whose
            channels can go.
    """

    generator: Generator
    masks: Mapping[str, Tensor]
    removed: Mapping[str, tuple[int, int]]


def compact(generator: Generator, architecture: Architecture, masks: Mapping[str, Tensor]) -> Compacted:
    """Take away the channels of a generator that its images do not depend on.

    Args:
        generator: its masked weights are zeros; left as it is.
        architecture: what it was built from.
        masks: bool tensors, by the names of ``prunable_weights``.

    Raises:
        ChannelError: it has no channels that can be cut.
        ExportError: its images would change, or its layers cannot be made narrower.
    """
    plain = plain_copy(generator)
    inputs = tuple(example_inputs(plain, 2, "compact", 0).values())
    network = read_module(plain, inputs)
    channels = find_channels(network, inputs)
    empty = empty_channels(network, channels, inputs)
    removed = {name: (int((~kept).sum()), len(kept)) for name, kept in empty.kept.items()}
    if not empty.count:
        return Compacted(generator, masks, removed)
    narrow = build_generator(architecture, empty.cut(plain.state_dict()), narrowed=True)
    for count in (1, 3):
        given = example_inputs(plain, count, "compact", count).values()
        with torch.no_grad():
            wanted = plain(*given)
            try:
                difference = float((narrow(*given) - wanted).abs().max())
            except Exception as error:  # someone else's code
                reason = " ".join(str(error).split())[:200]
                raise ExportError(
                    f"does not run without its {empty.count} empty channels ({reason}): its code has their number in "
                    "it; export it without compacting"
                ) from error
        if not difference <= _TOLERANCE:
            raise ExportError(
                f"without its {empty.count} empty channels its images would differ by {difference:.1e}; export it "
                "without compacting"
            )
    left = cut_tensors(masks, channels.indices(empty.kept))
    return Compacted(narrow, {} if all(bool(mask.all()) for mask in left.values()) else left, removed)
