"""SmolLM3."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec


@family("smollm3")
def smollm3(c: Config) -> ModelSpec:
    """SmolLM3: Llama whose every fourth layer has no positions (Yang et al. 2025, arXiv 2501.18795)."""
    c.where_missing(num_key_value_heads=4, rope_theta=2_000_000.0)
    for key in ("max_window_layers", "pretraining_tp"):
        c.get(key)  # carried along from Qwen2's and Llama's configs; not looked at
    bias = c.flag("attention_bias")
    mixer = attention(c, bias=bias, out_bias=bias)
    turning = _turning(c)
    on, window = c.flag("use_sliding_window"), c.get("sliding_window")
    default = ["sliding_attention" if on and window and not rope else "full_attention" for rope in turning]
    kinds = layer_kinds(c, default)
    if "sliding_attention" in kinds and not on:
        raise c.unsupported("use_sliding_window", on, "true, since layer_types has 'sliding_attention'")
    channel, norm = mlp(c, bias=c.flag("mlp_bias")), rms_norm(c)
    layers = [
        Layer(
            replace(
                mixer,
                rope=mixer.rope if rope else None,
                window=c.integer("sliding_window") if kind == "sliding_attention" else None,
            ),
            channel,
            norm=norm,
        )
        for rope, kind in zip(turning, kinds, strict=True)
    ]
    return model(c, layers, tied=True)


def _turning(c: Config) -> list[bool]:
    """Which layers have rope: ``no_rope_layers`` has a 1 for those, or every n-th has none."""
    count, every = c.integer("num_hidden_layers"), c.integer("no_rope_layer_interval", 4)
    stated = c.get("no_rope_layers")
    if stated is None:
        return [(index + 1) % every != 0 for index in range(count)]
    if not isinstance(stated, list) or len(stated) < count or any(value not in (0, 1) for value in stated):
        raise c.unsupported("no_rope_layers", stated, f"{count} entries of 0 or 1")
    return [bool(value) for value in stated[:count]]
