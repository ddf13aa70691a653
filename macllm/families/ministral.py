"""Ministral 8B."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("ministral")
def ministral(c: Config) -> ModelSpec:
    """Ministral 8B (Mistral AI 2024): Mistral whose layers slide by turns."""
    c.where_missing(num_key_value_heads=8, sliding_window=4096)
    full = attention(c)
    default = "full_attention" if c.get("sliding_window") is None else "sliding_attention"
    kinds = layer_kinds(c, [default] * c.integer("num_hidden_layers"))
    sliding = full
    if "sliding_attention" in kinds:
        sliding = replace(full, window=c.integer("sliding_window"))
    channel, norm = mlp(c), rms_norm(c)
    mixers = [sliding if kind == "sliding_attention" else full for kind in kinds]
    return model(c, [Layer(mixer, channel, norm=norm) for mixer in mixers])
