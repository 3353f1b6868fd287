#!/usr/bin/env bash
# onnxscript 0.7.2: its optimizer removes the addition of 1e-8, so that a pixel normalisation divides by zero.
#
# Guess before looking: an optimizer of graphs removes an addition when the constant is exactly 0, and a multiplication
# when it is exactly 1; rounding may change the last bit and nothing else.
# Seen (2026-11-28): the rules for x + 0, x - 0, x * 1 and x / 1 compare the constant with a tolerance, 1e-8 absolute and
# 1e-5 relative. 1e-8, the published epsilon of progressive growing's pixel normalisation and of StyleGAN2's
# demodulation, counts as 0 and is removed; 1.1e-8 stays. Where all channels of a pixel are 0, as after a ReLU, the
# optimised network gives NaN and the one that was written gives 0. A factor of 1.000005 is removed too.
# torch.onnx.export(dynamo=True) of torch 2.14.1 runs this optimizer unless optimize=False is given, so files that it
# writes have no epsilon. A check on random inputs does not see it. Ours exported such files; it now folds by rules of
# its own choice and has a test for a map of zeros.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "numpy==2.4.6" "onnx==1.23.2" "onnxruntime==1.32.0" "onnxscript==0.7.2"
cd "$work"
cat > look.py <<'PY'
import numpy
import onnxruntime
import onnxscript.optimizer
from onnx import TensorProto, helper, numpy_helper


def graph_of(nodes, **constants):
    kept = [numpy_helper.from_array(numpy.float32(value), name) for name, value in constants.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 2, 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pixel_norm(epsilon):
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Add", ["mean", "epsilon"], ["sum"]),
        helper.make_node("Sqrt", ["sum"], ["length"]),
        helper.make_node("Div", ["x", "length"], ["y"]),
    ]
    return graph_of(nodes, epsilon=epsilon)


def scaled(factor):
    nodes = [helper.make_node("Mul", ["x", "factor"], ["z"]), helper.make_node("Tanh", ["z"], ["y"])]
    return graph_of(nodes, factor=factor)


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": numpy.zeros((1, 4, 2, 2), numpy.float32)})[0]


def kinds(model):
    return [node.op_type for node in model.graph.node]


for epsilon, stays in ((1.1e-8, True), (1e-8, False)):
    before, after = pixel_norm(epsilon), onnxscript.optimizer.optimize(pixel_norm(epsilon))
    print(f"+ {epsilon}: {kinds(after)}, zeros become {run(before).max()} before and {run(after).max()} after")
    assert (run(before) == 0).all()
    assert ("Add" in kinds(after)) == stays
    assert numpy.isnan(run(after)).all() == (not stays)
for factor, stays in ((1.0001, True), (1.000005, False)):
    after = onnxscript.optimizer.optimize(scaled(factor))
    print(f"* {factor}: {kinds(after)}")
    assert ("Mul" in kinds(after)) == stays
PY
"$work/venv/bin/python" look.py
