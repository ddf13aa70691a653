"""GPT-NeoX and Pythia."""

from macllm.families.blocks import attention, layer_norm, mlp, model
from macllm.families.config import Config
from macllm.families.names import either, fused, prefixed, renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, NormPlacement


@family("gpt_neox")
def gpt_neox(c: Config) -> ModelSpec:
    """GPT-NeoX (Black et al. 2022): a quarter of each head turns; attention and feed-forward side by side."""
    c.also_named(rope_theta="rotary_emb_base", partial_rotary_factor="rotary_pct")
    c.get("classifier_dropout")
    bias = c.flag("attention_bias", True)
    mixer = attention(c, bias=bias, out_bias=bias, partial=0.25)
    channel = mlp(
        c, bias=True, gated=False, expected=("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
    )
    placement: NormPlacement = "parallel_two" if c.flag("use_parallel_residual", True) else "pre"
    layer = Layer(mixer, channel, placement, layer_norm(c, "layer_norm_eps"))
    inside = fused(
        "attention.query_key_value", *(f"layers.{{i}}.mixer.{name}" for name in "qkv"), groups=mixer.heads
    ) | renamed(
        {
            "layers.{i}.mixer.o": "attention.dense",
            "layers.{i}.channel.up": "mlp.dense_h_to_4h",
            "layers.{i}.channel.down": "mlp.dense_4h_to_h",
            "layers.{i}.mixer_norm": "input_layernorm",
            "layers.{i}.channel_norm": "post_attention_layernorm",
        }
    )
    outside = renamed({"embed": "embed_in", "norm": "final_layer_norm"})
    hub = prefixed(inside, "gpt_neox.layers.{i}.") | prefixed(outside, "gpt_neox.")
    mlx = prefixed(inside, "model.h.{i}.") | prefixed(outside, "model.")
    head = {"head": "embed_out"}
    return model(
        c,
        [layer] * c.integer("num_hidden_layers"),
        table=either(hub | renamed(head), mlx | prefixed(renamed(head), "model.")),
        ignored=(r"(.*\.)?attention\.(masked_)?bias", r"(.*\.)?attention\.rotary_emb\.inv_freq"),
    )
