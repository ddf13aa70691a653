"""Tensors of mixtures that a checkpoint leaves out, or holds packed in another shape than the model."""

from pathlib import Path

import mlx.core as mx
import numpy as np
from conversions import config, macllm_logits, mlx_lm_logits
from tiny import decoder, difference, write_with_mlx_lm

from macllm.nn.stored import Dense, Packed
from macllm.weights.convert import convert
from macllm.weights.model_files import open_model
from macllm.weights.plan import Target


def test_what_mlx_lm_leaves_out_is_zero_and_written_as_such(tmp_path: Path) -> None:
    """ERNIE's correction of the choice, in a folder of mlx-lm's that is quantized again."""
    write_with_mlx_lm("ernie-moe", tmp_path / "theirs")
    model = decoder(tmp_path / "theirs")
    correction = model.layers[1].channel.correction
    assert correction.shape == (8,)
    assert not correction.any()
    assert difference(macllm_logits(tmp_path / "theirs"), mlx_lm_logits(tmp_path / "theirs")) < 1e-5
    done = convert(tmp_path / "theirs", tmp_path / "ours", Target(bits=8, group_size=32))
    assert config(done.path)["quantization"]["bits"] == 8
    assert not decoder(done.path).layers[1].channel.correction.any()
    assert difference(macllm_logits(done.path), mlx_lm_logits(done.path)) < 1e-5


def test_packed_keys_and_values_of_all_heads_come_apart_and_together(tmp_path: Path) -> None:
    """DeepSeek V2 as mlx-lm packs it: one matrix, of which the keys are transposed and so unpacked."""
    write_with_mlx_lm("deepseek-v2-lite-wide-latent", tmp_path, bits=8, group_size=32)
    files = open_model(tmp_path)
    checkpoint, given = files.checkpoint(mx.float32), dict(decoder(tmp_path).tensors())
    relation = files.naming.relation("layers.0.mixer.k_up.weight")
    stored = checkpoint.read(relation.stored[0])
    assert isinstance(stored, Packed)
    keys, values = (given[tensor.name] for tensor in relation.canonical)
    assert isinstance(keys, Dense)
    assert isinstance(values, Packed)
    (whole,) = relation.store([keys, values])
    assert isinstance(whole, Dense)
    assert np.array_equal(np.array(whole.array), np.array(stored.dequantize(mx.float32)))
    assert difference(macllm_logits(tmp_path), mlx_lm_logits(tmp_path)) < 1e-5
