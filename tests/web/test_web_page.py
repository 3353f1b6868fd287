"""Pages that hold a generator: what is in them, what they refuse, and what Chromium makes of them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from chromium_page import Page, needs_chromium
from web_toys import CLASSES, in_node, needs_node, packed_toy

import gancompress
from gancompress import api
from gancompress.errors import ExportError
from gancompress.web import page
from gancompress.web.make import blob_of, write_site

if TYPE_CHECKING:
    from pathlib import Path

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
DCGAN = {"channels": 8, "latent_dim": 6, "conditional": True}


def hashed(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def test_a_page_is_one_file_with_one_script_and_a_strict_policy(tmp_path: Path) -> None:
    packed = packed_toy(tmp_path / "g.safetensors", "dcgan", 16, **DCGAN)
    site = write_site(packed, tmp_path / "site" / "toy.html", EVIL, [EVIL])
    text = site.page.read_text(encoding="utf-8")
    (script,) = re.findall(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    wanted = f"default-src 'none'; script-src 'sha256-{hashed(script)}' 'wasm-unsafe-eval'; style-src 'sha256-"
    assert policy[1].replace("&#39;", "'").startswith(f"{wanted}{hashed(style)}'; img-src data:;")
    assert "<script>" not in text
    assert "<img" not in text
    assert text.count("<script") == 2  # the other holds the generator, and does not run
    assert not re.search(r"<[^>&]*\b(src|href|action)=", text)
    assert "style=" not in text
    assert sorted(path.name for path in site.page.parent.iterdir()) == [
        "generator.d.ts",
        "generator.js",
        "toy.gcw",
        "toy.html",
    ]
    assert site.blob.read_bytes() == blob_of(packed)


def test_every_control_has_a_name(tmp_path: Path) -> None:
    text = page.player(b"GCWEB")
    for control in re.findall(r"<input[^>]*>", text):
        before = text[: text.index(control)]
        assert before.rfind("<label>") > before.rfind("</label>"), control
    assert all(len(name.strip()) > 2 for name in re.findall(r"<button[^>]*>([^<]*)</button>", text))
    assert text.count('role="img" aria-label="') == 2
    assert "<noscript>" in text


@needs_node
def test_bytes_in_a_page_are_read_again(tmp_path: Path) -> None:
    # every length from 0 to 9, and a word of the largest bytes
    contents = [bytes(range(250, 250 + n)) if n < 6 else bytes([255] * 4 + [7] * (n - 4)) for n in range(10)]
    texts = [re.findall(r'data-part="generator" data-name="">(.*?)</script>', page.player(one))[0] for one in contents]
    assert not any("<" in text for text in texts)
    code = page._asset("player.js").partition("const SHOWN")[0]
    told = in_node(tmp_path, f"{code} told({json.dumps(texts)}.map((text) => Array.from(fromBase85(text))));")
    assert [bytes(one) for one in told] == contents


@needs_node
def test_the_time_of_an_image_is_never_nought_and_stands_after_the_browser_learned_the_code(tmp_path: Path) -> None:
    code = (
        page._asset("player.js")
        + """
    let drawn = 0;
    const said = [];
    const player = { root: { dataset: {} }, said: "warm", say: (text) => said.push([text, player.warming]),
      show: async () => { drawn++; await new Promise((done) => setTimeout(done, 60)); } };
    const broken = { ...player, root: { dataset: { failed: "true" } } };
    await Player.prototype.warm.call(player);
    const often = drawn;
    await Player.prototype.warm.call(broken);
    told({ times: [0, 0.04, 0.4, 4, 40].map(spoken), often, once: drawn - often, said });
    """
    )
    told = in_node(tmp_path, code)
    assert told["times"] == ["less time than this browser's clock tells", "0.04 ms", "0.40 ms", "4.0 ms", "40 ms"]
    assert 2 <= told["often"] <= 7  # 400 ms of drawings of 60
    assert told["said"] == [["warm", False]]
    assert told["once"] == 1


def test_what_cannot_be_a_page_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = packed_toy(tmp_path / "g.safetensors", "dcgan", 16, **DCGAN)
    with pytest.raises(ExportError, match=r"ends in \.html"):
        write_site(packed, tmp_path / "page.onnx", "toy")
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    with pytest.raises(ExportError, match="a page takes 1 kB"):
        write_site(packed, tmp_path / "page.html", "toy")
    assert not (tmp_path / "page.html").exists()


def test_a_file_becomes_a_page(tmp_path: Path) -> None:
    packed_toy(tmp_path / "g.safetensors", "dcgan", 16, "bf16", **DCGAN)
    made = api.export(tmp_path / "g.safetensors", format="web")
    assert made.file == tmp_path / "g.html"
    assert made.size == made.file.stat().st_size
    assert {path.name for path in made.beside} == {"g.gcw", "generator.js", "generator.d.ts"}
    assert "bf16 weights" in made.file.read_text(encoding="utf-8")


HELPERS = """
globalThis.root = document.querySelector(".player");
globalThis.idle = async () => {
  const wait = () => new Promise((done) => setTimeout(done, 20));
  while (!root.dataset.failed && root.dataset.busy !== "false") await wait();
};
globalThis.canvases = (part) => [...root.querySelectorAll(`[data-part="${part}"] canvas`)]
  .map((one) => Array.from(one.getContext("2d").getImageData(0, 0, one.width, one.height).data));
globalThis.change = (part, value, event) => {
  const control = root.querySelector(`[data-part="${part}"]`);
  control.value = value;
  control.dispatchEvent(new Event(event));
};
idle()
"""


def shown(page_: Page, part: str) -> torch.Tensor:
    pixels = torch.tensor(np.array(page_.evaluate(f"canvases({part!r})"), dtype=np.int64))
    return pixels.reshape(-1, 16, 16, 4).permute(0, 3, 1, 2)[:, :3]


@pytest.mark.slow
@needs_chromium
def test_chromium_shows_the_images_of_python_and_asks_for_nothing(tmp_path: Path) -> None:
    packed = packed_toy(tmp_path / "g.safetensors", "dcgan", 16, **DCGAN)
    generator = gancompress.load(tmp_path / "g.safetensors", sparse="always")
    site = write_site(packed, tmp_path / "page.html", EVIL)
    with Page(tmp_path, site.page) as opened:
        opened.evaluate(HELPERS)

        def near(part: str, wanted: torch.Tensor) -> bool:
            opened.evaluate("idle()")
            return int((shown(opened, part) - wanted.long()).abs().max()) <= 1

        assert near("images", generator(n=8, seed=0, classes=0, uint8=True))
        opened.evaluate("root.querySelectorAll('[data-part=\"classes\"] button')[2].click()")
        opened.evaluate("change('seed', '5', 'input'), change('threshold', '0.5', 'input')")
        assert near("images", generator(z=generator.latents(8, 5, threshold=0.5), classes=2, uint8=True))
        opened.evaluate("change('threshold', '3', 'input'), change('to', '7', 'input'), change('way', '25', 'input')")
        assert near("between", generator(z=generator.interpolate(5, 7, 5)[[0, 1, 4]], classes=2, uint8=True))
        opened.evaluate("root.querySelector('[data-part=\"next\"]').click()")
        assert near("images", generator(n=8, seed=6, classes=2, uint8=True))
        names = opened.evaluate(
            "[...root.querySelectorAll('[data-part=\"classes\"] button')].map((one) => one.textContent)"
        )
        assert names == list(CLASSES)
        assert "ms per image" in opened.evaluate("root.querySelector('[data-part=\"status\"]').textContent")
        assert opened.errors == []
        assert opened.requests == [site.page.as_uri()]


@pytest.mark.slow
@needs_chromium
def test_keys_alone_reach_every_control_and_change_it(tmp_path: Path) -> None:
    packed = packed_toy(tmp_path / "g.safetensors", "dcgan", 16, **DCGAN)
    site = write_site(packed, tmp_path / "page.html", "keys")
    with Page(tmp_path, site.page) as opened:
        opened.evaluate(HELPERS)
        reached = []
        for _ in range(8):
            for kind in ("keyDown", "keyUp"):
                opened.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            reached.append(opened.evaluate("document.activeElement.dataset.part ?? document.activeElement.textContent"))
        assert reached == ["seed", "next", "threshold", *CLASSES, "to", "way"]
        for kind in ("keyDown", "keyUp"):
            opened.call(
                "Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39
            )
        opened.evaluate("idle()")
        assert opened.evaluate("root.querySelector('[data-part=\"way-value\"]').textContent") == "51 %"
        sliders = ("threshold", "way")  # what is read of them is what is seen, not a number of their scale
        spoken = [opened.evaluate(f"root.querySelector('[data-part=\"{one}\"]').ariaValueText") for one in sliders]
        assert spoken == ["off", "51 %"]
        named = opened.call("Accessibility.getFullAXTree")["nodes"]
        controls = [node for node in named if node.get("role", {}).get("value") in ("spinbutton", "slider", "button")]
        assert len(controls) == 8
        assert all(node["name"]["value"].strip() for node in controls)


@pytest.mark.slow
@needs_chromium
def test_chromium_says_that_weights_are_damaged(tmp_path: Path) -> None:
    blob = bytearray(blob_of(packed_toy(tmp_path / "g.safetensors", "dcgan", 16, **DCGAN)))
    blob[-3] ^= 1
    file = tmp_path / "page.html"
    file.write_text(page.generator_page(bytes(blob), "damaged"), encoding="utf-8")
    with Page(tmp_path, file) as opened:
        opened.evaluate(HELPERS)
        status = opened.evaluate("[...root.querySelectorAll('[role=\"alert\"]')].map((one) => one.textContent).join()")
        assert "weights are damaged" in status
        assert opened.errors == []


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(
    "more", ["<script>document.title = 'run'</script>", '<img src="http://127.0.0.1:9/pixel.png" alt="">']
)
def test_chromium_refuses_what_is_not_the_pages_own(tmp_path: Path, more: str) -> None:
    blob = blob_of(packed_toy(tmp_path / "g.safetensors", "dcgan", 16, **DCGAN))
    file = tmp_path / "page.html"
    file.write_text(page.generator_page(blob, "not its own").replace("</main>", f"{more}</main>"), encoding="utf-8")
    with Page(tmp_path, file) as opened:
        opened.evaluate(HELPERS)
        assert opened.evaluate("document.title") == "not its own"
        assert any("Content Security Policy" in line for line in opened.errors)  # and this is how errors are seen above


@pytest.mark.slow
@needs_chromium
def test_of_several_generators_any_two_stand_side_by_side(tmp_path: Path) -> None:
    blobs, generators = {}, {}
    for index, (name, density) in enumerate((("static <0.1>", 0.1), ("dst", 0.3), ("dense", 1.0))):
        file = tmp_path / f"{index}.safetensors"
        blobs[name] = blob_of(packed_toy(file, "dcgan", 16, density=density, **DCGAN))
        generators[name] = gancompress.load(file, sparse="always")
    script = page.player_script()
    text = f"<!doctype html><body>{page.player(blobs)}<script type='module'>{script}</script></body>"
    file = tmp_path / "page.html"
    file.write_text(text, encoding="utf-8")
    with Page(tmp_path, file) as opened:
        opened.evaluate(HELPERS)
        opened.evaluate("idle()")

        def shown(column: int) -> str:
            code = f"[...root.querySelectorAll('[data-part=\"images\"]')[{column}].querySelectorAll('canvas')]"
            code += ".map((one) => Array.from(one.getContext('2d').getImageData(0, 0, 16, 16).data))"
            found = np.asarray(opened.evaluate(code), np.uint8).reshape(-1, 16, 16, 4)[..., :3]
            made = torch.from_numpy(found).permute(0, 3, 1, 2).int()
            near = {
                name: int((generator(n=8, seed=0, classes=0, uint8=True).int() - made).abs().max())
                for name, generator in generators.items()
            }
            return min(near, key=lambda name: near[name]) if min(near.values()) <= 1 else f"none: {near}"

        assert (shown(0), shown(1)) == ("static <0.1>", "dst")
        opened.evaluate(
            "(async () => { const one = root.querySelectorAll('[data-part=\"choice\"]')[0]; one.value = '2';"
            "one.dispatchEvent(new Event('change')); await new Promise((done) => setTimeout(done, 100));"
            "await idle(); })()"
        )
        assert (shown(0), shown(1)) == ("dense", "dst")
        labels = opened.evaluate("[...root.querySelectorAll('[role=\"img\"]')].map((one) => one.ariaLabel)")
        assert labels[0] == "dense: eight images of the seed"
        assert opened.evaluate("[...root.querySelectorAll('[data-part=\"which\"]')].map((one) => one.textContent)") == [
            "dense",
            "dst",
        ]
        nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
        boxes = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == "combobox"]
        assert boxes == ["left", "right"]
        assert opened.errors == []


@pytest.mark.slow
@needs_chromium
def test_a_browser_without_simd_says_so(tmp_path: Path) -> None:
    blob = blob_of(packed_toy(tmp_path / "g.safetensors", "dcgan", 16, **DCGAN))
    file = tmp_path / "page.html"
    text = f"<!doctype html><body>{page.player(blob)}<script>WebAssembly.validate = () => false</script>"
    file.write_text(f"{text}<script type='module'>{page.player_script()}</script></body>", encoding="utf-8")
    with Page(tmp_path, file) as opened:
        opened.evaluate(HELPERS)
        opened.evaluate("idle()")
        assert "has no SIMD" in opened.evaluate("root.querySelector('[role=\"alert\"]').textContent")
        assert opened.evaluate("root.querySelector('[data-part=\"controls\"]').hidden") is True
        assert opened.errors == []
