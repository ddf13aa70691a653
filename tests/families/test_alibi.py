"""ALiBi: its slopes are the originals', for every number of heads; where the originals err is known."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import config_of, decoder, difference, tokens, write_original

from macllm.families import spec_from_config
from macllm.families.blocks import alibi_slopes

HEADS = [*range(1, 41), 71, 112, 128]
IDS = [tokens(40)]


@pytest.mark.parametrize("heads", HEADS)
def test_slopes_are_those_of_bloom(heads: int) -> None:
    import torch
    from transformers.models.bloom.modeling_bloom import _get_alibi_slopes

    assert np.allclose(alibi_slopes(heads), _get_alibi_slopes(heads, torch.device("cpu")), rtol=1e-6)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("largest", [8, 16])
def test_slopes_are_those_of_mpt(heads: int, largest: int) -> None:
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    penalty = build_mpt_alibi_tensor(heads, 2, largest)[:, 0, 0].numpy()  # of one token of distance
    assert np.allclose(alibi_slopes(heads, largest), -penalty, rtol=1e-6)


def test_mpts_largest_exponent_counts() -> None:
    """transformers leaves ``alibi_bias_max`` unread; MosaicML's code, and MPT-StoryWriter with 16, do not."""
    config = config_of("mpt")
    config["attn_config"]["alibi_bias_max"] = 16
    assert spec_from_config(config).layers[0].mixer.slopes == alibi_slopes(8, 16.0)


def test_mpts_width_follows_its_ratio() -> None:
    """transformers always takes 4."""
    spec = spec_from_config({**config_of("mpt"), "expansion_ratio": 3})
    assert spec.layers[0].channel.hidden == 3 * spec.dim


def test_falcon_with_many_heads_differs_by_a_rounding_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Falcon-RW has 32 heads, whose slopes transformers rounds to bfloat16, and their products too."""
    import torch

    config = {**config_of("falcon-rw"), "num_attention_heads": 32, "hidden_size": 128}
    original = write_original(config, tmp_path)
    found = np.array(decoder(tmp_path)(mx.array(IDS)))
    assert 1e-4 < difference(found, original.logits(IDS)) < 1e-2
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor)
    assert difference(found, original.logits(IDS)) < 1e-5
