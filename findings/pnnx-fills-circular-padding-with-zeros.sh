#!/usr/bin/env bash
# pnnx 20261020: circular padding becomes padding with zeros, in a convolution and on its own.
#
# Guess before looking: ncnn has no circular padding, so pnnx leaves the operation as one that ncnn cannot load (as it
# leaves antialiased resizing and nearest-exact), or builds it from slices.
# Seen (2026-11-28): a Conv2d with padding_mode="circular" becomes one convolution layer with pads of its own, exit
# code 0, nothing is said, the file loads, and its output is that of the same convolution padded with zeros, to rounding.
# Only the border is wrong, so a generator of tiling textures or panoramas looks right until its images are tiled.
# torch.nn.functional.pad with mode="circular" goes the same way. Reflection is right.
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
import torch.nn.functional as F
from torch import nn

warnings.filterwarnings("ignore")
torch.manual_seed(0)
x = torch.randn(1, 8, 9, 11)


def through_ncnn(module, name):
    """Return what ncnn computes of the module that pnnx converted, and the converter's exit code."""
    torch.jit.trace(module, x).save(f"{name}.pt")
    code = subprocess.run(
        ["venv/bin/pnnx", f"{name}.pt", "inputshape=[1,8,9,11]", "fp16=0"], capture_output=True, check=False
    ).returncode
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    loaded = net.load_param(f"{name}.ncnn.param") == 0 and net.load_model(f"{name}.ncnn.bin") == 0
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x[0].numpy()).clone())
    code_out, out = extractor.extract("out0")
    assert loaded and code_out == 0, name
    return torch.from_numpy(numpy.array(out))[None], code


class Padded(nn.Module):
    def forward(self, x):
        return F.pad(x, (2, 1, 3, 0), mode="circular")


def off(a, b):
    return float((a - b).abs().max())


with torch.no_grad():
    reflected = nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect").eval()
    seen, code = through_ncnn(reflected, "reflected")
    assert code == 0 and off(seen, reflected(x)) < 1e-4, "reflection used to be right"
    print("reflection, largest difference to torch:", off(seen, reflected(x)))
    circular = nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular").eval()
    seen, code = through_ncnn(circular, "circular")
    zeros = F.conv2d(x, circular.weight, circular.bias, padding=1)
    print("circular, exit code", code, "to torch:", off(seen, circular(x)), "to padding with zeros:", off(seen, zeros))
    assert code == 0 and off(seen, circular(x)) > 0.1 and off(seen, zeros) < 1e-4, "changed: circular convolutions"
    seen, code = through_ncnn(Padded().eval(), "padded")
    print("pad alone, to torch:", off(seen, Padded()(x)), "to zeros:", off(seen, F.pad(x, (2, 1, 3, 0))))
    assert code == 0 and off(seen, Padded()(x)) > 0.1 and off(seen, F.pad(x, (2, 1, 3, 0))) == 0, "changed: pad"
PY
venv/bin/python look.py
echo "as seen: circular padding is silently zeros"
