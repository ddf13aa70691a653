"""MPT."""

from dataclasses import replace

from macllm.families.blocks import alibi_slopes, attention, layer_norm, model
from macllm.families.config import Config
from macllm.families.names import fused, prefixed, renamed
from macllm.families.registry import family
from macllm.spec import MLP, Attention, Layer, ModelSpec

_NAMES = prefixed(
    renamed(
        {
            "embed": "wte",
            "norm": "norm_f",
            "layers.{i}.mixer.o": "blocks.{i}.attn.out_proj",
            "layers.{i}.channel.up": "blocks.{i}.ffn.up_proj",
            "layers.{i}.channel.down": "blocks.{i}.ffn.down_proj",
            "layers.{i}.mixer_norm": "blocks.{i}.norm_1",
            "layers.{i}.channel_norm": "blocks.{i}.norm_2",
        }
    )
    | fused("blocks.{i}.attn.Wqkv", *(f"layers.{{i}}.mixer.{name}" for name in "qkv")),
    "transformer.",
)
_INERT = (  # how it was trained; positions are learned only without ALiBi
    "emb_pdrop embedding_fraction init_config init_device learned_pos_emb tokenizer_name use_pad_tok_in_ffn verbose"
).split()


@family("mpt")
def mpt(c: Config) -> ModelSpec:
    """MPT (MosaicML 2023): ALiBi, no biases, LayerNorm."""
    c.also_named(hidden_size="d_model", num_hidden_layers="n_layers", num_attention_heads="n_heads")
    c.only("no_bias", [True], True)
    c.only("norm_type", ["low_precision_layernorm", "layernorm"], "low_precision_layernorm")
    if c.get("logit_scale") is not None:
        raise c.unsupported("logit_scale", c.get("logit_scale"), "none")
    for key in _INERT:
        c.get(key)
    dim = c.integer("hidden_size")
    channel = MLP(dim, dim * c.integer("expansion_ratio", 4), "gelu", gated=False)
    layer = Layer(_attention(c), channel, norm=layer_norm(c, "layer_norm_epsilon", bias=False))
    return model(
        c,
        [layer] * c.integer("num_hidden_layers"),
        tied=True,
        max_context=c.integer("max_seq_len", 2048),
        table=_NAMES,
    )


def _attention(c: Config) -> Attention:
    """Attention by the keys of ``attn_config``."""
    mixer, inner = attention(c, rope=None), c.part("attn_config")
    inner.only("alibi", [True], True)
    inner.only("attn_type", ["multihead_attention"], "multihead_attention")
    for key in ("attn_uses_sequence_id", "prefix_lm", "qk_ln"):
        inner.only(key, [False], False)
    inner.get("attn_impl")
    return replace(
        mixer,
        scale=inner.number("softmax_scale", mixer.scale),
        slopes=alibi_slopes(mixer.heads, inner.number("alibi_bias_max", 8)),
        clip=inner.number("clip_qkv") if inner.get("clip_qkv") is not None else None,
    )
