"""Gemma 4, text."""

from dataclasses import replace

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.custom.side import ExpertsBeside, SideInputs, SideLayer
from macllm.families.gemma import kinds_of_layers
from macllm.families.gemma3n import SIDE_NAMES, shared_keys, without_keys
from macllm.families.names import either, fused, renamed
from macllm.families.registry import family
from macllm.spec import MLP, Attention, ModelSpec, Norm, QKNorm

_LAYER = "model.layers.{i}."
_CHANNEL = "layers.{i}.channel."
_EXPERTS = {f"{_CHANNEL}experts.{name}.weight": name for name in ("gate", "up", "down")}
_NAMES = (
    SIDE_NAMES
    | renamed(
        {
            "layers.{i}.scalar": f"{_LAYER}layer_scalar",
            f"{_CHANNEL}router": f"{_LAYER}router.proj",
            f"{_CHANNEL}router_norm.weight": f"{_LAYER}router.scale",
            f"{_CHANNEL}expert_scale": f"{_LAYER}router.per_expert_scale",
            f"{_CHANNEL}experts_norm": f"{_LAYER}pre_feedforward_layernorm_2",
            f"{_CHANNEL}experts_post_norm": f"{_LAYER}post_feedforward_layernorm_2",
            f"{_CHANNEL}shared_norm": f"{_LAYER}pre_feedforward_layernorm",
            f"{_CHANNEL}shared_post_norm": f"{_LAYER}post_feedforward_layernorm_1",
            **{f"{_CHANNEL}shared.{name}": f"{_LAYER}mlp.{name}_proj" for name in ("gate", "up", "down")},
        }
    )
    | either(
        fused(f"{_LAYER}experts.gate_up_proj", *list(_EXPERTS)[:2])
        | renamed({f"{_CHANNEL}experts.down.weight": f"{_LAYER}experts.down_proj"}),
        renamed({key: f"{_LAYER}experts.switch_glu.{name}_proj.weight" for key, name in _EXPERTS.items()}),
    )
)


@family("gemma4_text")
def gemma4_text(c: Config) -> ModelSpec:
    """Gemma 4 (text): wider heads in full layers, of which a quarter turns; layer inputs, shared keys or experts."""
    c.where_missing(
        head_dim=256,
        global_head_dim=512,
        num_key_value_heads=4,
        sliding_window=512,
        vocab_size_per_layer_input=262_144,
        hidden_size_per_layer_input=256,
        rope_parameters={
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    # between images, which are no text; "all" is an encoder
    c.only("use_bidirectional_attention", ["vision", None])
    norm, kinds = rms_norm(c), kinds_of_layers(c, every=6)
    kinds[-1] = "full_attention"  # whatever the config says of it
    mixers = _mixers(c, kinds, norm)
    side = c.integer("hidden_size_per_layer_input", 0, low=0) or None
    table_size = c.integer("vocab_size_per_layer_input")
    dense, wide = _channel(c, norm), _channel(c, norm, double=c.flag("use_double_wide_mlp"))
    layers = [
        SideLayer(mixer, dense if mixer.source is None else wide, "sandwich", norm, side=side, scaled=True)
        for mixer in mixers
    ]
    return model(
        c,
        layers,
        tied=True,
        embed_scale=c.integer("hidden_size") ** 0.5,
        logit_cap=c.number("final_logit_softcapping")
        if c.get("final_logit_softcapping") is not None
        else None,
        frame=SideInputs(table_size, len(layers), side, norm) if side is not None else None,
        table=_NAMES,
        ignored=without_keys(mixers),
        needs_bfloat16_range=True,
    )


def _mixers(c: Config, kinds: list[str], norm: Norm) -> list[Attention]:
    bias, keys_only = c.flag("attention_bias"), c.flag("attention_k_eq_v")
    base = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(norm), rope=None)
    base = replace(base, scale=1.0, value_norm=replace(norm, weight=False))
    window = c.integer("sliding_window")
    mixers = []
    for kind, (width, kv_heads) in zip(kinds, _heads(c, kinds, base, keys_only), strict=True):
        full = kind == "full_attention"
        if base.heads % kv_heads:
            raise c.unsupported("num_global_key_value_heads", kv_heads, f"a divisor of {base.heads}")
        mixers.append(
            replace(
                base,
                head_dim=width,
                kv_heads=kv_heads,
                rope=c.rope(width, base=1e6 if full else 1e4, kind=kind),
                window=None if full else window,
                values_are_keys=keys_only and full,
            )
        )
    return shared_keys(c, kinds, mixers)


def _heads(c: Config, kinds: list[str], base: Attention, keys_only: bool) -> list[tuple[int, int]]:
    """Width and number of each layer's key heads: as repositories say it for all full layers, or as transformers
    saves it for each (``per_layer_config``).
    """
    width = c.integer("global_head_dim", low=2)
    kv_heads = c.integer("num_global_key_value_heads", base.kv_heads) if keys_only else base.kv_heads
    if not c.mapping("per_layer_config"):
        return [
            (width, kv_heads) if kind == "full_attention" else (base.head_dim, base.kv_heads)
            for kind in kinds
        ]
    # by the layers' numbers, with as many digits as the last one has
    stated, digits = c.part("per_layer_config"), len(str(len(kinds) - 1))
    layers = [stated.part(f"{index:0{digits}}") for index in range(len(kinds))]
    return [
        (layer.integer("head_dim", base.head_dim, low=2), layer.integer("num_key_value_heads", base.kv_heads))
        for layer in layers
    ]


def _channel(c: Config, norm: Norm, *, double: bool = False) -> MLP | ExpertsBeside:
    """Feed-forward, twice as wide where ``double``, alone or beside experts."""
    dense = mlp(c, activation_key="hidden_activation", expected="gelu_pytorch_tanh")
    if double:
        dense = replace(dense, hidden=2 * dense.hidden)
    if not c.flag("enable_moe_block"):
        for key in ("num_experts", "top_k_experts", "moe_intermediate_size"):
            c.get(key)  # stay in the file
        return dense
    experts, top_k = c.integer("num_experts"), c.integer("top_k_experts")
    if top_k > experts:
        raise c.unsupported("top_k_experts", top_k, f"at most num_experts={experts}")
    return ExpertsBeside(
        dense.dim,
        c.integer("moe_intermediate_size"),
        experts,
        top_k,
        dense.activation,
        score="softmax_chosen",
        shared=dense,
        norm=norm,
    )
