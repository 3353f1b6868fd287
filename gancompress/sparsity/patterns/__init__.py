"""Patterns: in which units weights are kept. One file each; the contract is in ``base``."""
