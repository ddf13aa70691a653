"""Rotary positions: every scaling against the original's frequencies, and the rotation itself."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from macllm.families import spec_from_config
from macllm.nn.rope import RotaryEmbedding, attention_temperature, periods
from macllm.spec import Llama3Scaling, ProportionalScaling, Rope, TableScaling, YarnScaling

BASE = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 512,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
}
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 8.0},
    {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 32768},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "proportional", "factor": 2.0, "partial_rotary_factor": 0.3},
    {"rope_type": "proportional", "factor": 1.0},
    {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "attention_factor": 1.25,
        "truncate": False,
    },
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: f"{s['rope_type']}-{s['factor']:g}-{len(s)}")
def test_frequencies_and_temperature_equal_the_originals(scaling: dict[str, Any]) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    values = {**BASE, "rope_scaling": scaling}
    rope = spec_from_config(values).layers[0].mixer.rope
    assert rope is not None
    original = LlamaConfig(**{**values, "rope_scaling": dict(scaling)})
    frequencies, temperature = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](original, "cpu")
    np.testing.assert_allclose(1 / np.array(periods(rope)), frequencies.numpy(), rtol=1e-5)
    assert attention_temperature(rope) == pytest.approx(temperature)


FACTORS = {"short_factor": [1 + i / 64 for i in range(64)], "long_factor": [1.0 + i for i in range(64)]}


@pytest.mark.parametrize("length", [1, 4096, 4097, 100_000, 131_072, 131_073, 300_000])
@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "longrope", **FACTORS, "original_max_position_embeddings": 4096},
        {"rope_type": "longrope", **FACTORS, "original_max_position_embeddings": 4096, "factor": 8.0},
        {"rope_type": "longrope", **FACTORS, "attention_factor": 1.3},
        {"rope_type": "dynamic", "factor": 2.5},
    ],
)
def test_rotations_by_the_length_of_the_sequence_equal_the_originals(
    scaling: dict[str, Any], length: int
) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    values = {**BASE, "rope_scaling": scaling}
    rope = spec_from_config(values).layers[0].mixer.rope.at(length)
    original = LlamaConfig(**{**values, "rope_scaling": dict(scaling)})
    frequencies, temperature = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](original, "cpu", seq_len=length)
    np.testing.assert_allclose(1 / np.array(periods(rope)), frequencies.numpy(), rtol=1e-5)
    assert attention_temperature(rope) == pytest.approx(temperature)


def rotated(x: np.ndarray, offset: int, rope: Rope) -> np.ndarray:
    """The definition: pair i is (x[i], x[i + dims/2]) or (x[2i], x[2i + 1]), turned by position / period."""
    out = x.copy()
    out[..., : rope.dims] *= attention_temperature(rope)
    x = out.copy()
    half = rope.dims // 2
    for position in range(x.shape[2]):
        for i, period in enumerate(periods(rope)):
            angle = (offset + position) / period
            first, second = (2 * i, 2 * i + 1) if rope.interleaved else (i, i + half)
            a, b = x[:, :, position, first], x[:, :, position, second]
            out[:, :, position, first] = a * np.cos(angle) - b * np.sin(angle)
            out[:, :, position, second] = a * np.sin(angle) + b * np.cos(angle)
    return out


@pytest.mark.parametrize(
    "rope",
    [
        Rope(16),
        Rope(16, 1_000_000.0, Llama3Scaling(8.0, 1.0, 4.0, 32)),
        Rope(16, 10_000.0, TableScaling((1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0))),
        Rope(16, 10_000.0, YarnScaling(4.0, 32), interleaved=True),
        Rope(8, 10_000.0, YarnScaling(4.0, 32)),  # the temperature is of the part that turns alone
        Rope(8, 10_000.0, YarnScaling(4.0, 32), interleaved=True),
        Rope(4, 10_000.0, TableScaling((1.0, 3.0), 1.7)),
        Rope(16, 10_000.0, ProportionalScaling(0.4)),
    ],
)
@pytest.mark.parametrize("offset", [0, 1, 1000])
def test_the_kernel_turns_pairs_by_position(rope: Rope, offset: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 16)).astype(np.float32)
    expected = rotated(x.astype(np.float64), offset, rope)
    embedding = RotaryEmbedding(rope)
    np.testing.assert_allclose(np.array(embedding(mx.array(x), offset)), expected, atol=2e-4)
    one = np.array(embedding(mx.array(x[:, :, :1]), offset))  # by a matrix on CPU
    np.testing.assert_allclose(one, expected[:, :, :1], atol=2e-4)


def test_a_table_divides_each_frequency() -> None:
    plain = periods(Rope(8))
    factors = (1.0, 2.0, 3.0, 4.0)
    assert periods(Rope(8, scaling=TableScaling(factors))) == [
        p * f for p, f in zip(plain, factors, strict=True)
    ]
