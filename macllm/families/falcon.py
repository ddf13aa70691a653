"""Falcon 1 and 2."""

from dataclasses import replace

from macllm.families.blocks import alibi_slopes, attention, layer_norm, mlp, model
from macllm.families.config import Config
from macllm.families.names import Table, fused, prefixed, renamed
from macllm.families.registry import family
from macllm.spec import Attention, Layer, ModelSpec, NormPlacement

_MODULES = {
    "embed": "word_embeddings",
    "norm": "ln_f",
    "layers.{i}.mixer.o": "h.{i}.self_attention.dense",
    "layers.{i}.channel.up": "h.{i}.mlp.dense_h_to_4h",
    "layers.{i}.channel.down": "h.{i}.mlp.dense_4h_to_h",
}
_NORMS: dict[NormPlacement, dict[str, str]] = {
    "pre": {"mixer_norm": "input_layernorm", "channel_norm": "post_attention_layernorm"},
    "parallel": {"mixer_norm": "input_layernorm"},
    "parallel_two": {"mixer_norm": "ln_attn", "channel_norm": "ln_mlp"},
}


@family("falcon")
def falcon(c: Config) -> ModelSpec:
    """Falcon (arXiv 2311.16867): attention beside feed-forward, few key heads; the first ones with ALiBi."""
    c.also_named(
        hidden_size="n_embed", num_key_value_heads="num_kv_heads", intermediate_size="ffn_hidden_size"
    )
    c.where_missing(multi_query=True, parallel_attn=True)
    c.only("apply_residual_connection_post_layernorm", [False], False)
    c.only("ff_factor", [4], 4)  # stands beside ffn_hidden_size, which would differ
    bias = c.flag("bias")
    channel = mlp(
        c,
        bias=bias,
        gated=False,
        activation_key="activation",
        expected=("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"),
        hidden=c.integer("intermediate_size", 4 * c.integer("hidden_size")),
    )
    mixer, placement = _attention(c, bias), _placement(c)
    layer = Layer(mixer, channel, placement, layer_norm(c, "layer_norm_epsilon"))
    return model(
        c,
        [layer] * c.integer("num_hidden_layers"),
        tied=True,
        max_context=c.integer("max_position_embeddings", 2048),
        table=_names(mixer, placement),
    )


def _attention(c: Config, bias: bool) -> Attention:
    grouped, multi_query = c.flag("new_decoder_architecture"), c.flag("multi_query")
    alibi = c.flag("alibi")
    mixer = attention(c, bias=bias, out_bias=bias, rope=None if alibi else "stated")
    if alibi:
        for key in ("rope_theta", "rope_scaling", "rope_parameters"):
            c.get(key)  # stay in the file and turn nothing
        # added before the scores are scaled; that transformers rounds it to bfloat16 is left out
        slopes = tuple(slope * mixer.scale for slope in alibi_slopes(mixer.heads))
        mixer = replace(mixer, slopes=slopes)
    if grouped:
        return mixer
    if multi_query:
        return replace(mixer, kv_heads=1)
    if mixer.kv_heads != mixer.heads:
        raise c.unsupported("num_key_value_heads", mixer.kv_heads, f"{mixer.heads}, one a head")
    return mixer


def _placement(c: Config) -> NormPlacement:
    grouped, parallel = c.flag("new_decoder_architecture"), c.flag("parallel_attn")
    norms = c.integer("num_ln_in_parallel_attn", 2 if grouped else 1)
    if grouped and not parallel:
        raise c.unsupported("parallel_attn", parallel, "true with new_decoder_architecture")
    if norms not in ((1, 2) if grouped else (1,)):
        raise c.unsupported("num_ln_in_parallel_attn", norms, "1, or 2 with new_decoder_architecture")
    if not parallel:
        return "pre"
    return "parallel_two" if norms == 2 else "parallel"


def _names(mixer: Attention, placement: NormPlacement) -> Table:
    """Queries, keys and values by group: the queries that share a key head, and that head."""
    qkv = fused(
        "h.{i}.self_attention.query_key_value",
        *(f"layers.{{i}}.mixer.{name}" for name in "qkv"),
        groups=mixer.kv_heads,
    )
    norms = {f"layers.{{i}}.{key}": f"h.{{i}}.{name}" for key, name in _NORMS[placement].items()}
    return prefixed(renamed(_MODULES | norms) | qkv, "transformer.")
