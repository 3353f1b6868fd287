"""The front door: what every command does, as functions with typed results.

``from gancompress import api`` gives all of them, each imported when it is first used. Those whose names are not taken
by a package (``gancompress.export``) are names of ``gancompress`` too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gancompress.api.benchmarks import bench_infer, bench_network, bench_train
    from gancompress.api.commands import compress, run, train
    from gancompress.api.comparisons import compare
    from gancompress.api.components import check_components, list_components
    from gancompress.api.finished import evaluate, export, sample
    from gancompress.api.machine import doctor
    from gancompress.api.publish import push
    from gancompress.api.recipes import copy_recipe, show_recipe
    from gancompress.api.validation import validate
    from gancompress.data.prepare import prepare as prepare_data
    from gancompress.recipe.catalogue import shipped_recipes, variant_recipes
    from gancompress.recipe.schema_export import recipe_schema
    from gancompress.runs.record import list_runs
    from gancompress.scaffold.package import scaffold as new_plugin

__all__ = [
    "bench_infer",
    "bench_network",
    "bench_train",
    "check_components",
    "compare",
    "compress",
    "copy_recipe",
    "doctor",
    "evaluate",
    "export",
    "list_components",
    "list_runs",
    "new_plugin",
    "prepare_data",
    "push",
    "recipe_schema",
    "run",
    "sample",
    "shipped_recipes",
    "show_recipe",
    "train",
    "validate",
    "variant_recipes",
]

_HOMES = {
    name: f"gancompress.{home}"
    for home, names in {
        "api.benchmarks": "bench_infer bench_network bench_train",
        "api.commands": "compress run train",
        "api.comparisons": "compare",
        "api.components": "check_components list_components",
        "api.finished": "evaluate export sample",
        "api.machine": "doctor",
        "api.publish": "push",
        "api.recipes": "copy_recipe show_recipe",
        "api.validation": "validate",
        "data.prepare": "prepare_data",
        "recipe.catalogue": "shipped_recipes variant_recipes",
        "recipe.schema_export": "recipe_schema",
        "runs.record": "list_runs",
        "scaffold.package": "new_plugin",
    }.items()
    for name in names.split()
}
#: functions that are called otherwise where they live
_THERE = {"new_plugin": "scaffold", "prepare_data": "prepare"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gancompress.api' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), _THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
