"""Generators in a page: bytes of the page, milliseconds to the first image, images per second; beside onnxruntime-web.

    npm install --prefix ort onnxruntime-web@1.22.0
    python benchmarks/bench_web.py [--ort ort/node_modules/onnxruntime-web/dist] [--channels 256] [--density 0.05]

SNGAN for 32x32 as in bench_export.py, in headless Chromium, one thread. The dense graph runs in onnxruntime-web (WASM
with SIMD, one thread) in the same page, images of both made in turn; what is compared is the least time of ten.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, ClassVar

import torch

from gancompress.backbones.base import prunable_weights
from gancompress.backbones.sngan import SNGAN, SNGANConfig
from gancompress.data.base import ImageSpec
from gancompress.export.in_bytes import calibrate_generator
from gancompress.export.onnx import export_onnx
from gancompress.export.packed import Values, export_packed, load_packed
from gancompress.sparsity.allocate import allocate
from gancompress.sparsity.masks import random_mask
from gancompress.web.make import write_site

PAGE = """<!doctype html><meta charset="utf-8"><title>bench</title><script type="module">
import { load } from "./site.js";
const tell = (found) => fetch("/done", { method: "POST", body: JSON.stringify(found) });
try {
  const file = await (await fetch("site.gcw")).arrayBuffer();
  const began = performance.now(), g = await load(file);
  await g.generate({ seed: 0 });
  const found = { first: performance.now() - began };
  let session = null, ort = null;
  if (WITH_ORT) {
    ort = await import("./ort/ort.wasm.min.mjs");
    ort.env.wasm.numThreads = 1;
    session = await ort.InferenceSession.create("dense.onnx", { executionProviders: ["wasm"] });
  }
  for (const n of [1, 16]) {
    const z = g.latents({ seed: 1, n }), ours = [], theirs = [];
    for (let turn = 0; turn < 11; turn++) {
      let start = performance.now();
      const made = await g.generate({ z });
      ours.push(performance.now() - start);
      if (session === null) continue;
      start = performance.now();
      const out = await session.run({ z: new ort.Tensor("float32", z, [n, g.latentDim]) });
      theirs.push(performance.now() - start);
      if (turn === 0) {
        let most = 0;
        const images = out.images.data, plane = made.width * made.height;
        for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) for (let p = 0; p < plane; p++) {
          const wanted = (images[(i * 3 + c) * plane + p] + 1) * 127.5;
          most = Math.max(most, Math.abs(made.data[4 * (i * plane + p) + c] - wanted));
        }
        found.levels = Math.max(found.levels ?? 0, most);
      }
    }
    found[`ours${n}`] = Math.min(...ours.slice(1)) / n;
    if (session !== null) found[`ort${n}`] = Math.min(...theirs.slice(1)) / n;
  }
  await tell(found);
} catch (error) {
  await tell({ error: String(error.stack ?? error) });
}
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and takes what a page found."""

    found: ClassVar[dict[str, Any]] = {}
    done = threading.Event()

    def do_POST(self) -> None:
        """Take the result."""
        Handler.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        Handler.done.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


def toy(folder: Path, channels: int, density: float, values: Values, linear: bool) -> int:
    """Write a page and a dense ONNX graph of the same generator; return the bytes of the page."""
    torch.manual_seed(0)
    generator = SNGAN(SNGANConfig(channels=channels), ImageSpec(3, 32)).generator().eval()
    weights = {name: w for name, w in prunable_weights(generator).items() if linear or w.kind == "convolution"}
    budget = allocate("erk", {name: tuple(w.parameter.shape) for name, w in weights.items()}, density)
    rng, masks = torch.Generator().manual_seed(0), {}
    for name, weight in weights.items():
        masks[name] = random_mask(weight.parameter.shape, budget.counts[name], rng)
        weight.parameter.data.masked_fill_(~masks[name], 0).div_(density**0.5)
    ranges = calibrate_generator(generator, masks) if values == "int8" else None
    file = folder / "generator.safetensors"
    export_packed(
        generator, file, model={"name": "sngan", "channels": channels}, masks=masks, values=values, ranges=ranges
    )
    packed = load_packed(file)
    site = write_site(packed, folder / "site.html", "SNGAN")
    shutil.copy(site.page.parent / "generator.js", folder / "site.js")
    export_onnx(packed.generator(), folder / "dense.onnx")
    return site.page.stat().st_size


def in_chromium(folder: Path) -> dict[str, Any]:
    """Open the page, and wait for what it finds."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("this needs Chromium")
    Handler.done.clear()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        opened = subprocess.Popen(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--disable-background-timer-throttling", f"--user-data-dir={profile}",
             "--remote-debugging-port=0",  # it stays open
             f"http://127.0.0.1:{server.server_port}/bench.html"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        Handler.done.wait(600)
        opened.terminate()
        opened.wait(30)
        server.shutdown()
    return Handler.found


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ort", type=Path, help="onnxruntime-web's dist folder")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--density", type=float, default=0.05)
    given = parser.parse_args()
    print("| masked | values | page | first image | ours, 1 | ours, 16 | ort dense, 1 | ort dense, 16 | grey levels |")
    print("|---|---|---|---|---|---|---|---|---|")
    cases: list[tuple[bool, Values]] = [(True, "bf16"), (True, "int8"), (False, "bf16"), (False, "int8")]
    for linear, values in cases:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = toy(folder, given.channels, given.density, values, linear)
            (folder / "bench.html").write_text(PAGE.replace("WITH_ORT", "true" if given.ort else "false"))
            if given.ort:
                (folder / "ort").symlink_to(given.ort.resolve())
            found = in_chromium(folder)
        if "error" in found:
            raise SystemExit(found["error"])
        times = [f"{found[key]:.1f} ms" if key in found else "" for key in ("ours1", "ours16", "ort1", "ort16")]
        masked = "all" if linear else "convolutions"
        levels = f"{found['levels']:.2f}" if "levels" in found and values != "int8" else ""  # the graph is in float
        print(
            f"| {masked} | {values} | {size / 1000:.0f} kB | {found['first']:.0f} ms | {' | '.join(times)} | {levels} |"
        )


if __name__ == "__main__":
    main()
