"""Operations of ONNX: the same as onnxruntime, one at a time and in a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from gancompress.errors import ExportError
from gancompress.foreign.network import open_onnx
from gancompress.foreign.onnx_file import read_onnx

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RNG = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def write(path: Path, nodes: list[Any], constants: dict[str, Any], shape: tuple[Any, ...], opset: int = 18) -> Path:
    """Write a network with the input x; its output is y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    if not model.graph.output[0].type.tensor_type.HasField("shape"):  # which not every operation lets onnx infer
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape)))
    onnx.save(model, path)
    return path


IMAGE = (2, 4, 6, 5)
#: operation, what it takes beside x, attributes, shape of x, version of the operations
CASES: list[tuple[str, list[Any], dict[str, Any], tuple[int, ...], int]] = [
    ("Conv", [floats(3, 4, 3, 3), floats(3)], {"pads": [1, 1, 1, 1]}, IMAGE, 18),
    ("Conv", [floats(3, 4, 3, 3)], {"pads": [0, 1, 2, 0], "strides": [2, 1]}, IMAGE, 18),
    ("Conv", [floats(4, 2, 2, 2)], {"group": 2, "auto_pad": "SAME_UPPER"}, IMAGE, 18),
    ("Conv", [floats(4, 4, 3, 3)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, IMAGE, 18),
    ("Conv", [floats(3, 4, 3)], {"dilations": [2]}, (2, 4, 9), 18),
    ("ConvTranspose", [floats(4, 3, 4, 4), floats(3)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}, IMAGE, 18),
    ("ConvTranspose", [floats(4, 3, 3, 3)], {"strides": [2, 2], "output_padding": [1, 1]}, IMAGE, 18),
    ("ConvTranspose", [floats(4, 3, 4, 4)], {"strides": [2, 2], "pads": [0, 1, 2, 1]}, IMAGE, 18),
    ("Gemm", [floats(5, 4), floats(5)], {"transB": 1}, (3, 4), 18),
    ("Gemm", [floats(4, 5), floats(5)], {"alpha": 0.5, "beta": 2.0}, (3, 4), 18),
    ("Gemm", [floats(3, 5)], {"transA": 1}, (3, 4), 18),
    ("MatMul", [floats(5, 7)], {}, IMAGE, 18),
    ("BatchNormalization", [floats(4), floats(4), floats(4), abs(floats(4))], {"epsilon": 1e-3}, IMAGE, 18),
    ("InstanceNormalization", [floats(4), floats(4)], {}, IMAGE, 18),
    ("GroupNormalization", [floats(4), floats(4)], {"num_groups": 2}, IMAGE, 21),
    ("LayerNormalization", [floats(6, 5), floats(6, 5)], {"axis": 2}, IMAGE, 18),
    *[(op, [], {}, IMAGE, 20) for op in (
        "Relu", "Sigmoid", "Tanh", "Softplus", "HardSwish", "Gelu", "HardSigmoid", "Mish", "Neg", "Abs", "Exp", "Sin",
        "Cos", "Floor", "Ceil", "Erf", "Identity", "Softmax", "GlobalAveragePool", "Reciprocal")],
    ("LeakyRelu", [], {"alpha": 0.2}, IMAGE, 18),
    ("Elu", [], {"alpha": 0.5}, IMAGE, 18),
    ("PRelu", [floats(4, 1, 1)], {}, IMAGE, 18),
    ("PRelu", [floats(1)], {}, IMAGE, 18),
    ("Clip", [np.float32(-0.5), np.float32(0.5)], {}, IMAGE, 18),
    ("Clip", [], {"min": -0.5, "max": 0.25}, IMAGE, 9),
    ("Add", [floats(4, 1, 1)], {}, IMAGE, 18),
    ("Sub", [floats(5)], {}, IMAGE, 18),
    ("Mul", [np.float32(0.2)], {}, IMAGE, 18),
    ("Div", [np.array([3.0], np.float32)], {}, IMAGE, 18),
    ("Pow", [np.float32(2)], {}, IMAGE, 18),
    ("Max", [floats(5)], {}, IMAGE, 18),
    ("Min", [np.float32(0.1)], {}, IMAGE, 18),
    ("Resize", [np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)],
     {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, IMAGE, 18),
    ("Resize", [np.array([], np.float32), np.array([1, 1, 3, 2], np.float32)], {"mode": "nearest"}, IMAGE, 18),
    ("Resize", [np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}, IMAGE, 18),
    ("Resize", [np.array([], np.float32), np.array([], np.float32), ints(2, 4, 9, 11)],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, IMAGE, 18),
    ("Resize", [np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)], {"mode": "cubic"}, IMAGE, 18),
    ("Upsample", [np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest"}, IMAGE, 9),
    ("Pad", [ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "reflect"}, IMAGE, 18),
    ("Pad", [ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "edge"}, IMAGE, 18),
    ("Pad", [ints(0, 1, 1, 0, 0, 0, 2, 1), np.float32(3)], {}, IMAGE, 18),
    ("Pad", [ints(1, 2), np.float32(0), ints(-1)], {}, IMAGE, 18),
    ("Pad", [], {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 2.0}, IMAGE, 9),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}, (2, 8, 3, 4), 18),
    ("DepthToSpace", [], {"blocksize": 2}, (2, 8, 3, 4), 18),
    ("SpaceToDepth", [], {"blocksize": 2}, (2, 3, 4, 6), 18),
    ("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}, IMAGE, 18),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, IMAGE, 18),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, IMAGE, 18),
    ("Concat", [floats(2, 3, 6, 5)], {"axis": 1}, IMAGE, 18),
    ("Gather", [ints(2, 0, -1)], {"axis": 1}, IMAGE, 18),
    ("Gather", [np.int64(1)], {"axis": 1}, IMAGE, 18),
    ("Slice", [ints(1, 0), ints(2**60, -1), ints(2, 3), ints(2, 1)], {}, IMAGE, 18),
    ("Slice", [ints(-1), ints(-(2**60)), ints(3), ints(-1)], {}, IMAGE, 18),
    ("Slice", [], {"starts": [1], "ends": [3], "axes": [1]}, IMAGE, 9),
    ("Reshape", [ints(0, 2, -1)], {}, IMAGE, 18),
    ("Flatten", [], {"axis": 2}, IMAGE, 18),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}, IMAGE, 18),
    ("Squeeze", [ints(1)], {}, (2, 1, 3), 18),
    ("Squeeze", [], {"axes": [1]}, (2, 1, 3), 9),
    ("Unsqueeze", [ints(0, -1)], {}, (2, 3), 18),
    ("Expand", [ints(2, 1, 4, 1)], {}, (2, 3, 1, 5), 18),
    ("Tile", [ints(1, 2, 1, 1)], {}, IMAGE, 18),
    ("ReduceMean", [ints(2, 3)], {}, IMAGE, 18),
    ("ReduceMean", [], {"axes": [1], "keepdims": 0}, IMAGE, 13),
    ("ReduceSum", [ints(1)], {}, IMAGE, 18),
    ("ReduceMax", [], {}, IMAGE, 18),
    ("ReduceL2", [ints(1)], {}, IMAGE, 18),
]  # fmt: skip


def run(path: Path, x: Any) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("case", CASES, ids=[f"{index}-{case[0]}" for index, case in enumerate(CASES)])
def test_an_operation_is_what_onnxruntime_makes_of_it(case: Any, tmp_path: Path) -> None:
    op, others, attributes, shape, opset = case
    names = [f"c{index}" for index in range(len(others))]
    constants = {name: np.asarray(value) for name, value in zip(names, others, strict=True)}
    if op == "Resize":
        names = [name if constants[name].size else "" for name in names]
        constants = {name: value for name, value in constants.items() if name in names}
    path = write(
        tmp_path / "one.onnx", [helper.make_node(op, ["x", *names], ["y"], **attributes)], constants, shape, opset
    )
    x = floats(*shape)
    module, (declared,) = read_onnx(path)
    assert (declared.name, declared.shape, declared.dtype) == ("x", shape, "float32")
    found, wanted = module(torch.from_numpy(x)), run(path, x)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=2e-5, rtol=1e-4)


def test_sizes_that_a_file_computes_stay_open(tmp_path: Path) -> None:
    """Twice as wide and high by sizes read off the input, as exporters of older torch write it."""
    nodes = [
        helper.make_node("Conv", ["x", "w.weight"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Gather", ["s", "two"], ["h"]),
        helper.make_node("Gather", ["s", "three"], ["w"]),
        helper.make_node("Mul", ["h", "two"], ["h2"]),
        helper.make_node("Mul", ["w", "two"], ["w2"]),
        helper.make_node("Unsqueeze", ["h2", "zeros"], ["h3"]),
        helper.make_node("Unsqueeze", ["w2", "zeros"], ["w3"]),
        helper.make_node("Slice", ["s", "zeros", "twos"], ["head"]),
        helper.make_node("Concat", ["head", "h3", "w3"], ["size"], axis=0),
        helper.make_node("Resize", ["c", "", "", "size"], ["r"], mode="linear"),
        helper.make_node("Split", ["r"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    constants = {
        "w.weight": floats(4, 3, 3, 3),
        "two": np.int64(2),
        "three": np.int64(3),
        "zeros": ints(0),
        "twos": ints(2),
    }
    path = write(tmp_path / "net.onnx", nodes, constants, ("n", 3, "h", "w"))
    network = open_onnx(path)
    assert network.captured.inputs[0].shape == ("n", 3, "h", "w")
    assert "w.weight" in network.state_dict()
    for shape in ((1, 3, 5, 7), (3, 3, 12, 4)):
        x = floats(*shape)
        assert torch.allclose(network(torch.from_numpy(x)), run(path, x), atol=1e-4)


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    odd = write(tmp_path / "odd.onnx", [helper.make_node("Einsum", ["x", "x"], ["y"], equation="ij,ij->i")], {}, (2, 3))
    with pytest.raises(ExportError, match=r"odd\.onnx: it has operations that are not known here: Einsum .*'y'"):
        read_onnx(odd)
    (tmp_path / "text.onnx").write_text("no network at all")
    with pytest.raises(ExportError, match="is not an ONNX file"):
        read_onnx(tmp_path / "text.onnx")
    with pytest.raises(ExportError, match="cannot be read"):
        read_onnx(tmp_path / "none.onnx")
    constants = {"w": floats(8, 3, 3, 3)}
    path = write(tmp_path / "big.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], constants, (1, 3, 5, 5))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert read_onnx(path)[0](torch.zeros(1, 3, 5, 5)).shape == (1, 8, 3, 3)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ExportError, match=r"weights\.bin"):
        read_onnx(path)


@pytest.mark.parametrize(
    "drawn",
    [
        [helper.make_node("RandomNormal", [], ["n"], shape=[2, 3]), helper.make_node("Add", ["x", "n"], ["y"])],
        [helper.make_node("RandomNormalLike", ["x"], ["n"]), helper.make_node("Add", ["x", "n"], ["y"])],
        [helper.make_node("Bernoulli", ["x"], ["y"])],
        [helper.make_node("Dropout", ["x", "", "yes"], ["y"])],
    ],
)
def test_a_network_that_draws_is_refused_and_never_frozen(tmp_path: Path, drawn: list[onnx.NodeProto]) -> None:
    """Other readers take a draw for a constant, or two draws for one; an image of theirs is not a sample."""
    path = write(
        tmp_path / "drawn.onnx", drawn, {"yes": np.array(True)} if drawn[0].op_type == "Dropout" else {}, (2, 3)
    )
    with pytest.raises(ExportError, match=drawn[0].op_type) as caught:
        read_onnx(path)[0](torch.zeros(2, 3))
    assert "\n" not in str(caught.value)
