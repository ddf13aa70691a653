"""dots.llm1."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.deepseek import SHARED_NAMES, corrected_experts, dense_first
from macllm.families.names import experts
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QKNorm

_EXPERTS = "model.layers.{i}.mlp.experts."
_NAMES = SHARED_NAMES | experts(f"{_EXPERTS}{{e}}.{{name}}_proj", f"{_EXPERTS}{{name}}_proj")


@family("dots1")
def dots1(c: Config) -> ModelSpec:
    """dots.llm1 (arXiv 2506.05767): Qwen3's attention, DeepSeek V3's experts."""
    c.where_missing(sliding_window=4096)
    c.only("scoring_func", ["sigmoid", "noaux_tc"], "sigmoid")  # both words for the same
    c.only("topk_method", ["noaux_tc"], "noaux_tc")
    bias, norm, count = c.flag("attention_bias"), rms_norm(c), c.integer("num_hidden_layers")
    full = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(norm))
    first, window = c.integer("max_window_layers", 62, low=0), c.get("sliding_window")
    slides = [window is not None and i >= first for i in range(count)]
    kinds = layer_kinds(c, ["sliding_attention" if one else "full_attention" for one in slides])
    sliding = replace(full, window=c.integer("sliding_window")) if "sliding_attention" in kinds else full
    channels = dense_first(c, 0, mlp(c), corrected_experts(c, renormalize=False))
    layers = [
        Layer(sliding if kind == "sliding_attention" else full, channel, norm=norm)
        for kind, channel in zip(kinds, channels, strict=True)
    ]
    return model(c, layers, table=_NAMES)
