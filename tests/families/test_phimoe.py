"""Phi-3.5-MoE beyond its original context, and its router against the loop of its authors' code."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import config_of, decoder, difference, tokens, write_model
from variants.phimoe import LONG

from macllm.families import spec_from_config
from macllm.spec import LongScaling, TableScaling

IDS = [tokens(40), tokens(40, seed=1)]


def test_long_sequences_have_the_long_temperature(tmp_path: Path) -> None:
    """transformers keeps the short factors for long sequences, its authors did not: here both are the same."""
    import torch

    scaling = {**LONG, "short_factor": LONG["long_factor"], "original_max_position_embeddings": 24}
    config = {**config_of("phimoe-short"), "rope_scaling": scaling, "original_max_position_embeddings": 24}
    original = write_model(config, tmp_path)
    model = decoder(tmp_path, config)
    for length in (24, 25, 40):
        ids = [row[:length] for row in IDS]
        with torch.no_grad():
            expected = original(torch.tensor(ids)).logits.numpy()
        assert difference(np.array(model(mx.array(ids))), expected) < 1e-5


def test_each_length_has_its_factors_and_temperature() -> None:
    rope = spec_from_config(config_of("phimoe-short")).layers[0].mixer.rope
    short, long = (
        TableScaling(tuple(LONG[f"{length}_factor"]), LONG[f"{length}_mscale"])
        for length in ("short", "long")
    )
    assert rope.scaling == LongScaling(short, long, 64)


@pytest.mark.parametrize("jitter", [0.01, 0.2, 0.6])
def test_experts_are_chosen_and_weighed_as_in_the_original(jitter: float, tmp_path: Path) -> None:
    """Among them rows of one sign, and ties."""
    import torch
    from transformers.models.phimoe.modeling_phimoe import sparsemixer

    config = {**config_of("phimoe"), "router_jitter_noise": jitter}
    write_model(config, tmp_path)
    router = decoder(tmp_path, config).layers[0].channel
    logits = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    logits[:50] = np.abs(logits[:50])
    logits[50:100] = -np.abs(logits[50:100])
    logits[100, 3] = logits[100, 5] = 2.0
    weights, index = sparsemixer(torch.tensor(logits), jitter, training=False)
    found_index, found = router.route(mx.array(logits))
    assert np.array_equal(np.array(found_index), index.numpy())
    assert difference(np.array(found), weights.numpy()) < 1e-6
    assert 0 < (found[:, 0] == 1).mean().item() < 1  # some stand alone, and some do not
