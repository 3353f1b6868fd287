"""Captured networks as sparse programs: which operations go together, what is fused, and how it runs."""
