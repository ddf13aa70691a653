"""Qwen 2, 2.5 and 3, dense, and MiMo."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Attention, Layer, ModelSpec, QKNorm

_MISSING = {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}


@family("qwen2")
def qwen2(c: Config) -> ModelSpec:
    """Qwen2 and Qwen2.5: Llama with biases on q, k and v."""
    return _qwen2(c)


@family("mimo")
def mimo(c: Config) -> ModelSpec:
    """MiMo (Xiaomi, arXiv 2505.07608): Qwen2; its layers that predict further tokens are left out."""
    c.get("num_nextn_predict_layers")
    c.only("attention_bias", [True], True)
    return _qwen2(c, ignored=(r"model\.mtp_layers\..*",))


@family("qwen3")
def qwen3(c: Config) -> ModelSpec:
    """Qwen3: no biases, RMSNorm on each head of q and k."""
    c.where_missing(**_MISSING, head_dim=128)
    bias = c.flag("attention_bias")
    mixer = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(rms_norm(c)))
    return model(c, _layers(c, mixer))


def _qwen2(c: Config, ignored: tuple[str, ...] = ()) -> ModelSpec:
    c.where_missing(**_MISSING)
    c.only("use_mrope", [False], False)
    return model(c, _layers(c, attention(c, bias=True)), ignored=ignored)


def _layers(c: Config, mixer: Attention) -> list[Layer]:
    count = c.integer("num_hidden_layers")
    on = c.flag("use_sliding_window")
    window = c.get("sliding_window") if on else None
    first = c.integer("max_window_layers", count, low=0)
    default = ["sliding_attention" if window and i >= first else "full_attention" for i in range(count)]
    kinds = layer_kinds(c, default)
    c.get("sliding_window")  # stays in the file where the switch is off
    if "sliding_attention" in kinds and window is None:
        raise c.unsupported("use_sliding_window", on, "true, since layer_types has 'sliding_attention'")
    sliding = replace(mixer, window=c.integer("sliding_window")) if window is not None else mixer
    channel, norm = mlp(c), rms_norm(c)
    return [Layer(sliding if kind == "sliding_attention" else mixer, channel, norm=norm) for kind in kinds]
