"""Generators that leave the house: packed files, the compiled sparse generator, ONNX."""
