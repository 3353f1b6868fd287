"""Generators that eat images, as programs: they are captured as a graph, which knows padding and norms of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gancompress.graphs.build import CapturedModule
from gancompress.graphs.capture import capture
from gancompress.lowering.network import SparseNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.kernels import Mode

__all__ = ["CapturedRun", "captured_module", "run_captured"]


class CapturedRun(nn.Module):
    """A captured generator as a module; its programs are made for the sizes that it meets."""

    def __init__(self, network: SparseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to images (B, C, H, W)."""
        made: Tensor = self.network(x)
        return made


def captured_module(generator: nn.Module, example: Mapping[str, Tensor]) -> CapturedModule:
    """Capture a generator for any number of images; the arguments are those of :func:`run_captured`."""
    return CapturedModule(*capture(generator, example, [{0: "N"}]))


def run_captured(
    generator: nn.Module, masks: Mapping[str, Tensor], example: Mapping[str, Tensor], sparse: Mode | None
) -> tuple[CapturedRun, dict[str, str]]:
    """Capture a generator and make its programs.

    Args:
        generator: in eval mode, without parametrisations; its masked weights are 0.
        masks: by the names of weights.
        example: its one input by name, at least two images.
        sparse: as for :func:`~gancompress.export.compiled.compile_generator`.

    Returns:
        What computes it, and why each convolution that runs in torch does, by the name of its weight.

    Raises:
        ExportError: it cannot be captured.
    """
    network = SparseNetwork(captured_module(generator, example), masks, sparse)
    (given,) = example.values()
    with torch.no_grad():
        network(given)
    return CapturedRun(network), network.dense(given)
