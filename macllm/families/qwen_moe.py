"""Qwen 1.5, 2 and 3 with experts."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Attention, Channel, Layer, ModelSpec, MoE, QKNorm


@family("qwen2_moe")
def qwen2_moe(c: Config) -> ModelSpec:
    """Qwen1.5-MoE and Qwen2-MoE: Qwen2 with experts, and one that every token goes through by a gate of its own."""
    c.where_missing(num_key_value_heads=16, sliding_window=4096)
    mixer = attention(c, bias=c.flag("qkv_bias", True))
    count, on = c.integer("num_hidden_layers"), c.flag("use_sliding_window")
    first_full = c.integer("max_window_layers", 28, low=0)
    kinds = layer_kinds(
        c,
        [
            "sliding_attention" if on and i % 2 == 0 and i < first_full else "full_attention"
            for i in range(count)
        ],
    )
    channel = replace(
        _experts(c),
        shared=mlp(c, hidden=c.integer("shared_expert_intermediate_size", 5632)),
        shared_gated=True,
    )
    sliding = _sliding(c, mixer, on)
    if sliding is None and "sliding_attention" in kinds:
        raise c.unsupported("use_sliding_window", on, "true, since layer_types has 'sliding_attention'")
    mixers = [sliding if kind == "sliding_attention" and sliding is not None else mixer for kind in kinds]
    return _model(c, mixers, channel)


@family("qwen3_moe")
def qwen3_moe(c: Config) -> ModelSpec:
    """Qwen3 with experts: norms on q and k; one window for all layers where the config sets one."""
    c.where_missing(num_key_value_heads=4, sliding_window=4096)
    c.get("max_window_layers")  # without effect here
    bias = c.flag("attention_bias")
    mixer = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(rms_norm(c)))
    sliding = _sliding(c, mixer, c.flag("use_sliding_window"))
    return _model(c, [sliding or mixer] * c.integer("num_hidden_layers"), _experts(c))


def _experts(c: Config) -> MoE:
    return moe(c, renormalize=c.flag("norm_topk_prob"))


def _sliding(c: Config, mixer: Attention, on: bool) -> Attention | None:
    """The mixer with the config's window; None where it is switched off (the number stays in the file)."""
    set_ = c.get("sliding_window") is not None and on
    return replace(mixer, window=c.integer("sliding_window")) if set_ else None


def _model(c: Config, mixers: list[Attention], experts: MoE) -> ModelSpec:
    """Experts in every ``decoder_sparse_step``-th layer that ``mlp_only_layers`` does not name."""
    dense = c.get("mlp_only_layers", [])
    if not isinstance(dense, list):
        raise c.unsupported("mlp_only_layers", dense, "a list of layers by number")
    step = c.integer("decoder_sparse_step", 1)
    plain, norm = mlp(c), rms_norm(c)

    def channel(index: int) -> Channel:
        return experts if index not in dense and (index + 1) % step == 0 else plain

    return model(c, [Layer(mixer, channel(index), norm=norm) for index, mixer in enumerate(mixers)])
