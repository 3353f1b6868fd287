"""Graphs: what is captured comes back as real layers, and a forged one is one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gancompress.errors import ExportError
from gancompress.graphs.build import build, check
from gancompress.graphs.capture import capture
from gancompress.graphs.graph import OPERATIONS, Graph


class Toy(nn.Module):
    """Everything that a graph treats in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(8, 3)
        self.raw = nn.Parameter(torch.randn(2, 1, 1))
        self.register_buffer("offset", torch.randn(4, 1, 1), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h = nn.functional.relu(self.norm(self.conv(x)) + self.offset, inplace=True)
        for _ in range(2):  # the same layer twice
            h = self.conv(self.up(h) * self.raw)
        h = nn.functional.adaptive_avg_pool2d(h, 1).flatten(1)
        return self.head(torch.cat((h, y.float()), 1)), h * torch.tensor([1.0, 2.0, 3.0, 4.0])


@pytest.fixture(scope="module")
def captured() -> tuple[Toy, Graph, dict[str, Tensor]]:
    torch.manual_seed(0)
    toy = Toy().eval()
    example = {"x": torch.randn(2, 2, 8, 8), "y": torch.zeros(2, 4, dtype=torch.int64)}
    return toy, *capture(toy, example, [{0: "N"}, {0: "N"}])


def test_a_captured_module_computes_the_same_for_any_batch(captured: tuple[Toy, Graph, dict[str, Tensor]]) -> None:
    toy, graph, tensors = captured
    back = Graph.from_json(json.loads(json.dumps(graph.to_json())))
    assert back == graph
    rebuilt = build(back, tensors, {"N": 2})
    for batch in (1, 2, 5):
        x, y = torch.randn(batch, 2, 8, 8), torch.randint(0, 9, (batch, 4))
        with torch.no_grad():
            for got, want in zip(rebuilt(x, y), toy(x, y), strict=True):
                torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_a_size_that_the_code_takes_as_an_int_may_still_change() -> None:
    class Folded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(len(x), -1, 2) * 2

    graph, tensors = capture(Folded().eval(), {"x": torch.randn(2, 4)}, [{0: "N"}])
    x = torch.randn(5, 4)
    assert torch.equal(build(graph, tensors, {"N": 2})(x), Folded()(x))


def test_layers_are_real_ones_under_their_names(captured: tuple[Toy, Graph, dict[str, Tensor]]) -> None:
    _, graph, tensors = captured
    rebuilt = build(graph, tensors, {"N": 2})
    conv, up = rebuilt.get_submodule("conv"), rebuilt.get_submodule("up")
    assert isinstance(conv, nn.Conv2d)
    assert (conv.in_channels, conv.out_channels, conv.groups, conv.stride) == (2, 4, 2, (2, 2))
    assert isinstance(up, nn.ConvTranspose2d)
    assert (up.output_padding, up.bias) == ((1, 1), None)
    assert isinstance(rebuilt.get_submodule("norm"), nn.BatchNorm2d)
    assert isinstance(rebuilt.get_submodule("head"), nn.Linear)
    assert rebuilt.last_layer == "head"
    assert {name for name, _ in rebuilt.named_parameters()} | {name for name, _ in rebuilt.named_buffers()} == {
        *tensors
    }
    assert {"raw", "offset", "constant_0"} < tensors.keys()


def test_what_depends_on_numbers_is_refused_in_one_line() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    for module, match in ((Branch(), "."), (Noise(), "randn_like")):
        with pytest.raises(ExportError, match=match) as caught:
            capture(module, {"x": torch.randn(2, 3)}, [{0: "N"}])
        assert "\n" not in str(caught.value)


def small(**changes: Any) -> dict[str, Any]:
    """x -> relu(linear(x)) as JSON."""
    nodes = [
        ["linear", "aten.linear.default", [{"value": "x"}, {"tensor": "fc.weight"}, {"tensor": "fc.bias"}], {}],
        ["relu", "aten.relu.default", [{"value": "linear"}], {}],
    ]
    return {"inputs": [["x", ["N", 3], "float32"]], "nodes": nodes, "outputs": ["relu"], **changes}


TENSORS = {
    "_last_use.x": torch.zeros(2),
    "fc.weight": torch.tensor([[1.0, 0, 0], [0, -1, 0]]),
    "fc.bias": torch.tensor([0.5, 0.5]),
}


def test_a_graph_by_hand() -> None:
    module = build(Graph.from_json(small()), TENSORS, {"N": 2})
    assert module(torch.tensor([[1.0, 2, 3]])).tolist() == [[1.5, 0.0]]


def after(*nodes: list[Any], out: str = "last") -> dict[str, Any]:
    return small(nodes=[*small()["nodes"], *nodes], outputs=[out])


X, WEIGHT = {"value": "relu"}, {"tensor": "fc.weight"}
CIRCLE = [
    ["last", "aten.relu.default", [{"value": "more"}], {}],
    ["more", "aten.relu.default", [{"value": "last"}], {}],
]
UNFIT = "cannot be built|cannot run"
FORGED: dict[str, tuple[Any, str]] = {
    "an operation that writes": (after(["last", "aten.copy_.default", [X, X], {}]), "not one of its operations"),
    "a function of the system": (after(["last", "os.system", ["true"], {}]), "not one of its operations"),
    "a circle": (
        after(
            ["last", "aten.relu.default", [{"value": "more"}], {}],
            ["more", "aten.relu.default", [{"value": "last"}], {}],
        ),
        "'more' before it is there",
    ),
    "a node that reads itself": (after(["last", "aten.neg.default", [{"value": "last"}], {}]), "before it is there"),
    "two of one name": (after(["relu", "aten.neg.default", [X], {}], out="relu"), "two operations"),
    "no result": (small(outputs=[]), "does not compute"),
    "a result of nobody": (small(outputs=["nobody"]), "'nobody'"),
    "an argument of no kind": (after(["last", "aten.neg.default", [{"module": "os"}], {}]), "not a graph"),
    "lists without end": (after(["last", "aten.neg.default", [[[[[[[1]]]]]]], {}]), "not a graph"),
    "a list instead": ([], "not a graph"),
    "no nodes": ({"inputs": [], "outputs": ["x"]}, "not a graph"),
    "a negative size": (small(inputs=[["x", [-1], "float32"]]), "not a graph"),
    "an unknown dtype": (small(inputs=[["x", [3], "float4"]]), "not a graph"),
    "a missing tensor": (after(["last", "aten.mul.Tensor", [X, {"tensor": "w"}], {}]), "tensor w is missing"),
    "a weight of another size": (small(inputs=[["x", ["N", 4], "float32"]]), "cannot run"),
    "too few arguments": (after(["last", "aten.mul.Tensor", [X], {}]), "cannot run"),
    "a value of gigabytes": (after(["last", "aten.repeat.default", [X, [2**17, 2**17]], {}]), "too large"),
    "a picture of gigabytes": (after(["last", "aten.zeros.default", [[2**20, 2**20]], {}]), "too large"),
    "a size beyond numbers": (after(["last", "aten.zeros.default", [[2**62, 2**62]], {}]), "cannot run"),
    "memory of a real device": (after(["last", "aten.zeros.default", [[2]], {"device": "cpu"}]), "last sets device"),
    "a result in a weight": (after(["last", "aten.add.Tensor", [X, X], {"out": WEIGHT}]), "last sets out"),
    "a list of gigabytes": (after(["last", "operator.mul", [[1], 2**40], {}]), "cannot run"),
    "a text of gigabytes": (after(["last", "operator.mul", ["x", 2**40], {}]), "cannot run"),
    "a number without end": (
        after(
            ["p0", "operator.mul", [10**9, 10**9], {}],
            *(["p" + str(k + 1), "operator.mul", [{"value": f"p{k}"}] * 2, {}] for k in range(60)),
            ["last", "aten.mul.Scalar", [X, {"value": "p60"}], {}],
        ),
        "cannot run",
    ),
    "a tensor called like what runs the graph": (
        after(["last", "aten.add.Tensor", [X, {"tensor": "_last_use.x"}], {}]),
        "no tensor can be called",
    ),
    "a convolution of a matrix": (
        after(["last", "aten.conv2d.default", [X, WEIGHT], {}]),
        UNFIT,
    ),
    "a norm of a matrix": (
        after(["last", "aten.batch_norm.default", [X, None, None, WEIGHT, WEIGHT, False, 0.1, 1e-5, False], {}]),
        UNFIT,
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_graphs(name: str) -> None:
    content, match = FORGED[name]
    with pytest.raises(ExportError, match=match) as caught:
        check(Graph.from_json(content), TENSORS, {"N": 2})
    assert "\n" not in str(caught.value)


def test_no_operation_of_the_list_writes() -> None:
    for name in OPERATIONS:
        space, op, overload = name.split(".")
        found = getattr(getattr(getattr(torch.ops, space), op), overload)
        assert not found._schema.is_mutable, name
