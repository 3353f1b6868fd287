"""Between programs in bytes, linear layers and tanhs are rounded once."""

from __future__ import annotations

import torch
from torch import fx, nn

from gancompress.export.exact import ExactLinear, compute_exactly, exact_tanh


def test_a_sum_that_float32_loses_is_kept() -> None:
    layer = nn.Linear(3, 1)
    layer.weight.data = torch.tensor([[1e8, 1.0, -1e8]])
    layer.bias.data = torch.tensor([0.5])
    x = torch.ones(1, 3)
    assert float(ExactLinear(layer)(x)) == 1.5
    layer.bias = None
    assert float(ExactLinear(layer)(x)) == 1.0
    assert ExactLinear(layer)(x).dtype is torch.float32


def test_tanh_is_the_nearest_float32() -> None:
    x = torch.linspace(-4, 4, 1001)
    assert torch.equal(exact_tanh(x), torch.tanh(x.double()).float())


def test_a_graph_computes_so_afterwards() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 3), nn.Conv2d(3, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.second(self.first(x)[:, :, None, None]))

    torch.manual_seed(0)
    net = Net().eval().requires_grad_(False)
    graph = fx.symbolic_trace(net)
    x = torch.randn(4, 2)
    wanted = net(x)
    compute_exactly(graph)
    assert isinstance(graph.get_submodule("first"), ExactLinear)
    assert isinstance(graph.get_submodule("second"), nn.Conv2d)
    assert exact_tanh in [node.target for node in graph.graph.nodes]
    assert torch.allclose(graph(x), wanted, rtol=0, atol=1e-6)
