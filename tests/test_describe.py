"""Blocks in words: every kind of layer that any family has can be drawn."""

import pytest
from tiny import config_of, variants

from macllm.describe import block_name, block_names, block_words, layer_label
from macllm.families import spec_from_config


@pytest.mark.parametrize("variant", variants())
def test_every_layer_of_every_family_has_words(variant: str) -> None:
    spec = spec_from_config(config_of(variant))
    assert block_names(spec)
    for layer in dict.fromkeys(spec.layers):
        assert layer_label(layer)
        for block in (layer.mixer, layer.channel):
            if block is not None:
                assert block_name(block)
                assert block_words(block)


def test_ways_to_mix_experts_are_told_apart() -> None:
    words = {
        variant: block_words(spec_from_config(config_of(variant)).layers[-1].channel)
        for variant in ("mixtral", "phimoe", "llama4-scout", "deepseek-v3")
    }
    assert "by softmax" in words["mixtral"]
    assert "by SparseMixer" in words["phimoe"]
    assert words["llama4-scout"].endswith("weighed before")
    assert "by sigmoid, from 2 of 4 groups, a shared one of 40" in words["deepseek-v3"]
