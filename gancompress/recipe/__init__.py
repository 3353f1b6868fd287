"""Recipes: the schema, loading with a place for every mistake, run identity, the catalogue. Imports no torch."""

from __future__ import annotations

__all__: list[str] = []
