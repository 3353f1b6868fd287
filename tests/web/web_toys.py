"""Packed generators for pages, and the programs that run these: Node and Chromium, where they are."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancompress.data.base import ImageSpec
from gancompress.export.in_bytes import calibrate_generator
from gancompress.export.packed import Packed, export_packed, load_packed
from gancompress.foreign.network import capture_module
from gancompress.graphs.build import CapturedModule

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "export"))
from export_toys import make, mask

WEB = Path(__file__).resolve().parents[2] / "gancompress" / "web"
CLASSES = ("ant", "<bee> & co", "cat")

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


def packed_toy(
    path: Path, name: str, size: int, values: str = "float32", density: float = 0.2, grey: bool = False, **config: Any
) -> Packed:
    """Write a small generator into a packed file, and read it."""
    image = ImageSpec(1 if grey else 3, size, CLASSES if config.get("conditional") else ())
    generator = make(name, image, **config)
    masks = mask(generator, density)
    more = {"ranges": calibrate_generator(generator, masks)} if values == "int8" else {}
    export_packed(generator, path, model={"name": name, **config}, masks=masks, values=values, **more)
    return load_packed(path)


def in_node(folder: Path, code: str, *files: Path) -> Any:
    """Run a piece of a module, in which `load` is there and `files` holds bytes; return what it gave to `told`."""
    script = folder / "script.mjs"
    script.write_text(
        "import { load, within, between, classCycle, GeneratorError } "
        f"from {json.dumps((WEB / 'generator.js').as_uri())};\n"
        'import { readFileSync, writeFileSync } from "node:fs";\n'
        f"const files = {json.dumps([str(file) for file in files])}.map((file) => readFileSync(file));\n"
        f"const told = (value) => writeFileSync({json.dumps(str(folder / 'told.json'))}, JSON.stringify(value));\n"
        f"const save = (bytes) => writeFileSync({json.dumps(str(folder / 'saved.bin'))}, bytes);\n"
        f"{code}\n"
    )
    done = subprocess.run(["node", str(script)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = folder / "told.json"
    return json.loads(told.read_text()) if told.exists() else None


class Upscaler(nn.Module):
    """Doubles an image: slopes per channel, a pixel shuffle, and the pixels themselves beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.slopes = nn.PReLU(8)

    def forward(self, x: Tensor) -> Tensor:
        out = F.pixel_shuffle(self.last(self.slopes(self.first(x))), 2)
        return out + F.interpolate(x, scale_factor=2, mode="nearest")


class Vocoder(nn.Module):
    """Makes four samples of every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(5, 8, 8, 4, 2)
        self.wide, self.last = nn.Conv1d(8, 8, 3, padding=2, dilation=2), nn.Conv1d(8, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(F.leaky_relu(x, 0.1))
        return torch.tanh(self.last(F.leaky_relu(x + self.wide(F.leaky_relu(x, 0.1)))))


class Translator(nn.Module):
    """An image to an image: norms of whole maps, smaller and larger again, and a gate per channel; borders as asked."""

    def __init__(self, border: str = "zeros") -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 5, padding=2, padding_mode=border), nn.InstanceNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1), nn.InstanceNorm2d(8), nn.ReLU(),
        )  # fmt: skip
        self.gate = nn.Linear(8, 8)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(8, 8, 3, 2, 1, 1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        gate = torch.sigmoid(self.gate(x.mean((2, 3))))
        return self.up(x * gate[:, :, None, None])


class Enhancer(nn.Module):
    """A grey image to a grey image: two ways that are joined, a batch norm in one, and the range is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 5, padding=2)
        self.norm, self.last = nn.BatchNorm2d(6), nn.Conv2d(12, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.silu(self.norm(self.first(x)))
        return torch.clamp(self.last(torch.cat((wide, F.leaky_relu(self.other(wide), 0.2)), 1)) + x, -1, 1)


def captured(make: type[nn.Module]) -> CapturedModule:
    """Make a small network whose sizes may change, and capture it."""
    torch.manual_seed(0)
    module = make().eval()
    x, sizes = {
        Vocoder: (torch.randn(1, 5, 24), ("t",)), Enhancer: (torch.randn(1, 1, 24, 32), ("h", "w")),
    }.get(make, (torch.randn(1, 3, 24, 32), ("h", "w")))  # fmt: skip
    network = capture_module(module, (x,))
    # torch.export would have it that sizes are even, and more than 1 after a norm: the operations do not mind
    (given,) = network.captured.inputs
    opened = dataclasses.replace(given, shape=(*given.shape[:2], *sizes))
    return CapturedModule(dataclasses.replace(network.captured, inputs=(opened,)), network.state_dict())
