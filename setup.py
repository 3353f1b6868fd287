"""Builds the native kernels; everything else about the package is in ``pyproject.toml``.

The library has a plain C interface and is loaded with ctypes, so it depends neither on torch nor on Python's ABI. It is
optional: where there is no C++17 compiler with vector extensions the install succeeds and the toolkit runs dense
(``gancompress doctor`` says so).
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

_HERE = Path(__file__).resolve().parent
_NATIVE = "gancompress/kernels/native"


class BuildNative(build_ext):
    """Builds a plain shared library: no Python symbol is exported or needed."""

    def build_extensions(self) -> None:
        """Compile the sources side by side: each is the whole work for another set of instructions."""
        compile_some = self.compiler.compile

        def compile_all(sources: list[str], **given: Any) -> list[str]:
            def compile_one(source: str) -> list[str]:
                own = dict(given)
                if Path(source).name.startswith("bytes_"):  # clang would fuse there too, whatever a pragma says
                    own["extra_postargs"] = [*(given.get("extra_postargs") or ()), "-ffp-contract=off"]
                return compile_some([source], **own)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                parts = pool.map(compile_one, sources)
                return [file for part in parts for file in part]

        self.compiler.compile = compile_all
        super().build_extensions()

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Return nothing: the symbols are marked in the source, and there is no ``PyInit`` function."""
        return []


_flags = ["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-Wall", "-Wno-psabi"]
_link = [] if sys.platform == "win32" else ["-pthread"]
if not os.environ.get("GANCOMPRESS_SANITIZE"):
    _flags += ["-g0"]
else:  # see tests/kernels/README.md
    _flags += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g", "-O1"]
    _link += ["-fsanitize=address,undefined"]

setup(
    ext_modules=[
        Extension(
            "gancompress.kernels.native._sparse",
            sources=sorted(str(p.relative_to(_HERE)) for p in (_HERE / _NATIVE).glob("*.cpp")),
            depends=sorted(str(p.relative_to(_HERE)) for p in (_HERE / _NATIVE).glob("*.h")),
            include_dirs=[_NATIVE],
            extra_compile_args=[*_flags, *_link],
            extra_link_args=_link,
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildNative},
)
