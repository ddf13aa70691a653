"""What is particular to RWKV-7: the shapes its authors store vectors in, and what configs may not say."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tiny import config_of, decoder, reference, tokens

from macllm.errors import ConfigError
from macllm.families import spec_from_config

IDS = mx.array([tokens(20)])


def test_vectors_may_be_stored_flat(tmp_path: Path) -> None:
    """As on the hub, where MLX's tools keep one row a head."""
    folder = reference("rwkv7").folder
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    flat = {
        name: array.reshape(-1) if any(part in name for part in ("k_k", "k_a", "g_norm")) else array
        for name, array in weights.items()
    }
    assert sum(array.ndim != weights[name].ndim for name, array in flat.items()) == 4 * 3
    mx.save_safetensors(str(tmp_path / "model.safetensors"), flat, {"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert mx.array_equal(decoder(tmp_path)(IDS), decoder(folder)(IDS))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "silu"),
        ("norm_first", False),
        ("norm_bias", False),
        ("attn", {"layers": [1]}),
        ("value_dim", 96),
        ("head_dim", 7),
        ("decay_low_rank_dim", None),
        ("window", 3),
    ],
)
def test_what_would_change_the_maths_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        spec_from_config({**config_of("rwkv7"), key: value})


def test_the_norm_of_heads_is_as_exact_as_they_are_wide() -> None:
    """fla's epsilon is that of the other norms times the width of a head."""
    layer = spec_from_config({**config_of("rwkv7"), "norm_eps": 1e-5}).layers[0]
    assert layer.norm.eps == 1e-5
    assert layer.mixer.norm.eps == pytest.approx(16e-5)


def test_the_first_layer_has_no_values_to_blend_in() -> None:
    names = {tensor.name for tensor in spec_from_config(config_of("rwkv7")).tensors()}
    assert "layers.0.mixer.blend_up.weight" not in names
    assert "layers.1.mixer.blend_up.weight" in names
