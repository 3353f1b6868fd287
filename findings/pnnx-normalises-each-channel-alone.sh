#!/usr/bin/env bash
# pnnx 20261020 with ncnn: a LayerNorm over channels, rows and columns normalises every channel by itself.
#
# Guess before looking: it is converted and agrees (ncnn's layer has the number of elements as a setting, and pnnx writes
# 8*9*11 there), or it is refused.
# Seen (2026-11-28): exit code 0, the file loads, and every channel comes out with a mean and a variance of its own, as an
# instance norm gives them. LayerNorm over the last axis and over the last two is right. Critics of WGAN-GP and decoders
# of image translation normalise over all three.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "pnnx==20261020" "ncnn==1.0.20261020" "torch==2.14.1" "numpy==2.4.6"
cd "$work"
cat > look.py <<'PY'
import subprocess
import warnings

import ncnn
import numpy
import torch
from torch import nn

warnings.filterwarnings("ignore")
torch.manual_seed(0)
# channels of different mean and spread, which a norm over all of them keeps different
x = torch.randn(1, 8, 9, 11) * torch.arange(1, 9).view(1, 8, 1, 1) + torch.arange(8).view(1, 8, 1, 1)


def through_ncnn(shape):
    name = f"norm{len(shape)}"
    torch.jit.trace(nn.LayerNorm(shape).eval(), x).save(f"{name}.pt")
    subprocess.run(["venv/bin/pnnx", f"{name}.pt", "inputshape=[1,8,9,11]", "fp16=0"], capture_output=True, check=True)
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param(f"{name}.ncnn.param") == 0 and net.load_model(f"{name}.ncnn.bin") == 0
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x[0].numpy()).clone())
    code, out = extractor.extract("out0")
    assert code == 0
    return torch.from_numpy(numpy.array(out))[None]


def off(a, b):
    return float((a - b).abs().max())


with torch.no_grad():
    for shape in ([11], [9, 11]):
        right = nn.LayerNorm(shape)(x)
        assert off(through_ncnn(shape), right) < 1e-3, f"over {shape} used to be right"
    seen, right, alone = through_ncnn([8, 9, 11]), nn.LayerNorm([8, 9, 11])(x), nn.InstanceNorm2d(8)(x)
print("over (8, 9, 11): to torch", off(seen, right), "to a norm of each channel alone", off(seen, alone))
assert off(seen, right) > 0.3 and off(seen, alone) < 1e-3, "changed"
PY
venv/bin/python look.py
echo "as seen: over three axes every channel is normalised alone"
