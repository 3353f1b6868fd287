"""Train sparse GANs, compress trained ones, compare methods fairly, ship generators that are really smaller.

Everything public is importable from here and loaded on first use, so ``import gancompress`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gancompress.api.benchmarks import bench_infer, bench_train
    from gancompress.api.commands import compare, compress, run, train
    from gancompress.api.finished import evaluate, sample
    from gancompress.api.outcomes import ComparisonOutcome, CompressionOutcome, RunOutcome
    from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator, prunable_weights
    from gancompress.components.registry import BACKBONES, DATASETS, EXTRACTORS, LOSSES, METHODS, METRICS, PATTERNS
    from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
    from gancompress.errors import GancompressError
    from gancompress.export.loading import load
    from gancompress.methods.base import Measure, Method, MethodConfig, NetView, Plan, Round
    from gancompress.objectives.base import Loss, LossConfig
    from gancompress.recipe.load import LoadedRecipe, component_config, load_recipe, parse_recipe
    from gancompress.recipe.schema import Recipe
    from gancompress.sparsity.layers import Layer
    from gancompress.sparsity.patterns.base import Pattern, PatternConfig
    from gancompress.sparsity.state import Budget, SparseState
    from gancompress.sparsity.units import Units

__version__ = "0.1.0"

_HOMES = {
    "BACKBONES": "gancompress.components.registry",
    "DATASETS": "gancompress.components.registry",
    "EXTRACTORS": "gancompress.components.registry",
    "LOSSES": "gancompress.components.registry",
    "METHODS": "gancompress.components.registry",
    "METRICS": "gancompress.components.registry",
    "PATTERNS": "gancompress.components.registry",
    "Backbone": "gancompress.backbones.base",
    "BackboneConfig": "gancompress.backbones.base",
    "Batch": "gancompress.data.base",
    "Budget": "gancompress.sparsity.state",
    "ComparisonOutcome": "gancompress.api.outcomes",
    "CompressionOutcome": "gancompress.api.outcomes",
    "Dataset": "gancompress.data.base",
    "DatasetConfig": "gancompress.data.base",
    "Discriminator": "gancompress.backbones.base",
    "GancompressError": "gancompress.errors",
    "Generator": "gancompress.backbones.base",
    "ImageSpec": "gancompress.data.base",
    "Layer": "gancompress.sparsity.layers",
    "LoadedRecipe": "gancompress.recipe.load",
    "Loss": "gancompress.objectives.base",
    "LossConfig": "gancompress.objectives.base",
    "Measure": "gancompress.methods.base",
    "Method": "gancompress.methods.base",
    "MethodConfig": "gancompress.methods.base",
    "NetView": "gancompress.methods.base",
    "Pattern": "gancompress.sparsity.patterns.base",
    "PatternConfig": "gancompress.sparsity.patterns.base",
    "Plan": "gancompress.methods.base",
    "Recipe": "gancompress.recipe.schema",
    "Round": "gancompress.methods.base",
    "RunOutcome": "gancompress.api.outcomes",
    "SparseState": "gancompress.sparsity.state",
    "Units": "gancompress.sparsity.units",
    "bench_infer": "gancompress.api.benchmarks",
    "bench_train": "gancompress.api.benchmarks",
    "compare": "gancompress.api.commands",
    "component_config": "gancompress.recipe.load",
    "compress": "gancompress.api.commands",
    "evaluate": "gancompress.api.finished",
    "load": "gancompress.export.loading",
    "load_recipe": "gancompress.recipe.load",
    "parse_recipe": "gancompress.recipe.load",
    "prunable_weights": "gancompress.backbones.base",
    "run": "gancompress.api.commands",
    "sample": "gancompress.api.finished",
    "train": "gancompress.api.commands",
}

__all__ = [
    "BACKBONES",
    "DATASETS",
    "EXTRACTORS",
    "LOSSES",
    "METHODS",
    "METRICS",
    "PATTERNS",
    "Backbone",
    "BackboneConfig",
    "Batch",
    "Budget",
    "ComparisonOutcome",
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
    "Units",
    "__version__",
    "bench_infer",
    "bench_train",
    "compare",
    "component_config",
    "compress",
    "evaluate",
    "load",
    "load_recipe",
    "parse_recipe",
    "prunable_weights",
    "run",
    "sample",
    "train",
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
