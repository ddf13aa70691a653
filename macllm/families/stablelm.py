"""StableLM and StableLM 2."""

from macllm.families.blocks import attention, layer_norm, mlp, model
from macllm.families.config import Config
from macllm.families.names import Table
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, Norm, NormPlacement, QKNorm
from macllm.spec.names import Entry, Stack

_NAMES: Table = {
    f"layers.{{i}}.mixer.{name}_norm": (
        Entry(f"model.layers.{{i}}.self_attn.{name}_layernorm.norms.{{e}}", (Stack(),)),
    )
    for name in "qk"
}


@family("stablelm")
def stablelm(c: Config) -> ModelSpec:
    """StableLM: LayerNorm, a quarter of each head turns; 12B: a norm for each head, attention and MLP side by side."""
    c.where_missing(num_key_value_heads=32)
    norm = layer_norm(c, "layer_norm_eps")
    qk_norm = QKNorm(Norm("layer", norm.eps), over="heads") if c.flag("qk_layernorm") else None
    mixer = attention(c, bias=c.flag("use_qkv_bias"), qk_norm=qk_norm, partial=0.25)
    placement: NormPlacement = "parallel" if c.flag("use_parallel_residual") else "pre"
    return model(c, [Layer(mixer, mlp(c), placement, norm)] * c.integer("num_hidden_layers"), table=_NAMES)
