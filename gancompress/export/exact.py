"""What stands between programs in bytes, computed so that every machine rounds it alike.

Sums of bytes are exact. A linear layer ahead of them, or a tanh behind, is not: float32 sums depend on their order, and
processors have their own tanh. Here each is a fixed order of single float32 operations
(:mod:`gancompress.kernels.exact`), so that a generator in bytes gives the same images on every processor, and in a
web page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gancompress.kernels.exact import TiledLinear, exact_tanh

if TYPE_CHECKING:
    from torch import fx

__all__ = ["ExactLinear", "compute_exactly", "exact_tanh"]


class ExactLinear(nn.Module):
    """A linear layer whose sums begin at the bias and take the inputs in their order, in float32."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias: Tensor | None
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float())
        self._tiled = TiledLinear(layer.weight, self.bias)

    @property
    def weight(self) -> Tensor:
        """The weight, (out_features, in_features) float32."""
        return self._tiled.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features), float32."""
        return self._tiled(x)


def compute_exactly(graph: fx.GraphModule) -> None:
    """Let a compiled graph, all of whose programs are in bytes, compute its linear layers and tanhs so."""
    for node in graph.graph.nodes:
        if node.op == "call_module" and isinstance(module := graph.get_submodule(str(node.target)), nn.Linear):
            graph.set_submodule(str(node.target), ExactLinear(module))
        elif node.op == "call_function" and node.target is torch.tanh and not node.kwargs:
            node.target = exact_tanh
    graph.recompile()
