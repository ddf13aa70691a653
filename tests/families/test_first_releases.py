"""Checkpoints as they were first published: other names than transformers writes today, and tensors of no use."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import decoder, difference, reference, tokens

from macllm.errors import CheckpointError

IDS = [tokens(20)]


def rewritten(variant: str, folder: Path, prefix: str, extra: dict[str, mx.array]) -> Path:
    """The variant's folder with ``prefix`` taken off its tensors' names and more tensors beside them."""
    original = reference(variant).folder
    tensors = mx.load(str(original / "model.safetensors"))
    assert any(name.startswith(prefix) for name in tensors)
    renamed = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), renamed | extra, {"format": "pt"})
    (folder / "config.json").write_text((original / "config.json").read_text())
    return folder


FIRST = [
    ("gpt2", "transformer.", ["h.0.attn.bias", "h.2.attn.masked_bias"]),
    ("bloom", "transformer.", []),
    ("gpt-neox", "", ["gpt_neox.layers.1.attention.bias", "gpt_neox.layers.1.attention.rotary_emb.inv_freq"]),
]


@pytest.mark.parametrize(("variant", "prefix", "buffers"), FIRST)
def test_names_without_prefix_and_masks_among_the_weights(
    variant: str, prefix: str, buffers: list[str], tmp_path: Path
) -> None:
    folder = rewritten(variant, tmp_path, prefix, {name: mx.zeros((1, 1, 8, 8)) for name in buffers})
    found = np.array(decoder(folder)(mx.array(IDS)))
    assert difference(found, reference(variant).logits(IDS)) < 1e-4


@pytest.mark.parametrize("variant", ["gpt2", "gpt-neox"])
def test_a_tensor_that_is_not_known_is_named(variant: str, tmp_path: Path) -> None:
    folder = rewritten(variant, tmp_path, "", {"h.0.attn.bias_k": mx.zeros(3)})
    with pytest.raises(CheckpointError, match=r"tensor 'h\.0\.attn\.bias_k' is not known"):
        decoder(folder)
