"""Blocks of odd architectures, whose specs are in ``macllm.families.custom``."""
