"""Train sparse GANs, compress trained ones, compare methods fairly, ship generators that are really smaller.

Everything public is importable from here and loaded on first use, so ``import gancompress`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gancompress.api import list_runs, new_plugin, prepare_data, recipe_schema, shipped_recipes, variant_recipes
    from gancompress.api.benchmarks import bench_infer, bench_network, bench_train
    from gancompress.api.commands import compress, run, train
    from gancompress.api.comparisons import compare
    from gancompress.api.components import check_components, list_components
    from gancompress.api.finished import evaluate, sample
    from gancompress.api.machine import doctor
    from gancompress.api.outcomes import ComparisonOutcome, CompressionOutcome, RunOutcome
    from gancompress.api.publish import push
    from gancompress.api.recipes import copy_recipe, show_recipe
    from gancompress.api.validation import Validation, validate
    from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator, prunable_weights
    from gancompress.components.registry import (
        BACKBONES,
        DATASETS,
        EXTRACTORS,
        LOSSES,
        METHODS,
        METRICS,
        PATTERNS,
        TRACKERS,
    )
    from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
    from gancompress.errors import GancompressError
    from gancompress.export.loading import load
    from gancompress.foreign.compress import CompressedNetwork
    from gancompress.methods.base import Measure, Method, MethodConfig, NetView, Plan, Round
    from gancompress.objectives.base import Loss, LossConfig
    from gancompress.recipe.load import LoadedRecipe, component_config, load_recipe, parse_recipe
    from gancompress.recipe.schema import Recipe
    from gancompress.sparsity.layers import Layer
    from gancompress.sparsity.patterns.base import Pattern, PatternConfig
    from gancompress.sparsity.state import Budget, SparseState
    from gancompress.sparsity.units import Units
    from gancompress.tracking.base import TrackedRun, Tracker

__version__ = "0.1.0"

#: where every name lives; the imports above say it to type checkers
_HOMES = {
    name: f"gancompress.{home}"
    for home, names in {
        "api": "list_runs new_plugin prepare_data recipe_schema shipped_recipes variant_recipes",
        "api.benchmarks": "bench_infer bench_network bench_train",
        "api.commands": "compress run train",
        "api.comparisons": "compare",
        "api.components": "check_components list_components",
        "api.finished": "evaluate sample",
        "api.machine": "doctor",
        "api.outcomes": "ComparisonOutcome CompressionOutcome RunOutcome",
        "api.publish": "push",
        "api.recipes": "copy_recipe show_recipe",
        "api.validation": "Validation validate",
        "backbones.base": "Backbone BackboneConfig Discriminator Generator prunable_weights",
        "components.registry": "BACKBONES DATASETS EXTRACTORS LOSSES METHODS METRICS PATTERNS TRACKERS",
        "data.base": "Batch Dataset DatasetConfig ImageSpec",
        "errors": "GancompressError",
        "export.loading": "load",
        "foreign.compress": "CompressedNetwork",
        "methods.base": "Measure Method MethodConfig NetView Plan Round",
        "objectives.base": "Loss LossConfig",
        "recipe.load": "LoadedRecipe component_config load_recipe parse_recipe",
        "recipe.schema": "Recipe",
        "sparsity.layers": "Layer",
        "sparsity.patterns.base": "Pattern PatternConfig",
        "sparsity.state": "Budget SparseState",
        "sparsity.units": "Units",
        "tracking.base": "TrackedRun Tracker",
    }.items()
    for name in names.split()
}

__all__ = [
    "BACKBONES",
    "DATASETS",
    "EXTRACTORS",
    "LOSSES",
    "METHODS",
    "METRICS",
    "PATTERNS",
    "TRACKERS",
    "Backbone",
    "BackboneConfig",
    "Batch",
    "Budget",
    "ComparisonOutcome",
    "CompressedNetwork",
    "CompressionOutcome",
    "Dataset",
    "DatasetConfig",
    "Discriminator",
    "GancompressError",
    "Generator",
    "ImageSpec",
    "Layer",
    "LoadedRecipe",
    "Loss",
    "LossConfig",
    "Measure",
    "Method",
    "MethodConfig",
    "NetView",
    "Pattern",
    "PatternConfig",
    "Plan",
    "Recipe",
    "Round",
    "RunOutcome",
    "SparseState",
    "TrackedRun",
    "Tracker",
    "Units",
    "Validation",
    "__version__",
    "bench_infer",
    "bench_network",
    "bench_train",
    "check_components",
    "compare",
    "component_config",
    "compress",
    "copy_recipe",
    "doctor",
    "evaluate",
    "list_components",
    "list_runs",
    "load",
    "load_recipe",
    "new_plugin",
    "parse_recipe",
    "prepare_data",
    "prunable_weights",
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


def __getattr__(name: str) -> Any:
    if name == "api":
        return importlib.import_module("gancompress.api")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gancompress' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
