"""Gemma 3n, text."""

from dataclasses import replace

from macllm.families.blocks import attention, model, rms_norm
from macllm.families.config import Config
from macllm.families.custom.altup import AltUpLayer, Streams
from macllm.families.custom.side import SparseMLP
from macllm.families.gemma import kinds_of_layers, two_ropes
from macllm.families.names import Table, renamed, standard
from macllm.families.registry import family
from macllm.spec import MLP, Attention, ModelSpec, Norm, QKNorm

_LAYER = "model.layers.{i}."
_SIDE = {
    "frame.table": "model.embed_tokens_per_layer",
    "frame.project": "model.per_layer_model_projection",
    "frame.norm": "model.per_layer_projection_norm",
    "layers.{i}.side_gate": f"{_LAYER}per_layer_input_gate",
    "layers.{i}.side_out": f"{_LAYER}per_layer_projection",
    "layers.{i}.side_norm": f"{_LAYER}post_per_layer_input_norm",
}
SIDE_NAMES = standard("sandwich") | renamed(_SIDE)
_ALTUP = {
    "layers.{i}.router": "altup.modality_router",
    "layers.{i}.router_norm": "altup.router_norm",
    "layers.{i}.prediction": "altup.prediction_coefs.weight",
    "layers.{i}.correction": "altup.correction_coefs.weight",
    "layers.{i}.side_scale": "altup.correct_output_scale",
    "layers.{i}.laurel_down": "laurel.linear_left",
    "layers.{i}.laurel_up": "laurel.linear_right",
    "layers.{i}.laurel_norm": "laurel.post_laurel_norm",
}


@family("gemma3n_text")
def gemma3n_text(c: Config) -> ModelSpec:
    """Gemma 3n (text): AltUp, inputs of each layer's own, gates of which few pass, last layers without keys."""
    c.where_missing(
        head_dim=256,
        num_key_value_heads=2,
        sliding_window=512,
        final_logit_softcapping=30.0,
        vocab_size_per_layer_input=262_144,
        hidden_size_per_layer_input=256,
        num_kv_shared_layers=15,
    )
    c.get("altup_coef_clip")  # training only
    streams, norm = c.integer("altup_num_inputs", 4, low=2), rms_norm(c)
    kinds = kinds_of_layers(c, every=5)
    mixers, channels = _mixers(c, kinds, norm), _channels(c, len(kinds))
    side = c.integer("hidden_size_per_layer_input")
    active = c.integer("altup_active_idx", 0, low=0)
    if active >= streams:
        raise c.unsupported("altup_active_idx", active, f"below altup_num_inputs={streams}")
    laurel, scaled = c.integer("laurel_rank", 64), c.flag("altup_correct_scale", True)
    layers = [
        AltUpLayer(
            mixer,
            channel,
            "sandwich",
            norm,
            side=side,
            streams=streams,
            active=active,
            laurel=laurel,
            scaled_side=scaled,
        )
        for mixer, channel in zip(mixers, channels, strict=True)
    ]
    return model(
        c,
        layers,
        tied=True,
        embed_scale=c.integer("hidden_size") ** 0.5,
        logit_cap=c.number("final_logit_softcapping"),
        frame=Streams(c.integer("vocab_size_per_layer_input"), len(layers), side, norm, streams),
        table=SIDE_NAMES | _names(streams),
        idle=without_keys(mixers),
        needs_bfloat16_range=True,
    )


def shared_keys(c: Config, kinds: list[str], mixers: list[Attention]) -> list[Attention]:
    """The last ``num_kv_shared_layers`` see the keys and values of the last layer of their kind before them."""
    shared = c.integer("num_kv_shared_layers", 0, low=0)
    first = len(kinds) - shared
    if first < 1 or not set(kinds[first:]) <= set(kinds[:first]):
        raise c.unsupported(
            "num_kv_shared_layers", shared, "a layer of each kind before the layers that share"
        )
    source = {kind: index for index, kind in enumerate(kinds[:first])}
    return [
        mixer if index < first else replace(mixer, source=source[kind])
        for index, (kind, mixer) in enumerate(zip(kinds, mixers, strict=True))
    ]


def without_keys(mixers: list[Attention]) -> tuple[str, ...]:
    """Checkpoints hold projections of keys and values for the layers that have none too."""
    layers = "|".join(str(index) for index, mixer in enumerate(mixers) if mixer.source is not None)
    return (rf"model\.layers\.({layers})\.self_attn\.[kv]_(proj|norm)\..*",) if layers else ()


def _mixers(c: Config, kinds: list[str], norm: Norm) -> list[Attention]:
    bias = c.flag("attention_bias")
    base = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(norm), rope=None)
    base = replace(base, scale=1.0, value_norm=replace(norm, weight=False))
    sliding, full = two_ropes(c, base)
    mixers = [sliding if kind == "sliding_attention" else full for kind in kinds]
    return shared_keys(c, kinds, mixers)


def _channels(c: Config, count: int) -> list[MLP]:
    """Width and sparsity may be one for all layers, or one a layer."""
    c.only("hidden_activation", ["gelu_pytorch_tanh"], "gelu_pytorch_tanh")
    dim = c.integer("hidden_size")
    widths = _for_each(c, "intermediate_size", None, count)
    sparsities = _for_each(
        c, "activation_sparsity_pattern", [0.95] * 10 + [0.0] * (count - 10) if count > 10 else 0.0, count
    )
    channels = []
    for width, sparsity in zip(widths, sparsities, strict=True):
        if not isinstance(width, int) or width < 1:
            raise c.unsupported("intermediate_size", width, "a whole number of at least 1")
        if not 0 <= sparsity < 1:
            raise c.unsupported("activation_sparsity_pattern", sparsity, "a number from 0 to below 1")
        plain = MLP(dim, width, "gelu_tanh")
        channels.append(SparseMLP(dim, width, "gelu_tanh", sparsity=sparsity) if sparsity else plain)
    return channels


def _for_each(c: Config, key: str, default: object, count: int) -> list[float]:
    value = c.get(key, default)
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count or not all(isinstance(one, int | float) for one in values):
        raise c.unsupported(key, value, f"a number, or {count} of them, one a layer")
    return values


def _names(streams: int) -> Table:
    around = {}
    for index in range(streams - 1):
        around[f"frame.spread.{index}"] = f"model.altup_projections.{index}"
        around[f"frame.gather.{index}"] = f"model.altup_unembed_projections.{index}"
    return renamed(around) | renamed({key: f"{_LAYER}{name}" for key, name in _ALTUP.items()})
