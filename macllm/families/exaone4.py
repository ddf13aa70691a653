"""EXAONE 4."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QKNorm

_KINDS = {"L": "sliding_attention", "G": "full_attention"}


@family("exaone4")
def exaone4(c: Config) -> ModelSpec:
    """EXAONE 4 (arXiv 2507.11407): norms after each block; beside sliding layers, full ones have no positions."""
    c.where_missing(num_key_value_heads=32, sliding_window=4096)
    norm = rms_norm(c, default=1e-5)
    turning = attention(c, qk_norm=QKNorm(norm))
    kinds = layer_kinds(c, _kinds(c))
    full = turning if c.get("sliding_window") is None else replace(turning, rope=None)
    sliding = full
    if "sliding_attention" in kinds:
        sliding = replace(turning, window=c.integer("sliding_window"))
    mixers = [sliding if kind == "sliding_attention" else full for kind in kinds]
    return model(c, [Layer(mixer, mlp(c), "post", norm) for mixer in mixers])


def _kinds(c: Config) -> list[str]:
    """The kind of each layer by ``sliding_window_pattern``: every n-th is full, or letters that repeat ("LLLG")."""
    count = c.integer("num_hidden_layers")
    if c.get("sliding_window") is None or c.get("layer_types") is not None:
        c.get("sliding_window_pattern")
        return ["full_attention"] * count
    pattern = c.get("sliding_window_pattern", 4)
    if not isinstance(pattern, str):
        every = c.integer("sliding_window_pattern", 4)
        return ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    if not pattern or set(pattern) - set(_KINDS):
        raise c.unsupported(
            "sliding_window_pattern", pattern, "a number, or a word of the letters 'L' and 'G'"
        )
    return [_KINDS[pattern[index % len(pattern)]] for index in range(count)]
