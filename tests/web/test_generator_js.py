"""What pages run gives the images that Python gives; in Node, which has the same WebAssembly as Chromium."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from web_toys import CLASSES, Upscaler, captured, in_node, needs_node, packed_toy

import gancompress
from gancompress.data.classes import class_cycle
from gancompress.errors import ExportError
from gancompress.export.latents import interpolated, within
from gancompress.kernels import Program
from gancompress.web.blob import Tensors, write_blob
from gancompress.web.make import blob_of
from gancompress.web.network import network_blob
from gancompress.web.steps import program_entry

pytestmark = needs_node

TOYS: dict[str, dict[str, Any]] = {
    "dcgan": {"name": "dcgan", "size": 16, "grey": True, "config": {"channels": 8, "latent_dim": 7}},
    "dcgan of classes": {"name": "dcgan", "size": 16, "config": {"channels": 8, "latent_dim": 6, "conditional": True}},
    "sngan": {"name": "sngan", "size": 32, "config": {"channels": 16, "latent_dim": 16}},
    "sngan of classes": {"name": "sngan", "size": 32, "config": {"channels": 16, "conditional": True}},
    "biggan": {"name": "biggan", "size": 64, "config": {"channels": 8, "conditional": True}},
    "biggan-deep": {"name": "biggan-deep", "size": 128, "config": {"channels": 8, "conditional": True}},
    "r3gan": {"name": "r3gan", "size": 16, "config": {"channels": 16, "conditional": True, "group_width": 8}},
    "fastgan": {"name": "fastgan", "size": 64, "config": {"channels": 16, "latent_dim": 8}},
}


def toy(
    folder: Path, values: str, name: str, size: int, config: dict[str, Any], grey: bool = False
) -> tuple[Path, Path]:
    """A packed file and the file of a page."""
    packed = folder / "generator.safetensors"
    blob = folder / "generator.gcw"
    blob.write_bytes(blob_of(packed_toy(packed, name, size, values, grey=grey, **config)))
    return packed, blob


def pixels(folder: Path, shape: torch.Size) -> torch.Tensor:
    """What a page made, as Python gives images."""
    n, channels, height, width = shape
    rgba = torch.from_numpy(np.frombuffer((folder / "saved.bin").read_bytes(), np.uint8).copy())
    assert bool((rgba.reshape(-1, 4)[:, 3] == 255).all())
    return rgba.reshape(n, height, width, 4).permute(0, 3, 1, 2)[:, :channels]


def farthest(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize(
    ("which", "values"),
    [
        *((which, "float32") for which in TOYS if which != "biggan-deep"),
        pytest.param("biggan-deep", "float32", marks=pytest.mark.slow),
        ("dcgan of classes", "bf16"),
        ("sngan", "bf16"),
    ],
)
def test_pages_make_the_images_of_python(tmp_path: Path, which: str, values: str) -> None:
    packed, blob = toy(tmp_path, values, **TOYS[which])
    generator = gancompress.load(packed, sparse="always")
    for n in (2, 19):  # one by one, and side by side
        wanted = generator(n=n, seed=3, uint8=True)
        told = in_node(
            tmp_path,
            f"const g = await load(files[0]); const made = await g.generate({{ seed: 3, n: {n} }}); save(made.data);"
            "told({ classes: g.classes, size: [made.n, made.channels, made.height, made.width] });",
            blob,
        )
        assert told["size"] == list(wanted.shape)
        assert told["classes"] == (list(CLASSES) if generator.network.num_classes else [])
        assert farthest(pixels(tmp_path, wanted.shape), wanted) <= 1
        assert float(wanted.float().std()) > 2  # there is something to see


def test_a_program_by_hand(tmp_path: Path) -> None:
    program = Program((2, 1, 1))
    weight = torch.tensor([[0.5, 0.0], [0.0, -0.25], [1.0, 1.0]])[:, :, None, None]
    program.output(program.conv(program.input, weight, weight != 0, torch.tensor([0.0, 0.5, 0.0])))
    tensors = Tensors()
    entry = program_entry(program, tensors)
    header = {
        "latent": 2, "classes": [], "counts": [], "channels": 3, "size": 1, "programs": [entry], "output": 3,
        "operations": [
            {"op": "program", "out": 2, "shape": [3, 1, 1], "program": 0, "of": [0], "affines": []},
            {"op": "unary", "out": 3, "shape": [3, 1, 1], "of": 2, "kind": "tanh"},
        ],
    }  # fmt: skip
    blob = tmp_path / "hand.gcw"
    blob.write_bytes(write_blob(header, tensors))
    in_node(tmp_path, "const g = await load(files[0]); save((await g.generate({ z: [1, -2, 0, 2] })).data);", blob)
    # tanh of 0.5, 1.0 and -1.0; of 0.0, 0.0 and 2.0: (tanh + 1) * 127.5, ties to even
    assert list((tmp_path / "saved.bin").read_bytes()) == [186, 225, 30, 255, 128, 128, 250, 255]


def test_latents_are_those_of_python_to_the_bit(tmp_path: Path) -> None:
    packed, blob = toy(tmp_path, "float32", **TOYS["dcgan"])  # seven numbers a latent: no multiple of sixteen in all
    generator = gancompress.load(packed)
    in_node(
        tmp_path,
        "const g = await load(files[0]); const all = [g.latents({ seed: 5, n: 1002 }), g.latents({ seed: 5, n: 2 }), "
        "g.latents({ seed: -3, n: 1, first: 1001 })]; save(Buffer.concat(all.map((one) => Buffer.from(one.buffer))));",
        blob,
    )
    made = torch.from_numpy(np.frombuffer((tmp_path / "saved.bin").read_bytes(), np.float32).copy()).reshape(-1, 7)
    assert torch.equal(made[:1002], generator.latents(1002, 5))
    assert torch.equal(made[1002:1004], generator.latents(2, 5))
    assert torch.equal(made[1004:], generator.latents(1002, -3)[1001:])


def test_the_threshold_and_the_way_are_those_of_python(tmp_path: Path) -> None:
    latents = torch.cat((torch.linspace(-6, 6, 101), torch.tensor([0.0, -0.0]))).float()
    a, b = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    told = in_node(
        tmp_path,
        f"const z = Float32Array.from({json.dumps(latents.tolist())});"
        f"const a = Float32Array.from({json.dumps(a.tolist())}), b = Float32Array.from({json.dumps(b.tolist())});"
        "const list = (one) => Array.from(one);"
        "told({ cut: [0.1, 1, 2.5, 9].map((most) => list(within(z, most))),"
        "way: [0, 0.25, 0.5, 1].map((t) => list(between(a, b, t))), same: list(between(a, a, 0.3)),"
        "cycles: [[1, 1, 1], [2, 4, 0], [5, 3]].map(classCycle) });",
    )
    for most, made in zip((0.1, 1.0, 2.5, 9.0), told["cut"], strict=True):
        assert torch.allclose(torch.tensor(made), within(latents, most), rtol=0, atol=1e-6)
    assert torch.allclose(torch.tensor(told["way"]), interpolated(a, b, 5)[[0, 1, 2, 4]], rtol=0, atol=1e-6)
    assert torch.allclose(torch.tensor(told["same"]), a, rtol=0, atol=1e-6)
    assert told["cycles"] == [class_cycle(counts).tolist() for counts in ([1, 1, 1], [2, 4, 0], [5, 3])]


def test_classes_and_seeds_can_be_chosen(tmp_path: Path) -> None:
    packed, blob = toy(tmp_path, "float32", **TOYS["dcgan of classes"])
    generator = gancompress.load(packed, sparse="always")
    z = generator.interpolate(1, 2, 3)
    wanted = torch.cat((
        generator(n=2, seed=4, classes=2, uint8=True), generator(seed=4, classes=["cat", 0, "ant"], uint8=True),
        generator(z=z, classes=1, uint8=True),
    ))  # fmt: skip
    in_node(
        tmp_path,
        "const g = await load(files[0]), made = [await g.generate({ seed: 4, n: 2, classes: 2 }),"
        "await g.generate({ seed: 4, classes: ['cat', 0, 'ant'] }),"
        "await g.interpolate({ from: 1, to: 2, steps: 3, classes: 1 })];"
        "save(Buffer.concat(made.map((one) => Buffer.from(one.data.buffer))));",
        blob,
    )
    assert farthest(pixels(tmp_path, wanted.shape), wanted) <= 1


def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path) -> None:
    _, blob = toy(tmp_path, "bf16", **TOYS["dcgan of classes"])
    told = in_node(
        tmp_path,
        """
        const said = {}, whole = files[0];
        const fails = async (name, does) => {
          try { await does(); said[name] = "nothing"; }
          catch (error) { said[name] = error instanceof GeneratorError ? error.message : String(error.stack); }
        };
        const changed = (at) => {
          const copy = Uint8Array.from(whole);
          copy[at < 0 ? copy.length + at : at] ^= 1;
          return copy;
        };
        await fails("other", () => load(Uint8Array.from(Array(100).keys())));
        await fails("short", () => load(new Uint8Array(3)));
        await fails("newer", () => load(changed(7).map((byte, i) => (i === 7 ? 9 : byte))));
        await fails("cut", () => load(whole.subarray(0, whole.length - 5)));
        await fails("last", () => load(changed(-1)));
        await fails("middle", () => load(changed(-4000)));
        for (const at of [100, 2000, 20000, 40000]) await fails(`kernels ${at}`, () => load(changed(at)));
        await fails("hash", () => load(changed(10)));
        const g = await load(whole);
        await fails("class", () => g.generate({ classes: "dog" }));
        await fails("number", () => g.generate({ classes: 3 }));
        await fails("count", () => g.generate({ classes: [0, 1], n: 3 }));
        await fails("seed", () => g.generate({ seed: 0.5 }));
        await fails("n", () => g.generate({ n: 0 }));
        await fails("z", () => g.generate({ z: [1, 2, 3] }));
        await fails("threshold", () => g.generate({ threshold: 0 }));
        const validate = WebAssembly.validate;
        WebAssembly.validate = () => false;
        await fails("simd", () => load(whole));
        WebAssembly.validate = validate;
        const stream = globalThis.DecompressionStream;
        delete globalThis.DecompressionStream;
        await fails("old", () => load(whole));
        globalThis.DecompressionStream = stream;
        told(said);
        """,
        blob,
    )
    parts = {
        "other": "no generator", "short": "no generator", "newer": "format 9", "cut": "damaged", "last": "damaged",
        "middle": "damaged", "hash": "damaged", "kernels 100": "damaged", "kernels 2000": "damaged",
        "kernels 20000": "damaged", "kernels 40000": "damaged", "class": "no class dog", "number": "no class 3",
        "count": "2 classes for 3", "seed": "whole number", "n": "at least 1", "z": "come whole",
        "threshold": "above 0", "simd": "no SIMD",
        "old": "too old",
    }  # fmt: skip
    assert told.keys() == parts.keys()
    for name, part in parts.items():
        assert part in told[name], name


def test_an_operation_that_pages_lack_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = packed_toy(tmp_path / "g.safetensors", "dcgan", 16, **TOYS["dcgan"]["config"])
    kind = type(packed.generator())
    own = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, z, labels=None: torch.erf(own(self, z, labels)))
    with pytest.raises(ExportError, match="pages have nothing for the operation erf"):
        blob_of(packed)


def test_equal_generators_give_equal_bytes(tmp_path: Path) -> None:
    packed = packed_toy(tmp_path / "g.safetensors", "dcgan", 16, **TOYS["dcgan"]["config"])
    assert blob_of(packed) == blob_of(packed)


EXACT = ["dcgan of classes", "sngan of classes"]


@pytest.fixture
def _all_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays in float for the sake of the images."""
    monkeypatch.setattr("gancompress.export.in_bytes.kept_in_float", lambda *_: ())


def differing_in_bytes(folder: Path, which: str, n: int) -> int:
    packed, blob = toy(folder, "int8", **TOYS[which])
    generator = gancompress.load(packed, sparse="always")
    convolutions = [layer for layer in generator.network.layers if layer.kind == "convolution"]
    assert {layer.values for layer in convolutions} == {"int8"}
    wanted = generator(n=n, seed=1, uint8=True)
    in_node(folder, f"const g = await load(files[0]); save((await g.generate({{ seed: 1, n: {n} }})).data);", blob)
    return int((pixels(folder, wanted.shape) != wanted).sum())


@pytest.mark.usefixtures("_all_in_bytes")
@pytest.mark.parametrize("which", EXACT)
def test_in_bytes_pages_give_the_very_bytes_of_python(tmp_path: Path, which: str) -> None:
    assert differing_in_bytes(tmp_path, which, 2) == 0  # one by one
    assert differing_in_bytes(tmp_path, which, 100) == 0  # side by side


@pytest.mark.slow
@pytest.mark.usefixtures("_all_in_bytes")
@pytest.mark.parametrize("which", EXACT)
def test_in_bytes_ten_thousand_images_are_those_of_python(tmp_path: Path, which: str) -> None:
    assert differing_in_bytes(tmp_path, which, 10_000) == 0


@pytest.mark.slow
def test_ten_thousand_images_differ_by_one_grey_level_at_most(tmp_path: Path) -> None:
    packed, blob = toy(tmp_path, "float32", **TOYS["sngan"])
    wanted = gancompress.load(packed, sparse="always")(n=10_000, seed=1, uint8=True)
    in_node(tmp_path, "const g = await load(files[0]); save((await g.generate({ seed: 1, n: 10000 })).data);", blob)
    made = pixels(tmp_path, wanted.shape)
    assert farthest(made, wanted) <= 1
    assert float((made != wanted).float().mean()) < 1e-4


def test_the_lines_for_sites_in_the_documentation_run(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    block, _ = re.findall(r"```js\n(.*?)```", page, re.DOTALL)
    lines = [line for line in block.splitlines() if not line.startswith("import")]  # in_node has it imported
    assert len(lines) > 4
    _, blob = toy(tmp_path, "bf16", **TOYS["dcgan of classes"])
    assert blob.name == "generator.gcw"
    drawn = """
      globalThis.fetch = async (address) => new Response(readFileSync(new URL(address, import.meta.url)));
      globalThis.ImageData = function (data, width, height) { Object.assign(this, { data, width, height }); };
      const drawn = [], context = { putImageData: (image, x, y) => drawn.push([image.data.length, image.width, x, y]) };
      const canvas = { getContext: () => context };
    """
    code = "\n".join(lines).replace("classes: 3", "classes: 2")  # the toy has three
    told = in_node(tmp_path, f"{drawn}\n{code}\ntold([drawn, images.n, way.n, cut.n, images.classes]);")
    assert told == [[[16 * 16 * 4, 16, 0, 0]], 16, 8, 1, [2] * 16]


def test_the_lines_for_networks_in_the_documentation_run(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    _, block = re.findall(r"```js\n(.*?)```", page, re.DOTALL)
    lines = [line for line in block.splitlines() if not line.startswith("import")]
    assert len(lines) > 3
    (tmp_path / "upscaler.gcw").write_bytes(network_blob(captured(Upscaler), {}))
    given = """
      globalThis.fetch = async (address) => new Response(readFileSync(new URL(address, import.meta.url)));
      const drawn = (x, y, width, height) => ({ width, height, data: new Uint8ClampedArray(4 * width * height) });
      const context = { getImageData: drawn };
    """
    code = "\n".join(lines)
    told = in_node(tmp_path, f"{given}\n{code}\ntold([network.takes, network.gives, width, height, data.length]);")
    assert told == ["image", "image", 256, 192, 4 * 256 * 192]
