"""Recipes: the schema, loading with a place for every mistake, run identity, the catalogue. Imports no torch."""
