"""BLOOM."""

from dataclasses import replace

from macllm.families.blocks import alibi_slopes, attention, layer_norm, model
from macllm.families.config import Config
from macllm.families.names import fused, prefixed, renamed
from macllm.families.registry import family
from macllm.spec import MLP, Layer, ModelSpec

_MODULES = {
    "embed": "word_embeddings",
    "embed_norm": "word_embeddings_layernorm",
    "norm": "ln_f",
    "layers.{i}.mixer.o": "h.{i}.self_attention.dense",
    "layers.{i}.channel.up": "h.{i}.mlp.dense_h_to_4h",
    "layers.{i}.channel.down": "h.{i}.mlp.dense_4h_to_h",
    "layers.{i}.mixer_norm": "h.{i}.input_layernorm",
    "layers.{i}.channel_norm": "h.{i}.post_attention_layernorm",
}
_INERT = (  # how it was trained and which kernels computed it
    "attention_softmax_in_fp32 bias_dropout_fusion masked_softmax_fusion offset_alibi pretraining_tp skip_bias_add "
    "skip_bias_add_qkv slow_but_exact"
).split()


@family("bloom")
def bloom(c: Config) -> ModelSpec:
    """BLOOM (arXiv 2211.05100): ALiBi, a norm after the embedding, biases everywhere."""
    c.also_named(hidden_size="n_embed", num_hidden_layers="n_layer", num_attention_heads="n_head")
    c.only("apply_residual_connection_post_layernorm", [False], False)
    for key in _INERT:
        c.get(key)
    dim, norm = c.integer("hidden_size"), layer_norm(c, "layer_norm_epsilon")
    c.only("n_inner", [4 * dim], 4 * dim)
    mixer = attention(c, rope=None, bias=True, out_bias=True)
    mixer = replace(mixer, slopes=alibi_slopes(mixer.heads))
    layer = Layer(mixer, MLP(dim, 4 * dim, "gelu_tanh", gated=False, bias=True), norm=norm)
    qkv = fused(
        "h.{i}.self_attention.query_key_value",
        *(f"layers.{{i}}.mixer.{name}" for name in "qkv"),
        groups=mixer.heads,
    )
    return model(
        c,
        [layer] * c.integer("num_hidden_layers"),
        tied=True,
        embed_norm=norm,
        max_context=c.integer("seq_length", 2048),
        table=prefixed(renamed(_MODULES) | qkv, "transformer.", ""),
    )
