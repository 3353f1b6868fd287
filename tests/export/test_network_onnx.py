"""Compressed networks from elsewhere as ONNX files: what onnxruntime makes of them, at other sizes too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import gancompress
from gancompress.cli.main import app
from gancompress.errors import ExportError
from gancompress.export.network import save_network
from gancompress.export.onnx import export_network_onnx
from gancompress.foreign.network import capture_module, open_onnx
from gancompress.graphs.build import CapturedModule
from gancompress.graphs.graph import Graph, Input, Node, Value

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Two(nn.Module):
    """Two inputs of shared sizes, two outputs, a norm, slopes, a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(2, 8, 3, padding=1, bias=False)
        self.norm, self.slopes = nn.BatchNorm2d(8), nn.PReLU(8)
        self.norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h = self.slopes(self.norm(self.a(x)) + self.b(y))
        return nn.functional.pixel_shuffle(h, 2), h.mean((2, 3))


def run(file: Path, **inputs: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(one) for one in session.run(None, {name: x.numpy() for name, x in inputs.items()})]


def same(wanted: Tensor, found: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_a_file_of_a_network_becomes_onnx_with_its_open_sizes_and_names(tmp_path: Path) -> None:
    """It takes seconds, which the exporter needs to load what it knows."""
    torch.manual_seed(0)
    axes = {0: "n", 2: "h", 3: "w"}
    network = capture_module(Two().eval(), [torch.rand(2, 3, 8, 10), torch.rand(2, 2, 8, 10)], [axes, axes])
    network = CapturedModule(network.captured.renamed({"input_1": "depth"}), network.state_dict())
    mask = torch.rand(8, 3, 3, 3) < 0.3
    network.state_dict()["a.weight"].mul_(mask)
    file = tmp_path / "small" / "generator.safetensors"
    save_network(network, {"a.weight": mask}, file)
    done = CliRunner().invoke(app, ["export", str(file.parent), "--format", "onnx"])
    assert done.exit_code == 0, done.output
    written = file.with_suffix(".onnx")
    assert done.stdout.startswith(f"written: {written} (")
    for n, h, w in ((1, 5, 9), (3, 12, 4)):
        x, y = torch.randn(n, 3, h, w), torch.randn(n, 2, h, w)
        for one, other in zip(gancompress.load(file)(x, y), run(written, input_0=x, depth=y), strict=True):
            same(one, other)
    # what is read from it has its names, and so does what is written of that
    assert [str(one) for one in open_onnx(written).captured.inputs] == ["input_0 n x 3 x h x w", "depth n x 2 x h x w"]
    assert open_onnx(written).captured.outputs == network.captured.outputs


def operation(op: str, *args: Any) -> CapturedModule:
    nodes = (Node("y", op, (Value("x"), *args)),)
    return CapturedModule(Graph((Input("x", ("n", 2, 6), "float32"),), nodes, ("y",)), {})


def test_what_onnx_does_not_have_is_named_and_nothing_written(tmp_path: Path) -> None:
    # an axis that is not 1 stays, by an operation that has no counterpart
    with pytest.raises(ExportError, match=r"^this network cannot be exported to ONNX \(ONNX has nothing for .*view_of"):
        export_network_onnx(operation("aten.squeeze.dims", (1,)), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_differ_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a number is a difference too."""
    network = operation("aten.relu.default")
    monkeypatch.setattr("gancompress.export.onnx._export", lambda *_: broken)
    make = onnx.helper.make_tensor_value_info
    for op, words in (("Sqrt", "differ by nan"), ("Neg", "differ by [12]"), ("ReduceSum", "differ by inf")):
        sizes = [make(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node(op, ["x"], ["y"])], "graph", sizes[:1], sizes[1:])
        opset = [onnx.helper.make_opsetid("", 18)]
        broken = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
        monkeypatch.setattr(
            "gancompress.export.onnx._random_inputs", lambda *_: (torch.tensor([[[-1.0, 2.0]]]).expand(1, 2, 2),)
        )
        with pytest.raises(ExportError, match=words):
            export_network_onnx(network, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_names_that_others_have_are_taken_from_them() -> None:
    nodes = (
        Node("a", "aten.relu.default", (Value("x"),)),
        Node("a_", "aten.neg.default", (Value("a"),)),
        Node("y", "aten.cat.default", ((Value("a"), Value("a_")), 1)),
    )
    graph = Graph((Input("x", ("n", 2), "float32"),), nodes, ("y",)).renamed({"x": "a", "y": "x"})
    assert [one.name for one in (*graph.inputs, *graph.nodes)] == ["a", "a_", "a__", "x"]
    assert Graph.from_json(graph.to_json()) == graph
    assert graph.outputs == ("x",)
    assert CapturedModule(graph, {})(torch.tensor([[1.0, -2.0]])).tolist() == [[1.0, 0.0, -1.0, 0.0]]
