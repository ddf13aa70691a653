"""Blocks in words."""

from tiny import config_of

from macllm.describe import block_words
from macllm.families import spec_from_config


def test_ways_to_mix_experts_are_told_apart() -> None:
    words = {
        variant: block_words(spec_from_config(config_of(variant)).layers[-1].channel)
        for variant in ("mixtral", "phimoe", "llama4-scout", "deepseek-v3")
    }
    assert "by softmax" in words["mixtral"]
    assert "by SparseMixer" in words["phimoe"]
    assert words["llama4-scout"].endswith("weighed before")
    assert "by sigmoid, from 2 of 4 groups, a shared one of 40" in words["deepseek-v3"]
