"""What is particular to Qwen3-Next and Qwen3.5: stacked experts in repositories, and what configs may not say."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tiny import config_of, decoder, read_config, reference, tokens

from macllm.errors import ConfigError
from macllm.families import spec_from_config

IDS = mx.array([tokens(20)])


def stacked(folder: Path, destination: Path, experts: int) -> None:
    """The checkpoint as repositories have it: experts as stacks, and layers that predict further tokens."""
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    kept = {name: array for name, array in weights.items() if ".mlp.experts." not in name}
    for layer in range(4):
        prefix = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            mx.stack([weights[f"{prefix}.{e}.{name}_proj.weight"] for e in range(experts)])
            for name in ("gate", "up", "down")
        )
        kept[f"{prefix}.gate_up_proj"] = mx.concatenate([gate, up], axis=1)
        kept[f"{prefix}.down_proj"] = down
    kept["mtp.fc.weight"] = mx.zeros((3, 3))
    mx.save_safetensors(str(destination / "model.safetensors"), kept, {"format": "pt"})
    (destination / "config.json").write_text((folder / "config.json").read_text())


def test_experts_may_be_stored_as_stacks(tmp_path: Path) -> None:
    folder = reference("qwen3-5-moe").folder
    stacked(folder, tmp_path, experts=8)
    assert mx.array_equal(decoder(tmp_path)(IDS), decoder(folder)(IDS))


@pytest.mark.parametrize(
    ("variant", "key", "value"),
    [
        ("qwen3-next", "attn_output_gate", False),
        ("qwen3-next", "linear_num_value_heads", 3),
        ("qwen3-next", "mlp_only_layers", 3),
        ("qwen3-next", "layer_types", ["full_attention"]),
        ("qwen3-5", "layer_types", ["sliding_attention"] * 4),
        ("qwen3-5", "hidden_act", "gelu"),
        ("qwen3-5", "sliding_window", 7),
        ("qwen3-5-moe", "norm_topk_prob", False),
    ],
)
def test_what_would_change_the_maths_is_refused(variant: str, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        spec_from_config({**config_of(variant), key: value})


def test_a_saved_config_says_the_same_with_every_default_in_it() -> None:
    """transformers writes all keys, and those of multimodal rope are without effect on text."""
    config = read_config(reference("qwen3-5").folder)
    config["rope_parameters"] |= {"mrope_section": [1, 1, 0], "mrope_interleaved": True}
    assert spec_from_config(config) == spec_from_config(config_of("qwen3-5"))
