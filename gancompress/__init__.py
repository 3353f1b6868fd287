"""Train sparse GANs, compress trained ones, compare methods fairly, ship generators that are really smaller.

Everything public is importable from here and loaded on first use, so ``import gancompress`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gancompress.backbones.base import Backbone, BackboneConfig, Discriminator, Generator, prunable_weights
    from gancompress.data.base import Batch, Dataset, DatasetConfig, ImageSpec
    from gancompress.errors import GancompressError
    from gancompress.export.loading import load
    from gancompress.methods.base import Measure, Method, MethodConfig, NetView, Plan, Round
    from gancompress.recipe.load import LoadedRecipe, component_config, load_recipe, parse_recipe
    from gancompress.recipe.schema import Recipe
    from gancompress.registry import BACKBONES, DATASETS, EXTRACTORS, LOSSES, METHODS, METRICS
    from gancompress.sparsity.state import Budget, SparseState

__version__ = "0.1.0"

_HOMES = {
    "BACKBONES": "gancompress.registry",
    "DATASETS": "gancompress.registry",
    "EXTRACTORS": "gancompress.registry",
    "LOSSES": "gancompress.registry",
    "METHODS": "gancompress.registry",
    "METRICS": "gancompress.registry",
    "Backbone": "gancompress.backbones.base",
    "BackboneConfig": "gancompress.backbones.base",
    "Batch": "gancompress.data.base",
    "Budget": "gancompress.sparsity.state",
    "Dataset": "gancompress.data.base",
    "DatasetConfig": "gancompress.data.base",
    "Discriminator": "gancompress.backbones.base",
    "GancompressError": "gancompress.errors",
    "Generator": "gancompress.backbones.base",
    "ImageSpec": "gancompress.data.base",
    "LoadedRecipe": "gancompress.recipe.load",
    "Measure": "gancompress.methods.base",
    "Method": "gancompress.methods.base",
    "MethodConfig": "gancompress.methods.base",
    "NetView": "gancompress.methods.base",
    "Plan": "gancompress.methods.base",
    "Recipe": "gancompress.recipe.schema",
    "Round": "gancompress.methods.base",
    "SparseState": "gancompress.sparsity.state",
    "component_config": "gancompress.recipe.load",
    "load": "gancompress.export.loading",
    "load_recipe": "gancompress.recipe.load",
    "parse_recipe": "gancompress.recipe.load",
    "prunable_weights": "gancompress.backbones.base",
}

__all__ = [
    "BACKBONES",
    "DATASETS",
    "EXTRACTORS",
    "LOSSES",
    "METHODS",
    "METRICS",
    "Backbone",
    "BackboneConfig",
    "Batch",
    "Budget",
    "Dataset",
    "DatasetConfig",
    "Discriminator",
    "GancompressError",
    "Generator",
    "ImageSpec",
    "LoadedRecipe",
    "Measure",
    "Method",
    "MethodConfig",
    "NetView",
    "Plan",
    "Recipe",
    "Round",
    "SparseState",
    "__version__",
    "component_config",
    "load",
    "load_recipe",
    "parse_recipe",
    "prunable_weights",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gancompress' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
