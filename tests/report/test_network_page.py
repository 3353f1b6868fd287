"""The page and the table of a compressed network from elsewhere: numbers before and after, and only text from names."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from report_fake_run import png
from test_html import Page

from gancompress.report.network import build_network_report, shown_network

if TYPE_CHECKING:
    from pathlib import Path

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def record(name: str = "upscaler.onnx", **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "method": "reconstruct", "distilled": "60s", "pattern": "unstructured",
        "asked": 0.25, "density": 0.25, "weights": 400, "kept": 100, "values": "bf16",
        "file": "runs/up/generator.safetensors", "bytes": {"dense": 12_000, "packed": 1_000},
        "calibration": 4, "held_out": 1, "inputs": ["image"],
        "agreement": [{"name": "PSNR to dense", "unit": "dB", "mean": 33.5, "values": [33.5],
                       "higher_is_better": True}],
        "input_shapes": [[1, 3, 128, 128]],
        "times": {"torch, dense": {"seconds": 0.4, "faster": 1.0, "quartiles": [1.0, 1.0]},
                  "onnxruntime, dense": {"seconds": 0.3, "faster": 1.33, "quartiles": [1.3, 1.4]},
                  "sparse": {"seconds": 0.1, "faster": 4.0, "quartiles": [3.9, 4.1]}},
        "faster": {"torch, dense": 4.0, "onnxruntime, dense": 3.0},
        "torch": [{"operation": "tanh", "where": name, "share": 0.125}],
        "machine": {"processor": "An Imaginary CPU", "torch": "2.14"},
        "layers": [{"name": name, "shape": [8, 5, 3, 3], "kept": 40, "weights": 360, "error": 0.02, "dense": ""},
                   {"name": "up", "shape": [8, 5], "kept": 20, "weights": 40, "error": 0.005, "dense": "few zeros"}],
        "notes": [], **changes,
    }  # fmt: skip


def page_of(path: Path, content: dict[str, Any], **more: Any) -> tuple[str, Page]:
    shown = [([("input", png(4, 4)), ("dense", png(8, 8)), ("difference × 8", png(8, 8))], [("dense", b"RIFF")])]
    text = build_network_report(path / "report.html", content, shown, 22050).read_text()
    return text, Page(text)


def test_the_page_has_the_numbers_before_and_after(tmp_path: Path) -> None:
    _, page = page_of(tmp_path, record())
    for words in (
        "method reconstruct distilled for 60s pattern",
        "weights kept 0.25 100 of 400",
        "file, smaller by 12× 1 kB with bf16 values; 12 kB dense",
        # the better of the two dense engines is what it is held against
        "as fast as onnxruntime, dense 3.00× 100 ms, and 300 ms in onnxruntime, dense",
        "PSNR to dense 33.5 dB higher is nearer; on 1 input held out",
        "onnxruntime, dense 300 1.33× 1.30 to 1.40 gancompress, sparse 100 4.00× 3.90 to 4.10",
        "One call on 1×3×128×128, median, 1 thread of An Imaginary CPU",
        "tanh upscaler.onnx 12.5 %",
        "in torch: few zeros",
        "8 × 5 × 3 × 3 360 40 0.11111 0.02",
        "difference × 8",
        'gancompress.load("runs/up/generator.safetensors") outputs = network(image)',
    ):
        assert words in page.text, words


def test_the_page_needs_nothing_outside_itself_and_names_are_only_text(tmp_path: Path) -> None:
    text, page = page_of(tmp_path, record(EVIL, notes=[EVIL], inputs=[EVIL], file=EVIL))
    kinds = [link.partition(";base64,")[0] for link in page.links]
    assert kinds == ["data:image/png", "data:image/png", "data:audio/wav", "data:image/png"]
    assert base64.b64encode(b"RIFF").decode() in text
    assert all('aria-label="' in tag for tag in re.findall(r"<audio[^>]*>", text))
    assert "<script" not in text
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert page.text.count("alert(1)") >= 6


def test_the_table_is_lines_of_columns() -> None:
    lines = shown_network(record()).plain().splitlines()
    assert lines[0] == "upscaler.onnx, by reconstruct, distilled for 60s"
    assert lines[1].split() == ["layer", "weight", "density", "error"]
    assert lines[2].split() == ["upscaler.onnx", *["8", "×", "5", "×", "3", "×", "3"], "0.11111", "0.02"]
    text = "\n".join(lines)
    assert re.search(r"\nbytes +12 kB +1 kB  12× smaller\n", text)
    assert re.search(r"\ntime, onnxruntime, dense +300 ms +100 ms  3.00× as fast\n", text)
    assert "PSNR to dense: 33.5 dB (on 1 input held out)" in text


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    few = record(agreement=[], held_out=0, notes=["onnxruntime is not installed"])
    few["faster"] = {"torch, dense": 0.5}
    del few["times"]["onnxruntime, dense"]
    for layer in few["layers"]:
        layer["error"] = None
    text, page = page_of(tmp_path, few)
    assert "Not measured: there were no calibration inputs." in page.text
    assert "onnxruntime is not installed" in page.text
    assert "as fast as torch, dense 0.50×" in page.text
    assert '<th class="num">error' not in text
