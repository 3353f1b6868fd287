"""Measured ratios, side by side in one run: training steps and generators, sparse against the dense alternatives."""
