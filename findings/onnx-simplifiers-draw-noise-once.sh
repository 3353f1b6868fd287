#!/usr/bin/env bash
# onnxsim 0.8.1, onnxoptimizer 0.4.2 and onnxslim 0.1.98: two draws of noise become one, or a constant.
#
# Guess before looking: a simplifier that merges equal nodes and folds constants leaves the nodes that draw random numbers
# alone, as onnxruntime's and onnxscript's do: two RandomNormal with equal attributes are two draws, and no constant.
# Seen (2026-11-29): all three merge two RandomNormalLike of one tensor, so that a - b, with a standard deviation of 1.4,
# is 0 everywhere. Two RandomNormal of one shape, which is how a generator's noise of a fixed resolution is written, are
# merged by onnxsim and onnxoptimizer, and replaced with constants by onnxslim: every call then adds the same picture.
# Nothing is said, and the models are as valid as before. StyleGAN's two layers of one resolution get the same noise map,
# or their noise is frozen, which a single picture does not show. Where each draw is shaped by another tensor they stay.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "numpy==2.4.6" "onnx==1.23.2" "onnxruntime==1.32.0" "onnxsim==0.8.1" \
    "onnxoptimizer==0.4.2" "onnxslim==0.1.98"
cd "$work"
cat > look.py <<'PY'
import numpy
import onnx
import onnxoptimizer
import onnxruntime
import onnxsim
import onnxslim
from onnx import TensorProto, helper

SHAPE = [1, 4, 8, 8]


def graph_of(draw):
    """Return a model that adds the difference of two draws to what it reads."""
    nodes = [draw("a"), draw("b"), helper.make_node("Sub", ["a", "b"], ["d"]), helper.make_node("Add", ["x", "d"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.checker.check_model(model)
    return model


def like(name):
    return helper.make_node("RandomNormalLike", ["x"], [name])


def shaped(name):
    return helper.make_node("RandomNormal", [], [name], shape=SHAPE)


def calls(model):
    """Return what two calls of one session give for zeros."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, {"x": numpy.zeros(SHAPE, numpy.float32)})[0] for _ in range(2)]


tools = {
    "nothing": lambda model: model,
    "onnxsim": lambda model: onnxsim.simplify(model)[0],
    "onnxoptimizer": lambda model: onnxoptimizer.optimize(model, onnxoptimizer.get_fuse_and_elimination_passes()),
    "onnxslim": onnxslim.slim,
}
for draw in (like, shaped):
    for name, tool in tools.items():
        model = tool(graph_of(draw))
        kinds = [node.op_type for node in model.graph.node]
        one, two = calls(model)
        print(f"{draw.__name__}, {name}: {kinds}, deviation {one.std():.2f}, the same at each call: {(one == two).all()}")
        if name == "nothing":
            assert one.std() > 1 and (one != two).any()
        elif name == "onnxslim" and draw is shaped:
            assert kinds == ["Add"] and one.std() > 1 and (one == two).all(), "onnxslim leaves noise alone now"
        else:
            assert (one == 0).all() and (two == 0).all(), f"{name} leaves noise alone now"
PY
"$work/venv/bin/python" look.py
