"""Training: the loop, the sparse engine, checkpoints and the run directory."""
