"""GPT-2."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_norm, mlp, model
from macllm.families.config import Config
from macllm.families.names import either, fused, prefixed, renamed, transposed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec

_OUTER = renamed(
    {
        "embed": "wte",
        "positions": "wpe",
        "norm": "ln_f",
        "layers.{i}.mixer_norm": "h.{i}.ln_1",
        "layers.{i}.channel_norm": "h.{i}.ln_2",
    }
)
_MATRICES = fused("h.{i}.attn.c_attn", *(f"layers.{{i}}.mixer.{name}" for name in "qkv")) | renamed(
    {
        "layers.{i}.mixer.o": "h.{i}.attn.c_proj",
        "layers.{i}.channel.up": "h.{i}.mlp.c_fc",
        "layers.{i}.channel.down": "h.{i}.mlp.c_proj",
    }
)
_NAMES = either(
    prefixed(_OUTER | transposed(_MATRICES), "transformer.", ""), prefixed(_OUTER | _MATRICES, "model.")
)


@family("gpt2")
def gpt2(c: Config) -> ModelSpec:
    """GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases everywhere."""
    c.also_named(
        hidden_size="n_embd",
        num_hidden_layers="n_layer",
        num_attention_heads="n_head",
        intermediate_size="n_inner",
        max_position_embeddings="n_positions",
    )
    c.only("add_cross_attention", [False], False)
    c.get("n_ctx")  # n_positions again
    c.get("reorder_and_upcast_attn")  # in which type scores are computed: here always float32
    width = c.integer("intermediate_size", 4 * c.integer("hidden_size"))
    mixer = attention(c, rope=None, bias=True, out_bias=True)
    if not c.flag("scale_attn_weights", True):
        mixer = replace(mixer, scale=1.0)
    by_depth = c.flag("scale_attn_by_inverse_layer_idx")
    channel = mlp(
        c,
        bias=True,
        gated=False,
        activation_key="activation_function",
        expected=("gelu_new", "gelu", "relu", "silu"),
        hidden=width,
    )
    layers = [
        Layer(
            replace(mixer, scale=mixer.scale / (index + 1)) if by_depth else mixer,
            channel,
            norm=layer_norm(c, "layer_norm_epsilon"),
        )
        for index in range(c.integer("num_hidden_layers"))
    ]
    return model(
        c,
        layers,
        tied=True,
        positions=c.integer("max_position_embeddings"),
        table=_NAMES,
        ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),
    )
