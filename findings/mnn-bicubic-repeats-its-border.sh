#!/usr/bin/env bash
# MNN 3.6.1: an ONNX Resize by bicubic interpolation comes out with a wrong first row and a wrong first column.
#
# Guess before looking: MNN, which runs published upscalers, agrees with ONNX's own definition of Resize (cubic,
# half_pixel, coefficient -0.75, what torch exports for bicubic) to rounding, as it does for nearest and bilinear.
# Seen (2026-11-28): everything agrees but the border at index 0. For a factor of 2 the first row is a copy of the third
# and the first column a copy of the third, whatever the image: where the source coordinate is negative (-0.25 there).
# For a factor of 4 it is the first two rows and columns. The last row and column are right, align_corners is right,
# nothing is said. On random numbers the error is as large as the values. An upscaler with a bicubic skip connection is off along two edges of every image, by an amount that a mean over
# pixels hardly shows.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "MNN==3.6.1" "numpy==2.4.6" "onnx==1.23.2" "onnxruntime==1.32.0"
cd "$work"
cat > look.py <<'PY'
import subprocess

import MNN.expr as expr
import MNN.nn
import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper

image = numpy.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype("float32")


def both(factor, mode, coordinates):
    """Return the image enlarged by onnxruntime and by MNN."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, factor, factor])
    node = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], mode=mode, coordinate_transformation_mode=coordinates, cubic_coeff_a=-0.75
    )
    size = 6 * factor
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, size, size])],
        [scales],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, "resize.onnx")
    convert = ["mnnconvert", "-f", "ONNX", "--modelFile", "resize.onnx", "--MNNModel", "resize.mnn", "--bizCode", "x"]
    subprocess.run(convert, check=True, capture_output=True)
    module = MNN.nn.load_module_from_file("resize.mnn", ["x"], ["y"])
    given = expr.const(image.ravel().tolist(), list(image.shape), expr.NCHW)
    mine = numpy.array(expr.convert(module.forward([given])[0], expr.NCHW).read())
    session = onnxruntime.InferenceSession("resize.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})[0], mine


def close(a, b):
    return float(numpy.abs(a - b).max()) < 1e-4


right, seen = both(2, "linear", "half_pixel")
assert close(right, seen), "bilinear"
right, seen = both(2, "cubic", "align_corners")
assert close(right, seen), "bicubic with aligned corners"
for factor in (2, 4):
    wrong = factor // 2
    right, seen = both(factor, "cubic", "half_pixel")
    assert close(right[..., wrong:, wrong:], seen[..., wrong:, wrong:]), "away from the first rows and columns"
    errors = numpy.abs(right - seen)
    print(f"factor {factor}: largest error in the first {wrong} rows {errors[..., :wrong, :].max():.2f},",
          f"in the first {wrong} columns {errors[..., :, :wrong].max():.2f}, elsewhere",
          f"{errors[..., wrong:, wrong:].max():.0e}; values up to {numpy.abs(right).max():.2f}")
    assert errors[..., :wrong, :].max() > 0.5
    assert errors[..., :, :wrong].max() > 0.5
    if factor == 2:
        assert close(seen[..., 0, :], seen[..., 2, :]), "the first row is the third"
        assert close(seen[..., :, 0], seen[..., :, 2]), "the first column is the third"
PY
PATH="$work/venv/bin:$PATH" python look.py 2> errors.txt | grep "^factor" || { cat errors.txt >&2; exit 1; }
