#!/usr/bin/env bash
# onnxruntime 1.32.0 and onnxscript 0.7.2: their optimizers know RandomNormal, and do not know Bernoulli.
#
# Guess before looking: what draws is left alone, whichever operator it is. Both leave two RandomNormal of one shape as two
# nodes, and draw anew at each call.
# Seen (2026-11-29): onnxruntime, as it comes, merges two Bernoulli of one input into one draw; with all optimizations off
# they are two. onnxscript leaves Bernoulli of an input, but replaces Bernoulli of constant probabilities, and Dropout in
# training mode of a constant, with the draw of the day it ran, so that every call gives the same mask. Nothing is said.
# torch.onnx.export(dynamo=True) of torch 2.14.1 runs onnxscript's unless optimize=False is given: torch.bernoulli of a
# filled tensor is exported as a constant. Random masks, and augmentations that are switched by chance, are fixed then.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "numpy==2.4.6" "onnx==1.23.2" "onnxruntime==1.32.0" "onnxscript==0.7.2"
cd "$work"
cat > look.py <<'PY'
import numpy
import onnx
import onnxruntime
import onnxscript.optimizer
from onnx import TensorProto, helper, numpy_helper

SHAPE = [1, 4, 8, 8]
OFF = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
USUAL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def graph_of(*draws):
    """Return a model that adds the difference of two draws, a and b, to what it reads."""
    nodes = [*draws, helper.make_node("Sub", ["a", "b"], ["d"]), helper.make_node("Add", ["x", "d"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    kept = {"half": numpy.full(SHAPE, 0.5, "float32"), "ratio": numpy.float32(0.5), "yes": numpy.array(True)}
    kept = [numpy_helper.from_array(value, name) for name, value in kept.items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def calls(model, level):
    """Return what two calls of one session give for zeros."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(None, {"x": numpy.zeros(SHAPE, numpy.float32)})[0] for _ in range(2)]


def say(text, one, two):
    print(f"{text}: deviation {one.std():.2f}, the same at each call: {(one == two).all()}")
    return bool(one.any()), bool((one == two).all())


normal = graph_of(*(helper.make_node("RandomNormal", [], [name], shape=SHAPE) for name in "ab"))
assert say("onnxruntime, RandomNormal", *calls(normal, USUAL)) == (True, False)
assert say("onnxscript, RandomNormal", *calls(onnxscript.optimizer.optimize(normal), USUAL)) == (True, False)

chances = helper.make_node("Sigmoid", ["x"], ["chances"])
coins = graph_of(chances, *(helper.make_node("Bernoulli", ["chances"], [name]) for name in "ab"))
assert say("onnxruntime without optimizations, Bernoulli", *calls(coins, OFF)) == (True, False)
assert say("onnxruntime, Bernoulli", *calls(coins, USUAL)) == (False, True), "onnxruntime draws twice now"

for kind, others in (("Bernoulli", []), ("Dropout", ["ratio", "yes"])):
    model = graph_of(*(helper.make_node(kind, ["half", *others], [name]) for name in "ab"))
    assert say(f"as written, {kind} of a constant", *calls(model, OFF)) == (True, False)
    model = onnxscript.optimizer.optimize(model)
    assert say(f"onnxscript, {kind} of a constant", *calls(model, OFF)) == (True, True), "onnxscript leaves it alone now"
    assert kind not in [node.op_type for node in model.graph.node]
PY
"$work/venv/bin/python" look.py
