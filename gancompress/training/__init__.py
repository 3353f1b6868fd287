"""Training: the loop, the sparse engine, the averaged generator, processes side by side."""
