"""Nemotron-H and Nemotron 3."""

from dataclasses import fields, replace

from macllm.families.blocks import attention, mlp, model
from macllm.families.config import Config
from macllm.families.mamba import head_groups, mamba_names, read_harmless, step_limits
from macllm.families.names import Table, either, renamed
from macllm.families.registry import family
from macllm.spec import MLP, LatentMoE, Layer, Mamba2, ModelSpec, MoE, Norm
from macllm.spec.names import Entry, Stack

_MIXER = "backbone.layers.{i}.mixer."
_CHANNEL = "layers.{i}.channel."
_NAMES = renamed(
    {
        "embed": "backbone.embeddings",
        "norm": "backbone.norm_f",
        # a layer is one block, and has one norm
        "layers.{i}.mixer_norm": "backbone.layers.{i}.norm",
        "layers.{i}.channel_norm": "backbone.layers.{i}.norm",
        **{f"layers.{{i}}.mixer.{name}": f"{_MIXER}{name}_proj" for name in "qkvo"},
        **{f"{_CHANNEL}{name}": f"{_MIXER}{name}_proj" for name in ("up", "down")},
        **{f"{_CHANNEL}shared.{name}": f"{_MIXER}shared_experts.{name}_proj" for name in ("up", "down")},
        f"{_CHANNEL}router": f"{_MIXER}gate",
        f"{_CHANNEL}correction": f"{_MIXER}gate.e_score_correction_bias",
        f"{_CHANNEL}latent_down": f"{_MIXER}fc1_latent_proj",
        f"{_CHANNEL}latent_up": f"{_MIXER}fc2_latent_proj",
    }
)
_KINDS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
_OLDER_KINDS = {"mamba": "linear_attention", "attention": "full_attention"}
# The older names of keys.
_OLDER_KEYS = {
    "n_groups": "mamba_n_groups",
    "conv_kernel": "mamba_d_conv",
    "time_step_limit": "mamba_dt_limit",
    "use_conv_bias": "mamba_conv_bias",
}
_HARMLESS = """
    output_router_logits expand mamba_expand mamba_dt_min mamba_dt_max mamba_dt_init_floor mamba_ssm_cache_dtype
    moe_shared_expert_overlap rope_theta partial_rotary_factor num_nextn_predict_layers mtp_hybrid_override_pattern
    mtp_layers_block_type time_step_rank norm_eps
""".split()
# What stays in the file of a model without experts.
_EXPERT_KEYS = """
    n_routed_experts n_shared_experts num_experts_per_tok moe_intermediate_size moe_shared_expert_intermediate_size
    moe_latent_size norm_topk_prob routed_scaling_factor n_group topk_group
""".split()


@family("nemotron_h")
def nemotron_h(c: Config) -> ModelSpec:
    """Nemotron-H (arXiv 2504.03624) and Nemotron 3: each layer is Mamba 2, attention, feed-forward or experts."""
    c.where_missing(num_key_value_heads=8, head_dim=c.get("attention_head_dim", 128), mlp_hidden_act="relu2")
    c.also_named(**_OLDER_KEYS)
    # rms_norm_eps stands in real configs beside the epsilon that the original reads
    for key in (*_HARMLESS, *_EXPERT_KEYS, "rms_norm_eps"):
        c.get(key)
    read_harmless(c)
    c.only("attention_bias", [False], False)
    norm = Norm("rms", c.number("layer_norm_epsilon", 1e-5))
    recurrent = _mamba2(c, norm)
    blocks = {
        "linear_attention": Layer(recurrent, None, norm=norm),
        "full_attention": Layer(attention(c, rope=None), None, norm=norm),
    }
    kinds = _kinds(c)
    hidden, bias = c.integer("intermediate_size", 21504), c.flag("mlp_bias")
    dense = mlp(c, bias=bias, gated=False, activation_key="mlp_hidden_act", expected="relu2", hidden=hidden)
    blocks["mlp"] = Layer(None, dense, norm=norm)
    if "moe" in kinds:
        blocks["moe"] = Layer(None, _experts(c, dense), norm=norm)
    return model(
        c,
        [blocks[kind] for kind in kinds],
        norm=norm,
        table=_NAMES | _expert_names() | mamba_names(_MIXER, recurrent),
        ignored=(r"mtp\..*",),
    )


def _mamba2(c: Config, norm: Norm) -> Mamba2:
    """The mixer. What transformers makes of ``time_step_min``, a floor under time steps, none of the kernels that
    these models were trained with does, nor its own single steps: ``time_step_limit`` is what counts.
    """
    c.only("mamba_hidden_act", ["silu"], "silu")
    bias = c.flag("use_bias")
    c.only("mamba_proj_bias", [bias], bias)
    heads = c.integer("mamba_num_heads", 128)
    shortest, longest = step_limits(c)
    return Mamba2(
        c.integer("hidden_size"),
        heads,
        c.integer("mamba_head_dim", 64),
        head_groups(c, "n_groups", 8, heads),
        c.integer("ssm_state_size", 128),
        c.integer("conv_kernel", 4),
        norm,
        bias=bias,
        out_bias=bias,
        conv_bias=c.flag("use_conv_bias", True),
        shortest_step=shortest,
        longest_step=longest,
    )


def _experts(c: Config, dense: MLP) -> MoE:
    """DeepSeek V3's router, experts that are not gated, and one that every token goes through."""
    experts, top_k = c.integer("n_routed_experts", 8), c.integer("num_experts_per_tok", 2)
    if top_k > experts:
        raise c.unsupported("num_experts_per_tok", top_k, f"at most n_routed_experts={experts}")
    c.only("n_shared_experts", [1], 1)
    sparse = MoE(
        dense.dim,
        c.integer("moe_intermediate_size", 7688),
        experts,
        top_k,
        dense.activation,
        gated=False,
        score="sigmoid",
        renormalize=c.flag("norm_topk_prob", True),
        weight_scale=c.number("routed_scaling_factor", 1.0),
        correction=True,
        groups=c.integer("n_group", 1),
        top_groups=c.integer("topk_group", 1),
        group_score="best_two",
        shared=replace(dense, hidden=c.integer("moe_shared_expert_intermediate_size", 7688)),
    )
    if c.get("moe_latent_size") is None:
        return sparse
    narrow = {field.name: getattr(sparse, field.name) for field in fields(sparse)}
    return LatentMoE(**narrow, latent=c.integer("moe_latent_size"), latent_bias=dense.bias)


def _expert_names() -> Table:
    """One by one on the hub; stacked, and by other words, as MLX's tools keep them."""
    keys = {"up": f"{_CHANNEL}experts.up", "down": f"{_CHANNEL}experts.down"}
    apart: Table = {
        key: (Entry(f"{_MIXER}experts.{{e}}.{name}_proj", (Stack(),)),) for name, key in keys.items()
    }
    stacked = {keys["up"]: f"{_MIXER}switch_mlp.fc1", keys["down"]: f"{_MIXER}switch_mlp.fc2"}
    return either(apart, renamed(stacked))


def _kinds(c: Config) -> list[str]:
    """What each layer is: a letter each, or a word."""
    words = c.get("layers_block_type", c.get("layer_types"))
    letters = c.get("hybrid_override_pattern", "ME*-")
    key, known = "layers_block_type", {**_OLDER_KINDS, **{kind: kind for kind in _KINDS.values()}}
    if words is None:
        key, known, words = "hybrid_override_pattern", _KINDS, letters
    if not isinstance(words, list | str) or not words:
        raise c.unsupported(key, words, "an entry for each layer")
    for word in words:
        if word not in known:
            raise c.unsupported(key, word, " or ".join(map(repr, known)))
    c.only("num_hidden_layers", [len(words)], len(words))
    return [known[word] for word in words]
