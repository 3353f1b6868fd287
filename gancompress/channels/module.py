"""Modules as channels are found in them: captured, with computed weights written out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from torch import nn

from gancompress.graphs.build import CapturedModule
from gancompress.graphs.capture import capture
from gancompress.sparsity.weights import duplicate, write_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["read_module", "written_out"]

N = TypeVar("N", bound=nn.Module)


def written_out(network: N) -> N:
    """Return a copy in eval mode, on the CPU, whose weights are plain ones, by their plain names."""
    return write_out(duplicate(network).cpu().eval())


def read_module(network: nn.Module, inputs: Sequence[Tensor]) -> CapturedModule:
    """Capture what a module computes for inputs of these sizes.

    Args:
        network: left as it is.
        inputs: of a call, two images at least.

    Raises:
        ExportError: it cannot be captured.
    """
    named = {f"input_{index}": x.cpu() for index, x in enumerate(inputs)}
    graph, tensors = capture(written_out(network), named, [{}] * len(named))
    return CapturedModule(graph, {name: tensor.clone() for name, tensor in tensors.items()})
