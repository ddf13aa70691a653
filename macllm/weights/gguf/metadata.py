"""What a GGUF file has to say about a model: keys and tables of factors, from the spec alone."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from macllm.errors import ConfigError
from macllm.families import spec_from_config
from macllm.spec import MLP, Attention, Llama3Scaling, ModelSpec, MoE, Norm, Rope, TableScaling
from macllm.weights.gguf.config import hf_config
from macllm.weights.gguf.names import gguf_naming
from macllm.weights.gguf.registry import ARCHITECTURES, Metadata
from macllm.weights.gguf.rope import llama3_factors, rope_keys, rope_tensors
from macllm.weights.gguf.standard import SIGMOID, SOFTMAX, SOFTMAX_CHOSEN

_GATING = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "softmax_chosen": SOFTMAX_CHOSEN}
_FLOAT32 = 1e-6  # relative: what a number may lose on its way through the file


@dataclass(frozen=True)
class Description:
    """A model as GGUF states it: ``keys`` in full, and tensors of ``factors`` beside those of the spec."""

    architecture: str
    keys: Metadata
    factors: Mapping[str, tuple[float, ...]]


def describe(spec: ModelSpec, where: str = "the model") -> Description:
    """What a file of the model states. Raises ConfigError where GGUF has no words for it.

    It is read back and compared, so that nothing is lost: a model that the keys cannot tell from another is refused.
    """
    name = architecture_of(spec, where)
    architecture = ARCHITECTURES[name]
    spec = architecture.stated(spec)
    keys = architecture.write(spec, _general(spec))
    stated = {"general.architecture": name} | {f"{name}.{key}": value for key, value in keys.items()}
    found = Description(name, stated, _factors(spec))
    lost = _lost(spec, found)
    if lost is not None:
        raise ConfigError(
            f"{where}: a GGUF file of architecture {name!r} has no way to say {lost}; keep the model as safetensors"
        )
    return found


def architecture_of(spec: ModelSpec, where: str = "the model") -> str:
    """``general.architecture`` of a model's file. Raises ConfigError where llama.cpp does not know the family."""
    for architecture in ARCHITECTURES.values():
        if spec.family in architecture.families and architecture.fits(spec):
            return architecture.name
    raise ConfigError(
        f"{where}: GGUF has no architecture for family {spec.family!r}; keep the model as safetensors"
    )


def _general(spec: ModelSpec) -> Metadata:
    """The keys of all architectures, without their prefix."""
    keys: Metadata = {
        "block_count": len(spec.layers),
        "context_length": spec.max_context,
        "embedding_length": spec.dim,
        "vocab_size": spec.vocab,
    }
    keys |= _norm_keys(spec.norm) | _attention_keys(spec) | _channel_keys(spec)
    scales = {
        "embedding_scale": spec.embed_scale,
        "logit_scale": spec.logit_scale,
        "final_logit_softcapping": spec.logit_cap,
        "residual_scale": _one(layer.residual_scale for layer in spec.layers),
    }
    return keys | {key: value for key, value in scales.items() if value not in (None, 1.0)}


def _norm_keys(norm: Norm) -> Metadata:
    kind = "layer_norm_rms_epsilon" if norm.kind == "rms" else "layer_norm_epsilon"
    return {f"attention.{kind}": norm.eps}


def _attention_keys(spec: ModelSpec) -> Metadata:
    mixers = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, Attention)]
    if not mixers:
        return {}
    first = mixers[0]
    counts = [layer.mixer.kv_heads if isinstance(layer.mixer, Attention) else 0 for layer in spec.layers]
    keys: Metadata = {
        "attention.head_count": _one(mixer.heads for mixer in mixers),
        "attention.head_count_kv": counts[0] if len(set(counts)) == 1 else counts,
        "attention.key_length": first.head_dim,
        "attention.value_length": first.head_dim,
    }
    if not math.isclose(first.scale, first.head_dim**-0.5):
        keys["attention.scale"] = first.scale
    if first.softcap is not None:
        keys["attn_logit_softcapping"] = first.softcap
    if first.clip is not None:
        keys["attention.clamp_kqv"] = first.clip
    return keys | _window_keys(mixers) | _rope_of(mixers)


def _window_keys(mixers: list[Attention]) -> Metadata:
    windows = [mixer.window for mixer in mixers]
    if not any(windows):
        return {}
    return {
        "attention.sliding_window": next(window for window in windows if window),
        "attention.sliding_window_pattern": [window is not None for window in windows],
    }


def _rope_of(mixers: list[Attention]) -> Metadata:
    """Of the layers that see everything, and the base of the others where it is another."""
    full = _first_rope(mixer for mixer in mixers if mixer.window is None) or _first_rope(mixers)
    if full is None:
        return {}
    keys = rope_keys(full)
    sliding = _first_rope(mixer for mixer in mixers if mixer.window is not None)
    if sliding is not None and sliding.base != full.base:
        keys["rope.freq_base_swa"] = sliding.base
    return keys


def _first_rope(mixers: Iterable[Attention]) -> Rope | None:
    return next((mixer.rope for mixer in mixers if mixer.rope is not None), None)


def _factors(spec: ModelSpec) -> Mapping[str, tuple[float, ...]]:
    ropes = (getattr(layer.mixer, "rope", None) for layer in spec.layers)
    found: dict[str, tuple[float, ...]] = {}
    for rope in dict.fromkeys(ropes):
        found |= rope_tensors(rope) if rope is not None else {}
    return found


def _channel_keys(spec: ModelSpec) -> Metadata:
    channels = [layer.channel for layer in spec.layers]
    dense = [channel.hidden for channel in channels if isinstance(channel, MLP)]
    moes = [channel for channel in channels if isinstance(channel, MoE)]
    widths = set(dense) or {moe.hidden for moe in moes}
    keys: Metadata = {"feed_forward_length": widths.pop() if len(widths) == 1 else dense}
    return keys | (_expert_keys(moes[0]) if moes else {}) | _leading(channels if dense and moes else [])


def _leading(channels: list[Any]) -> Metadata:
    """How many layers at the start have no experts, in models that have both kinds."""
    kinds = [isinstance(channel, MoE) for channel in channels]
    return {"leading_dense_block_count": kinds.index(True)} if kinds else {}


def _expert_keys(moe: MoE) -> Metadata:
    keys: Metadata = {
        "expert_count": moe.experts,
        "expert_used_count": moe.top_k,
        "expert_feed_forward_length": moe.hidden,
        "expert_gating_func": _GATING[moe.score],
        "expert_weights_norm": moe.renormalize,
    }
    if moe.weight_scale != 1.0:
        keys["expert_weights_scale"] = moe.weight_scale
    if moe.groups > 1:
        keys |= {"expert_group_count": moe.groups, "expert_group_used_count": moe.top_groups}
    if moe.shared is not None:
        keys["expert_shared_feed_forward_length"] = moe.shared.hidden
    return keys


def _one(values: Iterable[Any]) -> Any:
    """The value that all share; where they do not the first, and what is read back tells the difference."""
    return next(iter(values))


@dataclass(frozen=True)
class _Stated:
    """A tensor that a file would hold."""

    shape: tuple[int, ...]
    values: tuple[float, ...] = ()
    type_name: str = "F32"

    def data(self) -> npt.NDArray[np.uint8]:
        return np.array(self.values, "<f4").view(np.uint8)


def _lost(spec: ModelSpec, found: Description) -> str | None:
    """What a reader of the file would not know; None: nothing."""
    try:
        return _difference(spec, _read_back(spec, found))
    except ConfigError as error:  # a key that the architecture does not have
        return str(error).removeprefix("what was written: ").partition(" is not supported")[0]


def _read_back(spec: ModelSpec, found: Description) -> ModelSpec:
    tensors = {
        name: _Stated(shape)
        for relation in gguf_naming(spec, found.architecture).relations()
        for name, shape in zip(relation.stored, relation.stored_shapes(), strict=True)
    }
    tensors |= {name: _Stated((len(values),), values) for name, values in found.factors.items()}
    keys = {key: np.array(value) if isinstance(value, list) else value for key, value in found.keys.items()}
    return spec_from_config(hf_config(keys, tensors, "what was written"), "what was written")


def _difference(a: Any, b: Any, at: str = "") -> str | None:
    """The first place where two specs differ in what is computed; None: nowhere."""
    if isinstance(a, Rope) and isinstance(b, Rope):
        a, b = _by_factors(a), _by_factors(b)
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        names = [field.name for field in dataclasses.fields(a) if field.name not in ("family", "names")]
        pairs = [(getattr(a, name), getattr(b, name), f"{at}.{name}".strip(".")) for name in names]
        return next(filter(None, (_difference(*pair) for pair in pairs)), None)
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return next(filter(None, (_difference(x, y, at) for x, y in zip(a, b, strict=True))), None)
    if isinstance(a, float) and isinstance(b, float):
        return None if math.isclose(a, b, rel_tol=_FLOAT32) else f"{at}={a!r}"
    return None if a == b else f"{at}={a!r}"


def _by_factors(rope: Rope) -> Rope:
    """With the scaling that is stored as a table as that table."""
    if not isinstance(rope.scaling, Llama3Scaling):
        return rope
    factors = llama3_factors(rope.scaling, rope.dims, rope.base)
    return dataclasses.replace(rope, scaling=TableScaling(tuple(factors.tolist())))
