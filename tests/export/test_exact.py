"""Between programs in bytes, linear layers and tanhs are the same numbers on every machine."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from gancompress.export.exact import ExactLinear, compute_exactly, exact_tanh
from gancompress.kernels import status
from gancompress.kernels.native_library import ENVIRONMENT, library

SETS = (library().supported if status().available else ()) + ("off",)


def test_sums_begin_at_the_bias_and_take_the_inputs_in_their_order() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.data = torch.tensor([[1e8, 1.0, -1e8], [1e8, -1e8, 1.0]])
    layer.bias.data = torch.tensor([0.5, 0.25])
    x = torch.ones(1, 3)
    assert ExactLinear(layer)(x).tolist() == [[0.0, 1.0]]  # 0.5 and 1 are lost beside 1e8, and 1 comes after it
    layer.bias = None
    assert ExactLinear(layer)(x).tolist() == [[0.0, 1.0]]
    assert ExactLinear(layer)(x).dtype is torch.float32


def test_products_are_rounded_before_they_are_added() -> None:
    layer = nn.Linear(1, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[1 + 2.0**-12]]), torch.tensor([-1 - 2.0**-11])
    assert ExactLinear(layer)(layer.weight.data).item() == 0.0  # 2^-24 where a multiplication and an addition are one


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(
    ("images", "inputs", "outputs"), [(1, 7, 5), (2, 33, 64), (5, 128, 100), (16, 3, 16), (0, 4, 4)]
)
def test_a_linear_layer_is_the_same_on_every_instruction_set(
    monkeypatch: pytest.MonkeyPatch, isa: str, images: int, inputs: int, outputs: int
) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(inputs, outputs), torch.randn(images, inputs)
    want = layer.bias.detach().expand(images, outputs).clone()
    for k in range(inputs):
        want = want + x[:, k : k + 1] * layer.weight.detach()[:, k]
    monkeypatch.setenv(ENVIRONMENT, isa)
    exact = ExactLinear(layer)
    assert torch.equal(exact(x), want)
    assert torch.equal(exact(x[None]), want[None])
    assert torch.equal(exact.weight, layer.weight)
    assert torch.allclose(want, layer(x), atol=1e-5)


@pytest.mark.parametrize("isa", SETS)
def test_a_tanh_is_the_same_on_every_instruction_set(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    torch.manual_seed(0)
    x = torch.cat(
        (torch.linspace(-10, 10, 4001), torch.randn(1000) * 1e-3, torch.tensor([0.0, -0.0, 0.625, 1e30, -1e30]))
    )
    x = torch.cat((x, torch.tensor([torch.inf, -torch.inf, 1e-40, torch.nan])))
    monkeypatch.setenv(ENVIRONMENT, "off")
    want = exact_tanh(x)
    monkeypatch.setenv(ENVIRONMENT, isa)
    got = exact_tanh(x)
    assert torch.equal(got[:-1].view(torch.int32), want[:-1].view(torch.int32))
    assert got[-1].isnan()
    true = torch.tanh(x.double())[:-1]
    assert ((got[:-1] - true).abs() <= 3e-7 * true.abs() + 1e-45).all()
    assert exact_tanh(x[:12].reshape(3, 4).T).shape == (4, 3)
    assert torch.equal(exact_tanh(x[:12].reshape(3, 4).T), got[:12].reshape(3, 4).T)


def test_results_are_float32_whatever_the_default() -> None:
    layer, x = nn.Linear(3, 5), torch.randn(2, 3)
    exact = ExactLinear(layer)
    want, flat = exact(x), exact_tanh(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(exact(x), want)
        assert torch.equal(exact(x.double()), want)
        assert torch.equal(exact_tanh(x.double()), flat)
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(NotImplementedError):  # no numbers to read, and no memory to read them from
        exact_tanh(x.to("meta"))


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
