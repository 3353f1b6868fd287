"""What stands between programs in bytes, computed so that every machine rounds it alike.

Sums of bytes are exact. A linear layer ahead of them, or a tanh behind, is not: float32 sums depend on their order, and
processors have their own tanh. In float64, rounded once at the end, both come out the same but for one case in a
hundred million, so that a generator in bytes gives the same images on every processor, and in a web page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import fx

__all__ = ["ExactLinear", "compute_exactly", "exact_tanh"]


class ExactLinear(nn.Module):
    """A linear layer in float64, rounded to float32."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight: Tensor
        self.bias: Tensor | None
        self.register_buffer("weight", layer.weight.detach().double())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().double())

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features), float32."""
        return F.linear(x.double(), self.weight, self.bias).float()


def exact_tanh(x: Tensor) -> Tensor:
    """Return the tanh, computed in float64, as float32."""
    return torch.tanh(x.double()).float()


def compute_exactly(graph: fx.GraphModule) -> None:
    """Let a compiled graph, all of whose programs are in bytes, compute its linear layers and tanhs so."""
    for node in graph.graph.nodes:
        if node.op == "call_module" and isinstance(module := graph.get_submodule(str(node.target)), nn.Linear):
            graph.set_submodule(str(node.target), ExactLinear(module))
        elif node.op == "call_function" and node.target is torch.tanh and not node.kwargs:
            node.target = exact_tanh
    graph.recompile()
