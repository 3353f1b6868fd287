#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator computes grouped transposed convolutions wrongly.
#
# Guess before looking: the evaluator that comes with the standard, and that others are compared with, is slow and right:
# on each operator of a generator it agrees with onnxruntime to rounding.
# Seen (2026-11-29): ConvTranspose with one output channel a group gives every group the bias of the first, and nothing is
# said; with more than one output channel a group it raises a ValueError about a shape. With group=1, or without a bias,
# it is right. LpNormalization with p=1 divides by the sum, not by the sum of absolute values, which may be 0 or negative.
# Who takes it for the truth when testing an exporter would mend what is not broken.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "numpy==2.4.6" "onnx==1.23.2" "onnxruntime==1.32.0"
cd "$work"
cat > look.py <<'PY'
import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

numbers = numpy.random.default_rng(0)
image = numbers.standard_normal((1, 4, 5, 6)).astype("float32")


def both(node, **constants):
    """Return the node's output by the reference evaluator and by onnxruntime."""
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape)]
    ends.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"]))
    kept = [numpy_helper.from_array(value.astype("float32"), name) for name, value in constants.items()]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    right = session.run(None, {"x": image})[0]
    return ReferenceEvaluator(model).run(None, {"x": image})[0], right


def transposed(groups, outputs, bias=True):
    node = helper.make_node("ConvTranspose", ["x", "w", "b"][: 2 + bias], ["y"], group=groups, strides=[2, 2])
    constants = {"w": numbers.standard_normal((4, outputs, 4, 4))}
    if bias:
        constants["b"] = numpy.arange(groups * outputs) + 1.0
    return both(node, **constants)


for groups, outputs, bias in ((1, 6, True), (4, 1, False)):
    seen, right = transposed(groups, outputs, bias)
    assert numpy.abs(seen - right).max() < 1e-4
seen, right = transposed(4, 1)
gaps = (right - seen).mean((0, 2, 3))
print("four groups, biases 1, 2, 3, 4: onnxruntime's channels less the reference's:", gaps.round(3))
assert numpy.allclose(gaps, [0, 1, 2, 3], atol=1e-4), "changed: the bias of groups"
try:
    transposed(2, 3)
except ValueError as error:
    print("two groups of three channels:", error)
else:
    raise AssertionError("the reference evaluator computes such groups now")
seen, right = both(helper.make_node("LpNormalization", ["x"], ["y"], axis=1, p=1))
assert numpy.allclose(right, image / numpy.abs(image).sum(1, keepdims=True), atol=1e-5)
print("LpNormalization, p=1: off by", numpy.abs(seen - right).max())
assert numpy.allclose(seen, image / image.sum(1, keepdims=True), rtol=1e-3), "changed: LpNormalization"
PY
"$work/venv/bin/python" look.py
