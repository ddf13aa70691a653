"""StarCoder2."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_norm, mlp, model
from macllm.families.config import Config
from macllm.families.names import renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec

_NAMES = renamed(
    {
        "layers.{i}.channel.up": "model.layers.{i}.mlp.c_fc",
        "layers.{i}.channel.down": "model.layers.{i}.mlp.c_proj",
    }
)


@family("starcoder2")
def starcoder2(c: Config) -> ModelSpec:
    """StarCoder2 (Lozhkov et al. 2024): LayerNorm, biases, an MLP without a gate, a sliding window on all layers."""
    c.where_missing(num_key_value_heads=2)
    for key, value in (("mlp_type", "default"), ("norm_type", "layer_norm")):
        c.only(key, [value], value)
    for key in ("residual_dropout", "embedding_dropout"):
        c.get(key)
    bias, window = c.flag("use_bias", True), c.get("sliding_window")
    mixer = attention(c, bias=bias, out_bias=bias)
    if window is not None:
        mixer = replace(mixer, window=c.integer("sliding_window"))
    channel = mlp(c, bias=bias, gated=False, expected="gelu_pytorch_tanh")
    layer = Layer(mixer, channel, norm=layer_norm(c, "norm_epsilon"))
    return model(c, [layer] * c.integer("num_hidden_layers"), tied=True, table=_NAMES)
