"""Specs of odd blocks, those of one architecture or two; what computes them is in ``macllm.nn.custom``."""
