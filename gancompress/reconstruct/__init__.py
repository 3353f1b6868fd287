"""Pruning without the data a network was trained on: what stays is refitted so that its outputs stay."""
