"""Weights: checkpoints, GGUF, names, quantization, conversion."""
