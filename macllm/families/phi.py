"""Phi 1 to 4: Microsoft's parallel decoder, and the Llama with fused projections that followed it."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_norm, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.names import fused, renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QKNorm

_LAYER = "model.layers.{i}."
_PHI = renamed(
    {
        "layers.{i}.mixer.o": f"{_LAYER}self_attn.dense",
        "layers.{i}.mixer.q_norm": f"{_LAYER}self_attn.q_layernorm",
        "layers.{i}.mixer.k_norm": f"{_LAYER}self_attn.k_layernorm",
        "layers.{i}.channel.up": f"{_LAYER}mlp.fc1",
        "layers.{i}.channel.down": f"{_LAYER}mlp.fc2",
        "norm": "model.final_layernorm",
    }
)
_PHI3 = fused(f"{_LAYER}self_attn.qkv_proj", *(f"layers.{{i}}.mixer.{name}" for name in "qkv")) | fused(
    f"{_LAYER}mlp.gate_up_proj", "layers.{i}.channel.gate", "layers.{i}.channel.up"
)


@family("phi")
def phi(c: Config) -> ModelSpec:
    """Phi 1, 1.5 and 2: biases everywhere, part of a head turns, attention and MLP side by side."""
    norm = layer_norm(c, "layer_norm_eps")
    qk_norm = QKNorm(norm) if c.flag("qk_layernorm") else None
    mixer = attention(c, bias=True, out_bias=True, qk_norm=qk_norm, partial=0.5)
    channel = mlp(c, bias=True, gated=False, expected="gelu_new")
    layer = Layer(mixer, channel, "parallel", norm)
    return model(c, [layer] * c.integer("num_hidden_layers"), table=_PHI, head_bias=True)


@family("phi3")
def phi3(c: Config) -> ModelSpec:
    """Phi 3, 3.5 and 4: Llama with fused projections; LongRoPE where the context is long."""
    c.get("original_max_position_embeddings")
    mixer, context = attention(c, partial=1.0), c.integer("max_position_embeddings")
    # the 128k models state one that no context reaches: a cache of all tokens is the same, and grows faster
    if c.get("sliding_window") is not None and c.integer("sliding_window") < context:
        mixer = replace(mixer, window=c.integer("sliding_window"))
    layer = Layer(mixer, mlp(c), norm=rms_norm(c, default=1e-5))
    return model(c, [layer] * c.integer("num_hidden_layers"), table=_PHI3)
