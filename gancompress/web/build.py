"""Builds ``kernels.wasm``, which the package ships, from the sources of the native kernels: the same bytes every time.

``python -m gancompress.web.build`` writes it, ``--check`` builds it aside and says whether it is the shipped one. The
compiler is clang of one fixed version of Zig, installed by ``pip install ziglang==0.13.0``; the headers and the C
library are its own. Beside the file, ``kernels.json`` holds what it was built from.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gancompress.errors import ExportError

__all__ = ["TOOLCHAIN", "build", "built_from", "shipped", "sources"]

#: the package that holds the compiler, and its version
TOOLCHAIN = ("ziglang", "0.13.0")

_HERE = Path(__file__).resolve().parent
_KERNELS = _HERE.parent / "kernels" / "native"
_UNITS = ("axis", "bytes_baseline", "conv", "isa_baseline", "plan", "program", "program_bytes", "scratch")
_EXPORTS = ("add", "alloc", "drop", "free", "hash", "new", "run", "tanh")
_COMPILE = (
    "-target", "wasm32-wasi", "-mcpu=generic+simd128", "-std=c++17", "-g0", "-DGC_WEB", "-DNDEBUG", "-fno-exceptions",
    "-fno-rtti", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-ffunction-sections",
    "-fdata-sections", "-Wall", "-Wno-psabi",
)  # fmt: skip
#: what runs once per generator is made small, what runs per pixel fast
_FAST = ("isa_baseline", "bytes_baseline")
_LINK = ("-target", "wasm32-wasi", "-mexec-model=reactor", "-O3", "-s")


def sources() -> list[Path]:
    """Return every file that the build reads, headers too, in a fixed order."""
    own = [*(_HERE / "native").glob("*.cpp"), *_KERNELS.glob("*.h")]
    return sorted(
        (*own, *(_KERNELS / f"{unit}.cpp" for unit in _UNITS)), key=lambda path: (path.parent.name, path.name)
    )


def built_from() -> dict[str, Any]:
    """Return what ``kernels.json`` holds when the shipped file is of these sources: toolchain, flags and their hash."""
    hashed = hashlib.sha256()
    for path in sources():
        hashed.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return {
        "toolchain": "==".join(TOOLCHAIN),
        "compile": " ".join(_COMPILE),
        "link": " ".join(_LINK),
        "sources": hashed.hexdigest(),
    }


def shipped() -> Path:
    """Return where the package has its ``kernels.wasm``."""
    return _HERE / "native" / "kernels.wasm"


def build() -> bytes:
    """Compile and link; return the module.

    Raises:
        ExportError: the compiler is not installed in this version, or refuses.
    """
    package, version = TOOLCHAIN
    if importlib.util.find_spec(package) is None:
        raise ExportError(f"the WebAssembly build needs {package} {version}: pip install {package}=={version}")
    found = _run("version").strip()
    if found != version:
        raise ExportError(f"the WebAssembly build needs {package} {version}, and this is {found}")
    with tempfile.TemporaryDirectory() as folder:
        units = [path for path in sources() if path.suffix == ".cpp"]
        objects = [str(Path(folder) / f"{path.stem}.o") for path in units]
        # relative paths: nothing of this machine may come into the file
        work = [(os.path.relpath(path, _KERNELS), made) for path, made in zip(units, objects, strict=True)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda one: _run("c++", *_COMPILE, _level(one[0]), "-I.", "-c", one[0], "-o", one[1]), work))
        out = Path(folder) / "kernels.wasm"
        _run("cc", *_LINK, *(f"-Wl,--export=web_{name}" for name in _EXPORTS), *objects, "-o", str(out))
        return out.read_bytes()


def _level(source: str) -> str:
    return "-O3" if Path(source).stem in _FAST else "-Oz"


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", TOOLCHAIN[0], *arguments], capture_output=True, text=True, cwd=_KERNELS
    )
    if done.returncode:
        raise ExportError(f"the WebAssembly build failed: {done.stderr.strip()[:2000]}")
    return done.stdout


def main() -> int:
    """Build the shipped file, or check it."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the shipped file, and write nothing")
    module = build()
    if parser.parse_args().check:
        same = shipped().read_bytes() == module
        print("the shipped file is of these sources" if same else "the shipped file is of other sources")
        return 0 if same else 1
    shipped().write_bytes(module)
    shipped().with_suffix(".json").write_text(json.dumps(built_from(), indent=1) + "\n")
    print(f"{shipped()}: {len(module):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
