"""FLOPs, bytes and latency of training and of inference: three groups of figures that are never mixed."""
