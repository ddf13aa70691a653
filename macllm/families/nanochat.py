"""nanochat."""

from dataclasses import replace

from macllm.families.blocks import attention, mlp, model
from macllm.families.config import Config
from macllm.families.names import either, renamed
from macllm.families.registry import family
from macllm.spec import Attention, Layer, LinearScaling, ModelSpec, Norm, QKNorm

# as transformers names them, and as nanochat itself and mlx-lm
_HUB = {
    "embed": "model.embed_tokens",
    **{f"layers.{{i}}.mixer.{name}": f"model.layers.{{i}}.self_attn.{name}_proj" for name in "qkvo"},
    "layers.{i}.channel.up": "model.layers.{i}.mlp.fc1",
    "layers.{i}.channel.down": "model.layers.{i}.mlp.fc2",
}
_OWN = {
    "embed": "transformer.wte",
    "layers.{i}.channel.up": "transformer.h.{i}.mlp.c_fc",
    "layers.{i}.channel.down": "transformer.h.{i}.mlp.c_proj",
    "layers.{i}.mixer.o": "transformer.h.{i}.attn.c_proj",
    **{f"layers.{{i}}.mixer.{name}": f"transformer.h.{{i}}.attn.c_{name}" for name in "qkv"},
}


@family("nanochat")
def nanochat(c: Config) -> ModelSpec:
    """nanochat (Karpathy 2025): norms without weights, also of the embedding and of turned q and k; relu squared."""
    c.where_missing(final_logit_softcapping=15.0)
    norm = Norm("rms", c.number("rms_norm_eps", 1e-6), weight=False)
    bias, capped = c.flag("attention_bias"), c.get("final_logit_softcapping") is not None
    mixer = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(norm, after_rope=True))
    layer = Layer(_backwards(c, mixer), mlp(c, gated=False, expected="relu2"), norm=norm)
    return model(
        c,
        [layer] * c.integer("num_hidden_layers"),
        embed_norm=norm,
        logit_cap=c.number("final_logit_softcapping") if capped else None,
        table=either(renamed(_HUB), renamed(_OWN)),
    )


def _backwards(c: Config, mixer: Attention) -> Attention:
    """The attention whose rope turns the other way, as if positions ran backwards."""
    rope = mixer.rope
    if rope is None or rope.scaling is not None:
        raise c.unsupported("rope_scaling", rope and rope.scaling, "none")
    return replace(mixer, rope=replace(rope, scaling=LinearScaling(-1.0)))
