#!/usr/bin/env bash
# torch-pruning 1.6.1: count_ops_and_params counts a transposed convolution of stride 2 four times.
#
# Guess before looking: the multiplications of a transposed convolution are its input's positions times its weights, and a
# package that prunes networks counts them so, as torch's FlopCounterMode and ptflops do.
# Seen (2026-11-29): it counts output positions times weights, stride squared as many: four times for DCGAN's 4x4 layers
# of stride 2. Nothing is said. onnx-tool 1.0.1 counts twice as many. thop 0.1.1 and torchinfo 1.8.0, which were
# suspected of it, count four times too; torch's own counter and ptflops 0.7.5 are right, and so are all of them for
# convolutions. In a generator that holds both kinds the transposed ones seem the costliest, and savings that were
# published by different counters do not compare.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6" "torch-pruning==1.6.1" "torchinfo==1.8.0" \
    "ptflops==0.7.5" "thop==0.1.1.post2209072238" "onnx==1.23.2" "onnx-tool==1.0.1"
cd "$work"
cat > look.py <<'PY'
import onnx
import onnx_tool
import torch
import torch_pruning
from onnx import TensorProto, helper, numpy_helper
from ptflops import get_model_complexity_info
from thop import profile
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchinfo import summary

image = torch.randn(1, 16, 8, 8)


def by_torch(net):
    with FlopCounterMode(display=False) as counter:
        net(image)
    return counter.get_total_flops() / 2


def by_onnx_tool(net):
    """Return onnx-tool's count for a model of the one layer, written by hand."""
    kind = "ConvTranspose" if isinstance(net[0], nn.ConvTranspose2d) else "Conv"
    node = helper.make_node(kind, ["x", "w"], ["y"], strides=list(net[0].stride), pads=[1] * 4)
    shapes = {"x": image.shape, "y": net(image).shape}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    weight = numpy_helper.from_array(net[0].weight.detach().numpy(), "w")
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "layer.onnx")
    model = onnx_tool.Model("layer.onnx")
    model.graph.shape_infer()
    model.graph.profile()
    return model.graph.macs[0]


counters = {
    "torch": by_torch,
    "ptflops": lambda net: get_model_complexity_info(net, tuple(image.shape[1:]), False, False)[0],
    "torch-pruning": lambda net: torch_pruning.utils.count_ops_and_params(net, image)[0],
    "thop": lambda net: profile(net, (image,), verbose=False)[0],
    "torchinfo": lambda net: summary(net, input_data=image, verbose=0).total_mult_adds,
    "onnx-tool": by_onnx_tool,
}
layers = {
    "convolution": (nn.Conv2d(16, 8, 3, 1, 1, bias=False), 64 * 16 * 8 * 9, {}),
    "transposed": (
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
        64 * 16 * 8 * 16,
        {"torch-pruning": 4, "thop": 4, "torchinfo": 4, "onnx-tool": 2},
    ),
}
for name, (layer, right, off) in layers.items():
    for counter, count in counters.items():
        times = count(nn.Sequential(layer)) / right
        print(f"{name}, {counter}: {times:g} times what it takes")
        assert times == off.get(counter, 1), f"{counter} counts otherwise now"
PY
"$work/venv/bin/python" look.py
