"""Networks from elsewhere in pages: what Node makes of inputs of any size is what torch makes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from web_toys import Enhancer, Translator, Upscaler, Vocoder, captured, in_node, needs_node, packed_toy

from gancompress.errors import ExportError
from gancompress.foreign.network import capture_module
from gancompress.web.container import header_of
from gancompress.web.make import blob_of
from gancompress.web.network import network_blob
from gancompress.web.sizes import UnevenError, followed, merged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gancompress.graphs.build import CapturedModule


def in_page(folder: Path, blob: bytes, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What a page gives for inputs ``(1, ...)``, one after the other."""
    file = folder / "network.gcw"
    file.write_bytes(blob)
    given = []
    for index, x in enumerate(inputs):
        given.append(folder / f"{index}.bin")
        given[-1].write_bytes(x.numpy().tobytes())
    shapes = json.dumps([list(x.shape[1:]) for x in inputs])
    told = in_node(
        folder,
        f"const shapes = {shapes}, g = await load(files[0]), made = [];"
        "for (const [i, shape] of shapes.entries())"
        "  made.push(await g.run({ shape, data: new Float32Array(new Uint8Array(files[i + 1]).buffer) }));"
        "save(Buffer.concat(made.map((one) => Buffer.from(one.data.buffer)))); told(made.map((one) => one.shape));",
        file,
        *given,
    )
    numbers = torch.from_numpy(np.frombuffer((folder / "saved.bin").read_bytes(), np.float32).copy())
    return [
        part.reshape(shape) for part, shape in zip(numbers.split([int(np.prod(s)) for s in told]), told, strict=True)
    ]


@needs_node
@pytest.mark.parametrize("name", ["unet", "resnet"])
def test_generators_of_ours_that_eat_images(name: str, tmp_path: Path) -> None:
    packed = packed_toy(tmp_path / "g.safetensors", name, 32, values="bf16", channels=8)
    x = 2 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
    (made,) = in_page(tmp_path, blob_of(packed), [x])
    with torch.no_grad():
        wanted = packed.generator()(x)[0]
    assert float((made - wanted).abs().max()) < 1 / 255
    assert float(wanted.std()) > 0.01


KINDS: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "upscaler": (Upscaler, [(3, 16, 24), (3, 44, 16), (3, 16, 24)]),
    "vocoder": (Vocoder, [(5, 16), (5, 40)]),
    "translator": (Translator, [(3, 16, 16), (3, 32, 24)]),
    "enhancer": (Enhancer, [(1, 16, 20), (1, 24, 16)]),
}


@needs_node
@pytest.mark.parametrize("kind", KINDS)
def test_pages_give_what_torch_gives_at_any_size(tmp_path: Path, kind: str) -> None:
    make, sizes = KINDS[kind]
    network = captured(make)
    inputs = [torch.randn(1, *size) for size in sizes]
    made = in_page(tmp_path, network_blob(network, {}, rounds=False), inputs)
    for x, found in zip(inputs, made, strict=True):
        with torch.no_grad():
            wanted = network(x)[0]
        assert found.shape == wanted.shape
        assert float(wanted.std()) > 0.01
        assert torch.allclose(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


@needs_node
def test_rounded_weights_are_those_of_bfloat16_and_masks_are_kept(tmp_path: Path) -> None:
    network = captured(Upscaler)
    state = network.state_dict()
    masks = {key: torch.rand(one.shape) < 0.3 for key, one in state.items() if one.dim() == 4}
    for key, mask in masks.items():
        state[key].mul_(mask)
    x = torch.randn(1, 3, 16, 16)
    whole = network_blob(network, masks, rounds=False)
    blob = network_blob(network, masks)
    assert len(blob) < len(whole)
    for mask, entry in zip(masks.values(), (one for one in header_of(blob)["tensors"] if "kept" in one), strict=True):
        assert entry["kept"] == int(mask.sum())
        assert entry["as"] == "bf16"
    (found,) = in_page(tmp_path, blob, [x])
    for key in masks:
        state[key].copy_(state[key].to(torch.bfloat16))
    with torch.no_grad():
        assert torch.allclose(found, network(x)[0], rtol=0, atol=1e-5)


@needs_node
def test_networks_in_bytes_compute_in_bytes(tmp_path: Path) -> None:
    from gancompress.foreign.in_bytes import calibrate_network
    from gancompress.lowering.network import SparseNetwork

    network = captured(Upscaler)
    inputs = [(torch.rand(1, 3, 24, 24),) for _ in range(3)]
    ranges = calibrate_network(network, {}, inputs, "mse", (0.0, 1.0))
    assert ranges
    blob = network_blob(network, {}, ranges=ranges)
    assert "i8" in {one["as"] for one in header_of(blob)["tensors"]}
    (found,) = in_page(tmp_path, blob, [inputs[0][0]])
    wanted = SparseNetwork(network, {}, "always", ranges)(inputs[0][0])[0]
    assert torch.allclose(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@needs_node
def test_sizes_are_cut_and_what_cannot_be_is_said(tmp_path: Path) -> None:
    file = tmp_path / "n.gcw"
    file.write_bytes(network_blob(captured(Translator), {}))
    told = in_node(
        tmp_path,
        """
        const g = await load(files[0]), said = [];
        for (const shape of [[3, 8, 40], [1, 32, 32], [3, 32], [3, 35, 41]])
          try { said.push(g.fit(shape)); }
          catch (error) { said.push(error instanceof GeneratorError ? error.message : error.stack); }
        try { await g.run({ shape: [3, 35, 41], data: new Float32Array(3) }); }
        catch (error) { said.push(error.message); }
        told(said);
        """,
        file,
    )
    unit = header_of(file.read_bytes())["axes"][0]["unit"]
    assert told[0] == "The network takes 16 or more along axis 1, and was given 8."
    assert told[1] == "The network takes 3 along axis 0, and was given 1."
    assert told[2] == "The network takes 3 axes, and was given 2."
    assert told[3] == [3, 35 // unit * unit, 41 // unit * unit]
    assert told[4].startswith("The network takes 3 x ")


@needs_node
def test_images_go_in_and_out_as_canvases_have_them(tmp_path: Path) -> None:
    file = tmp_path / "n.gcw"
    file.write_bytes(
        network_blob(captured(Enhancer), {}, pixels=(-1.0, 1.0), examples=[torch.full((1, 1, 16, 20), 0.5)])
    )
    told = in_node(
        tmp_path,
        """
        const g = await load(files[0]), data = new Uint8ClampedArray(4 * 16 * 16).fill(255);
        data.set([255, 0, 0, 255, 0, 255, 0, 255]);
        const given = g.fromImage({ data, width: 16, height: 16 });
        const back = g.toImage({ shape: [1, 1, 4], data: [-1, 1, 0, 7] });
        const [{ data: numbers, shape }] = g.examples;
        told([Array.from(given.data.slice(0, 3)), given.shape, Array.from(back.data), [...new Set(numbers)], shape]);
        """,
        file,
    )
    # red is 76 and green 150 of 255 grey levels, as Pillow has it
    assert told[0] == pytest.approx([76 / 127.5 - 1, 150 / 127.5 - 1, 1.0])
    assert told[1] == [1, 16, 16]
    assert told[2] == [0, 0, 0, 255, 255, 255, 255, 255, 128, 128, 128, 255, 255, 255, 255, 255]
    assert told[3] == pytest.approx([191 / 127.5 - 1])  # 0.5 is nearest to 191 of 255
    assert told[4] == [1, 16, 20]


@needs_node
def test_a_fixed_size_needs_no_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 20, 12)
    network = capture_module(Translator("reflect").eval(), (x,))
    blob = network_blob(network, {}, rounds=False)
    header = header_of(blob)
    assert header["shape"] == header["gives_shape"] == [3, 20, 12]
    assert header["axes"] == []
    (found,) = in_page(tmp_path, blob, [x])
    with torch.no_grad():
        assert torch.allclose(found, network(x)[0], rtol=0, atol=1e-5)


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Rolled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.roll(x, 1, 2))


def opened(module: nn.Module, *example: Tensor) -> CapturedModule:
    return capture_module(module.eval(), example, [{0: "n", 2: "h", 3: "w"} for _ in example])


def test_what_pages_cannot_show_is_named() -> None:
    x = torch.rand(1, 3, 24, 32)
    with pytest.raises(ExportError, match="pages have nothing for the operation roll"):
        network_blob(opened(Rolled(), x), {})
    with pytest.raises(ExportError, match="one input and show one output, and this has 2 and 1"):
        network_blob(opened(Two(), x, x), {})
    with pytest.raises(ExportError, match="show images and play sound of one channel, and this gives 1 x 7"):
        network_blob(opened(Wide(), x), {})


def test_numbers_that_follow_sizes_by_hand() -> None:
    record = {"a": [1, 4, 7], "b": {"c": [[2], "x"]}, "d": 3}
    taller = {"a": [1, 6, 7], "b": {"c": [[2], "x"]}, "d": 3}
    wider = {"a": [1, 4, 10], "b": {"c": [[5], "x"]}, "d": 3}
    made = merged(record, [taller, wider])
    assert made["a"] == {"at": [1, 4, 7], "by": [[0, 2, 0], [0, 0, 3]]}
    assert made["b"] == {"c": [{"at": [2], "by": [[0], [3]]}, "x"]}
    assert followed(made, [2, 3]) == {"a": [1, 8, 16], "b": {"c": [[11], "x"]}, "d": 3}
    for other in ({"a": [1], "b": 1, "d": 3}, {**record, "d": 4}, {**record, "a": [1, 4, 7.5]}):
        with pytest.raises(UnevenError):
            merged(record, [other])


def test_a_network_whose_maps_grow_unevenly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gancompress.web.network.followed", lambda *_: None)
    with pytest.raises(ExportError, match="whose maps grow evenly"):
        network_blob(captured(Upscaler), {})


def test_a_wrong_fusion_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = captured(Upscaler)
    right = network.forward
    monkeypatch.setattr(network, "forward", lambda *x: right(*x) * 1.01)
    with pytest.raises(ExportError, match=r"outputs that differ by 9\.9e-03 of the largest"):
        network_blob(network, {}, rounds=False)
