"""Networks in pages in headless Chromium: files, drops, keys, names of controls, sound, and what is said of faults."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "report"))

from chromium_page import Page, needs_chromium
from PIL import Image
from safetensors.torch import save_file
from test_network_page import record
from web_toys import Translator, Upscaler, Vocoder, captured

from gancompress.report.network import build_network_report
from gancompress.report.player import part_of
from gancompress.web.network import network_blob
from gancompress.web.page import generator_page

pytestmark = [pytest.mark.slow, needs_chromium]

HELPERS = """
globalThis.root = document.querySelector(".player");
globalThis.idle = async () => {
  const wait = () => new Promise((done) => setTimeout(done, 20));
  while (!root.dataset.failed && (root.dataset.busy === "true" || root.dataset.first === undefined)) await wait();
};
globalThis.part = (name, of = 0) => root.querySelectorAll(`[data-part="${name}"]`)[of];
globalThis.pixels = (name, of = 0) => {
  const canvas = part(name, of).querySelector("canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return { size: [canvas.height, canvas.width], data: Array.from(data) };
};
globalThis.settled = async (does, before = part("status").textContent) => {
  await does();
  const wait = () => new Promise((done) => setTimeout(done, 20));
  for (let i = 0; i < 200 && part("status").textContent === before; i++) await wait();
  await idle();
};
idle();
"""


def opened(folder: Path, blob: bytes, title: str = "a network") -> Page:
    file = folder / "page.html"
    file.write_text(generator_page(blob, title), encoding="utf-8")
    page = Page(folder, file)
    page.evaluate(HELPERS)
    return page


def image(page: Page, name: str, of: int = 0) -> np.ndarray[Any, Any]:
    found = page.evaluate(f"pixels({name!r}, {of})")
    return np.asarray(found["data"], np.uint8).reshape(*found["size"], 4)[:, :, :3]


def choose(page: Page, file: Path) -> None:
    """Choose a file, as a person does who reaches the control by keys."""
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=document, selector='[data-part="file"]')["nodeId"]
    page.evaluate("globalThis.was = part('status').textContent")
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
    page.evaluate("settled(() => {}, was)")


def test_an_image_is_chosen_dropped_and_made_smaller(tmp_path: Path) -> None:
    network = captured(Upscaler)
    blob = network_blob(network, {}, rounds=False, examples=[torch.rand(1, 3, 24, 32)])
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    file = tmp_path / "picture.png"
    Image.fromarray(picture).save(file)
    with opened(tmp_path, blob) as page:
        assert image(page, "input").shape == (24, 32, 3)  # the example
        assert image(page, "output").shape == (48, 64, 3)
        choose(page, file)
        assert np.array_equal(image(page, "input"), picture)
        with torch.no_grad():
            wanted = network(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255)[0]
        wanted = (wanted.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
        assert np.abs(image(page, "output") - wanted).max() <= 1
        assert "60 × 40 pixels became 120 × 80." in page.evaluate("part('status').textContent")
        assert "ms here, on one thread" in page.evaluate("part('said').textContent")
        # a dropped file, as the page sees it
        content = io.BytesIO()
        Image.fromarray(picture[::-1, :44].copy()).save(content, "PNG")
        data = base64.b64encode(content.getvalue()).decode()
        page.evaluate(
            """settled(() => {
              const bytes = Uint8Array.from(atob(DATA), (one) => one.charCodeAt(0)), given = new DataTransfer();
              given.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
              const event = new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true });
              part("drop").dispatchEvent(event);
            })""".replace("DATA", json.dumps(data))
        )
        assert np.array_equal(image(page, "input"), picture[::-1, :44])
        page.evaluate("part('side').value = '64'")
        big = tmp_path / "big.png"
        Image.fromarray(np.full((300, 600, 3), 90, np.uint8)).save(big)
        choose(page, big)
        assert image(page, "input").shape == (32, 64, 3)
        assert int(image(page, "input").min()) == int(image(page, "input").max()) == 90
        assert page.errors == []
        assert page.requests == [(tmp_path / "page.html").as_uri()]


def test_what_cannot_be_taken_is_said_and_what_was_there_stays(tmp_path: Path) -> None:
    blob = network_blob(captured(Upscaler), {}, examples=[torch.rand(1, 3, 24, 32)])
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(picture)
    with opened(tmp_path, blob) as page:
        choose(page, text)
        assert page.evaluate("part('status').textContent") == "notes.txt is no image that this browser reads."
        assert page.evaluate("part('status').getAttribute('role')") == "alert"
        assert image(page, "output").shape == (48, 64, 3)
        choose(page, picture)
        assert page.evaluate("part('status').getAttribute('role')") is None
        assert image(page, "output").shape == (40, 40, 3)
        assert page.errors == []


def test_a_vocoder_plays_its_example_and_inputs_of_a_file(tmp_path: Path) -> None:
    network = captured(Vocoder)
    example = torch.randn(1, 5, 40)
    given = tmp_path / "inputs.safetensors"
    save_file({"first": torch.zeros(2, 2), "second": torch.randn(1, 5, 30)}, given)
    other = tmp_path / "other.safetensors"
    save_file({"first": torch.zeros(2, 2)}, other)
    with opened(tmp_path, network_blob(network, {}, examples=[example], rate=8000)) as page:
        heard = page.evaluate("part('sound').src")
        assert heard.startswith("data:audio/wav;base64,")
        wav = base64.b64decode(heard.partition(",")[2])
        assert (wav[:4], int.from_bytes(wav[24:28], "little")) == (b"RIFF", 8000)
        with torch.no_grad():
            wanted = network(example.to(torch.bfloat16).float())[0, 0]
        samples = np.frombuffer(wav[44:], "<i2").astype(np.float32) / 32767
        assert samples.shape == wanted.shape
        assert np.abs(samples - wanted.numpy()).max() < 0.02  # weights are rounded
        seconds = "(async () => { const one = part('sound'); while (!(one.duration > 0)) await new Promise((done) =>"
        assert page.evaluate(f"{seconds} setTimeout(done, 20)); return one.duration; }})()") == pytest.approx(0.02)
        assert "5 × 40 numbers became 0.02 seconds" in page.evaluate("part('status').textContent")
        choose(page, given)
        assert "5 × 28 numbers" in page.evaluate("part('status').textContent")  # cut to a multiple of four
        choose(page, other)
        assert "Nothing in this file fits" in page.evaluate("part('status').textContent")
        assert page.errors == []


def test_keys_reach_every_control_and_all_have_names(tmp_path: Path) -> None:
    blob = network_blob(captured(Translator), {}, examples=[torch.rand(1, 3, 32, 32), torch.rand(1, 3, 16, 32)])
    with opened(tmp_path, blob) as page:
        reached = []
        for _ in range(4):
            for kind in ("keyDown", "keyUp"):
                page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            reached.append(page.evaluate("document.activeElement.dataset.part ?? document.activeElement.textContent"))
        assert reached == ["file", "side", "example 1", "example 2"]
        for kind in ("keyDown", "char", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" ", windowsVirtualKeyCode=32)
        page.evaluate("idle()")
        assert image(page, "output").shape == (16, 32, 3)
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        named = {node["role"]["value"]: node["name"]["value"] for node in nodes if node.get("name", {}).get("value")}
        assert {"button", "combobox", "image"} <= set(named)
        controls = [node for node in nodes if node.get("role", {}).get("value") in ("button", "combobox")]
        assert all(node["name"]["value"].strip() for node in controls)


def test_the_report_shows_dense_beside_compressed(tmp_path: Path) -> None:
    dense, sparse = captured(Upscaler), captured(Upscaler)
    for key, tensor in sparse.state_dict().items():
        if tensor.dim() == 4:
            sparse.state_dict()[key].mul_(torch.rand(tensor.shape) < 0.4)
    example = torch.rand(1, 3, 24, 32)
    blobs = {"dense": network_blob(dense, {}), "compressed": network_blob(sparse, {}, examples=[example])}
    page_file = build_network_report(tmp_path / "report.html", record(), [], 22050, part_of(blobs))
    with Page(tmp_path, page_file) as page:
        page.evaluate(HELPERS)
        left, right = image(page, "output"), image(page, "output", 1)
        assert left.shape == right.shape == (48, 64, 3)
        assert np.abs(left.astype(int) - right).mean() > 1
        names = page.evaluate("[...root.querySelectorAll('.which')].map((one) => one.textContent)")
        assert names == ["input", "dense", "compressed"]
        assert page.errors == []
        assert page.requests == [page_file.as_uri()]


def test_damaged_weights_are_said(tmp_path: Path) -> None:
    blob = bytearray(network_blob(captured(Upscaler), {}))
    blob[-3] ^= 1
    with opened(tmp_path, bytes(blob)) as page:
        assert "weights are damaged" in page.evaluate("part('status').textContent")
        assert page.evaluate("part('controls').hidden") is True
        assert page.errors == []
