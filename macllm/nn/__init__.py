"""Blocks that models are built of, and the one decoder."""
