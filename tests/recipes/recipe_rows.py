"""Every shipped recipe and every variant, by the address that `gancompress run` takes."""

from __future__ import annotations

import functools

from gancompress.recipe import shipped
from gancompress.recipe.composition import compose
from gancompress.recipe.load import load_recipe

__all__ = ["RECIPES", "ROWS", "loaded"]

RECIPES = shipped.shipped_names()
ROWS = [address for name in RECIPES for address in (name, *(f"{name}@{row}" for row in compose(name).variants))]

#: loaded once for all tests
loaded = functools.lru_cache(maxsize=None)(load_recipe)
