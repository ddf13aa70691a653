"""DeepSeek V2 and V3 (and R1)."""

from dataclasses import replace

from macllm.families.blocks import mlp, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.names import either, renamed
from macllm.families.registry import family
from macllm.spec import LatentAttention, Layer, ModelSpec, Norm, YarnScaling
from macllm.spec.names import Entry, LatentHeads

_LAYER = "model.layers.{i}."
_ATTENTION = renamed(
    {
        "layers.{i}.mixer.q_down": f"{_LAYER}self_attn.q_a_proj",
        "layers.{i}.mixer.q_norm": f"{_LAYER}self_attn.q_a_layernorm",
        "layers.{i}.mixer.q_up": f"{_LAYER}self_attn.q_b_proj",
        "layers.{i}.mixer.kv_down": f"{_LAYER}self_attn.kv_a_proj_with_mqa",
        "layers.{i}.mixer.kv_norm": f"{_LAYER}self_attn.kv_a_layernorm",
        **{
            f"layers.{{i}}.channel.shared.{name}": f"{_LAYER}mlp.shared_experts.{name}_proj"
            for name in ("gate", "up", "down")
        },
    }
)


@family("deepseek_v3")
def deepseek_v3(c: Config) -> ModelSpec:
    """DeepSeek V3 (arXiv 2412.19437): latent attention, experts chosen by sigmoid within groups."""
    c.only("scoring_func", ["sigmoid"], "sigmoid")
    c.only("topk_method", ["noaux_tc"], "noaux_tc")
    c.only("moe_layer_freq", [1], 1)
    for key in ("ep_size", "num_nextn_predict_layers", "aux_loss_alpha", "seq_aux", "pretraining_tp"):
        c.get(key)  # training, and layers that predict further tokens, which are not part of the model proper
    mixer = latent_attention(c)
    hidden = c.integer("moe_intermediate_size")
    channel = replace(
        moe(c, experts_key="n_routed_experts", score="sigmoid", correction=True),
        renormalize=c.flag("norm_topk_prob", True),
        weight_scale=c.number("routed_scaling_factor", 2.5),
        groups=c.integer("n_group", 8),
        top_groups=c.integer("topk_group", 4),
        group_score="best_two",
        shared=mlp(c, hidden=hidden * c.integer("n_shared_experts", 1)),
    )
    dense, first = mlp(c), c.integer("first_k_dense_replace", 3, low=0)
    layers = [
        Layer(mixer, dense if index < first else channel, norm=rms_norm(c))
        for index in range(c.integer("num_hidden_layers"))
    ]
    return model(
        c, layers, table=_ATTENTION | key_value_names(mixer), ignored=(rf"model\.layers\.{len(layers)}\..*",)
    )


def latent_attention(c: Config) -> LatentAttention:
    """Latent attention by DeepSeek's keys."""
    rope_dim, nope_dim = c.integer("qk_rope_head_dim", 64), c.integer("qk_nope_head_dim", 128)
    c.get("num_key_value_heads")
    c.get("head_dim")
    c.get("qk_head_dim")
    interleaved = c.flag("rope_interleave", True)
    rope = c.rope(rope_dim, base=c.number("rope_theta", 10_000.0), interleaved=interleaved)
    scale = (nope_dim + rope_dim) ** -0.5
    if isinstance(rope.scaling, YarnScaling):
        scale *= rope.scaling.score_factor
    q_rank = c.get("q_lora_rank")
    return LatentAttention(
        c.integer("hidden_size"),
        c.integer("num_attention_heads"),
        c.integer("q_lora_rank") if q_rank is not None else None,
        c.integer("kv_lora_rank", 512),
        nope_dim,
        rope_dim,
        c.integer("v_head_dim", 128),
        scale,
        rope,
        Norm("rms", 1e-6),
        c.flag("attention_bias"),
    )


def key_value_names(mixer: LatentAttention) -> dict[str, tuple[Entry, ...]]:
    """Keys and values of all heads, stored as one matrix on the hub, as two stacks by MLX's tools."""
    keys = ("layers.{i}.mixer.k_up", "layers.{i}.mixer.v_up")
    whole = Entry(f"{_LAYER}self_attn.kv_b_proj", (LatentHeads(mixer.heads, mixer.nope_dim),), "hub", keys)
    apart = renamed({keys[0]: f"{_LAYER}self_attn.embed_q", keys[1]: f"{_LAYER}self_attn.unembed_out"}, "mlx")
    return either(dict.fromkeys(keys, (whole,)), apart)
