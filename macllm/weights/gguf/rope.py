"""Rotary positions in GGUF: keys and tables of factors into Hugging Face's words, and back.

What the keys do not say: ``rope.scaling.factor`` without ``rope.scaling.type`` means linear scaling. Llama 3.1's
scaling has no key: each frequency is divided by a factor in the tensor ``rope_freqs.weight``. LongRoPE's two tables
are tensors too.
"""

import math
from typing import Any

import numpy as np

from macllm.spec import (
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    ProportionalScaling,
    Rope,
    TableScaling,
    YarnScaling,
)
from macllm.weights.gguf.header import Config, Header

FREQUENCIES = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
DEFAULT_BASE = 10_000.0
NEVER = 1e30  # what a frequency is divided by that does not turn
# Llama 3.1, 3.2 and 3.3 all have these; only the factor differs (8 or 32).
_LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_CONTEXT = 1.0, 4.0, 8192


def read_rope(h: Header, head_dim: int, context: int) -> Config:
    """``rope_theta``, and where the file has them ``partial_rotary_factor`` and ``rope_scaling``."""
    dims = h.integer("rope.dimension_count", head_dim)
    h.only("rope.dimension_count_swa", dims)
    base = h.number("rope.freq_base", DEFAULT_BASE)
    config: Config = {"rope_theta": base}
    if dims != head_dim:
        config["partial_rotary_factor"] = dims / head_dim
    scaling = _scaling(h, dims, base, context)
    return config | ({"rope_scaling": scaling} if scaling is not None else {})


def _scaling(h: Header, dims: int, base: float, context: int) -> Config | None:
    if LONG in h.tensors:
        return _longrope(h, dims, context)
    factor = h.number("rope.scaling.factor", h.number("rope.scale_linear", 1.0))
    kind = h.get("rope.scaling.type")
    if FREQUENCIES in h.tensors:
        if kind not in (None, "none") or factor != 1.0:
            raise h.wrong("rope.scaling.type", kind, f"none beside tensor {FREQUENCIES!r}")
        return _table(h, dims, base)
    if kind == "yarn":
        return _yarn(h, factor, context)
    if kind not in (None, "none", "linear"):
        raise h.wrong("rope.scaling.type", kind, "'none', 'linear' or 'yarn'")
    h.get("rope.scaling.original_context_length")  # linear scaling does not depend on it
    return None if kind == "none" or factor == 1.0 else {"rope_type": "linear", "factor": factor}


def _yarn(h: Header, factor: float, context: int) -> Config:
    for key in ("attn_factor", "yarn_ext_factor"):
        h.only(f"rope.scaling.{key}", 1.0)
    scaling = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": h.integer("rope.scaling.original_context_length", context),
    }
    names = {
        "yarn_attn_factor": "attention_factor",
        "yarn_beta_fast": "beta_fast",
        "yarn_beta_slow": "beta_slow",
    }
    for key, name in names.items():
        scaling |= h.optional(f"rope.scaling.{key}", name)
    return scaling


def _longrope(h: Header, dims: int, context: int) -> Config:
    h.only("rope.scaling.type", "longrope")
    h.only("rope.scaling.factor", 1.0)
    return {
        "rope_type": "longrope",
        "long_factor": h.factors(LONG, dims // 2),
        "short_factor": h.factors(SHORT, dims // 2),
        "original_max_position_embeddings": h.integer("rope.scaling.original_context_length", context),
    } | h.optional("rope.scaling.attn_factor", "attention_factor")


def _table(h: Header, dims: int, base: float) -> Config | None:
    """Llama 3.1's scaling where the stored factors are those it gives; else the factors themselves."""
    factors = h.factors(FREQUENCIES, dims // 2)
    assert factors is not None
    if set(factors) == {1.0}:
        return None
    scaling = Llama3Scaling(max(factors), _LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_CONTEXT)
    if np.allclose(factors, llama3_factors(scaling, dims, base), rtol=1e-4):
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_factor,
            "high_freq_factor": scaling.high_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    return {"rope_type": "table", "factors": factors}


def llama3_factors(scaling: Llama3Scaling, dims: int, base: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What Llama 3.1's scaling divides each frequency by."""
    wavelengths = 2 * math.pi * base ** (np.arange(0, dims, 2) / dims)
    turns = scaling.original_context / wavelengths
    ramp = (turns - scaling.low_factor) / (scaling.high_factor - scaling.low_factor)
    kept = np.clip(ramp, 0.0, 1.0)  # 1: a short wave, left alone; 0: a long one, divided by the factor
    return np.asarray(1 / ((1 - kept) / scaling.factor + kept))


def rope_keys(rope: Rope) -> dict[str, Any]:
    """The keys of a rotary embedding."""
    keys: dict[str, Any] = {"rope.dimension_count": rope.dims, "rope.freq_base": rope.base}
    match rope.scaling:
        case LinearScaling(factor):
            keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
        case YarnScaling():
            keys |= _yarn_keys(rope.scaling)
        case LongScaling(short, _, context):
            keys |= {
                "rope.scaling.type": "longrope",
                "rope.scaling.original_context_length": context,
                "rope.scaling.attn_factor": short.temperature,
            }
    return keys


def _yarn_keys(scaling: YarnScaling) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": scaling.factor,
        "rope.scaling.original_context_length": scaling.original_context,
    }
    optional = {
        "yarn_attn_factor": (scaling.attention_factor, None),
        "yarn_beta_fast": (scaling.beta_fast, YarnScaling.beta_fast),
        "yarn_beta_slow": (scaling.beta_slow, YarnScaling.beta_slow),
    }
    return keys | {f"rope.scaling.{key}": value for key, (value, usual) in optional.items() if value != usual}


def rope_tensors(rope: Rope) -> dict[str, tuple[float, ...]]:
    """The factors that are stored as tensors, by name."""
    match rope.scaling:
        case Llama3Scaling():
            return {FREQUENCIES: tuple(llama3_factors(rope.scaling, rope.dims, rope.base).tolist())}
        case TableScaling(factors):
            return {FREQUENCIES: factors}
        case ProportionalScaling(share):
            pairs, turning = rope.dims // 2, int(rope.dims * share / 2)
            return {FREQUENCIES: (1.0,) * turning + (NEVER,) * (pairs - turning)}
        case LongScaling(short, long):
            return {SHORT: short.factors, LONG: long.factors}
    return {}
