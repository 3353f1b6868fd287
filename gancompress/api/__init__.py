"""The front door: what every command does, as functions with typed results.

``from gancompress import api`` gives all of them, each imported when it is first used. Those whose names are not taken
by a package (``gancompress.export``, ``gancompress.bench``, ``gancompress.data``) are names of ``gancompress`` too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gancompress.api.benchmarks import bench_infer, bench_train
    from gancompress.api.commands import compare, compress, run, train
    from gancompress.api.finished import evaluate, export, sample
    from gancompress.data.prepare import prepare as prepare_data
    from gancompress.recipe.catalogue import shipped_recipes

__all__ = [
    "bench_infer",
    "bench_train",
    "compare",
    "compress",
    "evaluate",
    "export",
    "prepare_data",
    "run",
    "sample",
    "shipped_recipes",
    "train",
]

_HOMES = {
    name: f"gancompress.{home}"
    for home, names in {
        "api.benchmarks": "bench_infer bench_train",
        "api.commands": "compare compress run train",
        "api.finished": "evaluate export sample",
        "data.prepare": "prepare_data",
        "recipe.catalogue": "shipped_recipes",
    }.items()
    for name in names.split()
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gancompress.api' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), "prepare" if name == "prepare_data" else name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
