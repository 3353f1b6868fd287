#!/usr/bin/env bash
# OpenVINO 2026.4.1: an ONNX Resize that asks for antialiasing is computed without it.
#
# Guess before looking: antialias=1 (ONNX opset 18) is honoured, or the model is refused with the attribute's name, as
# OpenVINO refuses a wrapping Pad and half_pixel_symmetric.
# Seen (2026-11-28): the model compiles, nothing is said, and shrinking by 0.4 gives torch's result without antialiasing,
# to rounding; values of standard normal numbers are off by more than 1. exclude_outside=1 of a cubic Resize is dropped
# in the same way. A discriminator or a metric that shrinks images first sees aliased ones.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "openvino==2026.4.1" "numpy==2.4.6" "onnx==1.23.2" "onnxruntime==1.32.0"
cd "$work"
cat > look.py <<'PY'
import numpy
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

image = numpy.random.default_rng(0).standard_normal((1, 3, 20, 30)).astype("float32")


def both(factor, **attributes):
    """Return the image resized by onnxruntime and by OpenVINO."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, factor, factor])
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "scales"], ["y"], **attributes)],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 20, 30])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, int(20 * factor), int(30 * factor)])],
        [scales],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, "resize.onnx")
    session = onnxruntime.InferenceSession("resize.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("resize.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return session.run(None, {"x": image})[0], compiled([image])[0]


def off(a, b):
    return float(numpy.abs(a - b).max())


plain, seen = both(0.4, mode="linear")
assert off(plain, seen) < 1e-4, "without antialiasing they used to agree"
smooth, seen = both(0.4, mode="linear", antialias=1)
print("antialias=1, OpenVINO to onnxruntime:", off(smooth, seen), "to onnxruntime without it:", off(plain, seen))
assert off(smooth, seen) > 0.5 and off(plain, seen) < 1e-4, "changed: antialias"
plain, _ = both(2, mode="cubic")
inside, seen = both(2, mode="cubic", exclude_outside=1)
print("exclude_outside=1, to onnxruntime:", off(inside, seen), "to onnxruntime without it:", off(plain, seen))
assert off(inside, seen) > 0.05 and off(plain, seen) < 1e-4, "changed: exclude_outside"
PY
venv/bin/python look.py
echo "as seen: both attributes are dropped without a word"
