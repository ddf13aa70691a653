"""The blocks of a spec in words: what each is called, and what is particular to it."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from macllm.families.custom.altup import AltUpLayer
from macllm.families.custom.side import ExpertsBeside, SideLayer, SparseMLP
from macllm.spec import (
    MLP,
    Attention,
    ChannelMix,
    GatedDelta,
    InputScaledMoE,
    LatentAttention,
    LatentMoE,
    Layer,
    LinearScaling,
    Llama3Scaling,
    Mamba,
    Mamba2,
    ModelSpec,
    MoE,
    ParallelMixers,
    Rope,
    ShortConv,
    SparseMixer,
    State,
    TimeMix,
    YarnScaling,
)

Words: TypeAlias = Callable[[Any], Iterable[str]]


def block_name(block: Any) -> str:
    """What the kind of block is called."""
    if isinstance(block, ParallelMixers):
        return " + ".join(block_name(mixer) for _, mixer in block.mixers)
    return _BLOCKS[type(block)][0]


def block_words(block: Any) -> str:
    """Its widths, its reach and what is unusual about it."""
    return ", ".join(_BLOCKS[type(block)][1](block))


def block_names(spec: ModelSpec) -> list[str]:
    """The kinds of blocks that a model is made of, in order of first use."""
    blocks = (block for layer in spec.layers for block in (layer.mixer, layer.channel) if block is not None)
    return list(dict.fromkeys(name for block in blocks for name in block_name(block).split(" + ")))


def layer_label(layer: Layer) -> str:
    """A short name for a kind of layer: what its mixer is or how far it sees, and experts where it has them."""
    mixer, channel = layer.mixer, layer.channel
    if isinstance(mixer, Attention):
        reach = "full"
        if mixer.window is not None:
            reach = f"sliding {mixer.window:,}"
        elif mixer.chunk is not None:
            reach = f"chunks of {mixer.chunk:,}"
        name = reach
    elif mixer is not None:
        name = block_name(mixer)
    else:
        return block_name(channel)
    return f"{name}, experts" if isinstance(channel, MoE) else name


def beside_words(layer: Layer) -> Iterable[tuple[str, str]]:
    """What a layer has beside mixer and channel block: name and words."""
    if isinstance(layer, SideLayer) and layer.side is not None:
        yield "layer input ─ norm", f"{layer.side} values a token, gelu-gated"
    if isinstance(layer, AltUpLayer):
        yield "altup", f"{layer.streams} states a token, one computed, beside it a rank of {layer.laurel}"


def rope_words(rope: Rope) -> str:
    """Base and scaling."""
    match rope.scaling:
        case LinearScaling(factor):
            scaling = f" stretched {factor:g} times"
        case Llama3Scaling(factor):
            scaling = f" stretched {factor:g} times (llama3)"
        case YarnScaling(factor):
            scaling = f" stretched {factor:g} times (yarn)"
        case None:
            scaling = ""
        case _:
            scaling = f" stretched ({type(rope.scaling).__name__.removesuffix('Scaling').lower()})"
    return f"rope {rope.base:,.0f}{scaling}"


def _attention(mixer: Attention) -> Iterable[str]:
    heads = f"{mixer.heads} heads of {mixer.head_dim}"
    if mixer.kv_heads != mixer.heads:
        heads += f" on {mixer.kv_heads} kv {'head' if mixer.kv_heads == 1 else 'heads'}"
    yield heads
    if mixer.window is not None:
        yield f"the last {mixer.window:,} tokens"
    elif mixer.chunk is not None:
        yield f"the last block of {mixer.chunk:,} tokens"
    else:
        yield "all tokens"
    if mixer.rope is not None:
        yield rope_words(mixer.rope)
        if mixer.rope.dims < mixer.head_dim:
            yield f"{mixer.rope.dims / mixer.head_dim:.0%} of a head turn"
    elif mixer.slopes is not None:
        yield "ALiBi"
    else:
        yield "no positions"
    if mixer.source is not None:
        yield f"keys and values of layer {mixer.source}"
    elif mixer.values_are_keys:
        yield "keys for values"
    if mixer.qk_norm is not None:
        yield "norms on q and k"
    if mixer.value_norm is not None and mixer.source is None:
        yield "a norm on v"
    if mixer.bias:
        yield "biases on q, k, v and o" if mixer.out_bias else "biases on q, k and v"
    yield from (
        word
        for word, present in {
            "gated": mixer.gated,
            "sinks": mixer.sinks,
            f"scores capped at {mixer.softcap or 0:g}": mixer.softcap is not None,
            f"q, k and v clipped at {mixer.clip or 0:g}": mixer.clip is not None,
            "norm before o": mixer.out_norm is not None,
        }.items()
        if present
    )


def _latent(mixer: LatentAttention) -> Iterable[str]:
    yield f"{mixer.heads} heads of {mixer.nope_dim} + {mixer.rope_dim}"
    yield f"keys and values in {mixer.kv_rank} + {mixer.rope_dim} values a token"
    if mixer.q_rank is not None:
        yield f"queries through {mixer.q_rank:,}"
    yield "all tokens"
    yield rope_words(mixer.rope)


def _mamba(mixer: Mamba) -> Iterable[str]:
    yield f"{mixer.inner:,} channels with {mixer.state} values each"
    yield f"convolution over {mixer.kernel} tokens"
    yield _state(mixer)


def _mamba2(mixer: Mamba2) -> Iterable[str]:
    yield f"{mixer.heads} heads of {mixer.head_dim} with {mixer.state} values each"
    if mixer.groups > 1:
        yield f"{mixer.groups} groups"
    yield f"convolution over {mixer.kernel} tokens"
    yield _state(mixer)


def _gated_delta(mixer: GatedDelta) -> Iterable[str]:
    yield f"{mixer.value_heads} heads of {mixer.value_dim} on {mixer.key_heads} of {mixer.key_dim}"
    yield f"convolution over {mixer.width} tokens"
    yield _state(mixer)


def _short_conv(mixer: ShortConv) -> Iterable[str]:
    yield f"the last {mixer.width} tokens"
    yield "gated"


def _parallel(block: ParallelMixers) -> Iterable[str]:
    for _, mixer in block.mixers:
        first, *rest = _BLOCKS[type(mixer)][1](mixer)
        yield f"{block_name(mixer)}: {first}"
        yield from rest


def _mlp(channel: MLP) -> Iterable[str]:
    yield f"{channel.dim:,} → {channel.hidden:,} → {channel.dim:,}"
    yield _activation(channel.activation, channel.gated)
    if channel.bias:
        yield "biases"
    if channel.down_norm is not None:
        yield "norm before down"


def _sparse_mlp(channel: SparseMLP) -> Iterable[str]:
    yield from _mlp(channel)
    if channel.sparsity:
        yield f"without the lowest {channel.sparsity:.0%} of gates"


def _moe(channel: MoE) -> Iterable[str]:
    yield f"{channel.top_k} of {channel.experts} experts"
    yield f"each {channel.dim:,} → {channel.hidden:,} → {channel.dim:,}"
    yield _activation(channel.activation, channel.gated)
    if channel.bias:
        yield "biases"
    yield f"by {channel.score.partition('_')[0]}"
    if channel.groups > channel.top_groups:
        yield f"from {channel.top_groups} of {channel.groups} groups"
    if channel.shared is not None:
        yield f"a shared one of {channel.shared.hidden:,}"


def _sparse_mixer(channel: SparseMixer) -> Iterable[str]:
    return [word if word != "by softmax" else "by SparseMixer" for word in _moe(channel)]


def _input_scaled(channel: InputScaledMoE) -> Iterable[str]:
    return (*_moe(channel), "weighed before")


def _latent_moe(channel: LatentMoE) -> Iterable[str]:
    first, *rest = _moe(channel)
    yield first
    yield f"in a space of {channel.latent:,}"
    yield from rest


def _time_mix(mixer: TimeMix) -> Iterable[str]:
    yield f"{mixer.heads} heads of {mixer.head_dim}"
    yield _state(mixer)


def _channel_mix(channel: ChannelMix) -> Iterable[str]:
    yield f"{channel.dim:,} → {channel.hidden:,} → {channel.dim:,}"
    yield "relu²"
    yield "the last 2 tokens"


def _activation(name: str, gated: bool) -> str:
    plain = {"gelu_tanh": "gelu", "clamped_swiglu": "clamped silu", "relu2": "relu²"}.get(name, name)
    return f"{plain}-gated" if gated else plain


def _state(mixer: Any) -> str:
    values = sum(cache.sums for cache in mixer.caches if isinstance(cache, State))
    return f"a state of {values:,} values"


_BLOCKS: dict[type, tuple[str, Words]] = {
    Attention: ("attention", _attention),
    LatentAttention: ("latent attention", _latent),
    Mamba: ("mamba", _mamba),
    Mamba2: ("mamba 2", _mamba2),
    ShortConv: ("short convolution", _short_conv),
    GatedDelta: ("gated delta", _gated_delta),
    TimeMix: ("time mix", _time_mix),
    ChannelMix: ("channel mix", _channel_mix),
    ParallelMixers: ("side by side", _parallel),
    MLP: ("mlp", _mlp),
    MoE: ("experts", _moe),
    SparseMLP: ("mlp", _sparse_mlp),
    ExpertsBeside: ("experts", _moe),
    LatentMoE: ("experts", _latent_moe),
    SparseMixer: ("experts", _sparse_mixer),
    InputScaledMoE: ("experts", _input_scaled),
}
