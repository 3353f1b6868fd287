"""Packed generators for pages, and the programs that run these: Node and Chromium, where they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gancompress.data.base import ImageSpec
from gancompress.export.in_bytes import calibrate_generator
from gancompress.export.packed import Packed, export_packed, load_packed

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
        "import { load, truncated, between, classCycle, GeneratorError } "
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
