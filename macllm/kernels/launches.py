"""How many kernels one token launches: counted over the blocks of ``macllm.nn`` as they run on a GPU in decoding.

Each launch takes the GPU a little time that no bandwidth shortens. What MLX compiles into one kernel counts as one,
views count as none. Attention and feed-forward are counted part by part; for recurrences, whose small kernels
depend on the state, it is the matrices and a round number for the rest.
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from macllm.quantization import Quantization
from macllm.spec import MLP, Attention, LatentAttention, LatentMoE, Layer, Mixer, ModelSpec, MoE

Formats: TypeAlias = Mapping[str, Quantization | None]

_CACHE_WRITES = 2  # keys, values
_ROUTING = 4  # scores, choice, their weights taken, the experts' outputs weighed and summed into one
_CAPPED_SCORES = 4  # beside the one of fused attention: scale, cap, softmax, second product
_RECURRENCE = 12  # convolution, its tail, decays, the state's update and its output, gate and norm


def launches(spec: ModelSpec, formats: Formats) -> int:
    """From the token's id to its logits."""
    return sum(_outer(spec, formats)) + sum(
        sum(_layer(layer, formats, f"layers.{index}", spec.dim)) for index, layer in enumerate(spec.layers)
    )


def _outer(spec: ModelSpec, formats: Formats) -> Iterator[int]:
    yield (
        1 if formats.get("embed.weight") is None else 4
    )  # codes, scales and biases of a row, then its values
    yield spec.embed_scale is not None
    yield spec.embed_norm is not None
    yield 2 * (spec.positions is not None)
    yield 2  # norm, head
    yield spec.head_bias + (spec.logit_scale is not None) + (spec.logit_cap is not None)
    if spec.frame is not None:
        yield len(list(spec.frame.tensors(spec.dim)))


def _layer(layer: Layer, formats: Formats, prefix: str, dim: int) -> Iterator[int]:
    blocks = (layer.mixer is not None) + (layer.channel is not None)
    yield len(layer.norms)
    yield blocks * (1 + (layer.residual_scale != 1.0))  # what a block adds
    for mixer in layer.mixers:
        yield from _mixer(mixer, formats, f"{prefix}.mixer")
    match layer.channel:
        case MoE():
            yield from _experts(layer.channel, formats, f"{prefix}.channel")
        case MLP():
            yield from _mlp(layer.channel, formats, f"{prefix}.channel")
        case None:
            pass
        case _:
            yield _RECURRENCE // 2 + sum(tensor.quantizable for tensor in layer.channel.tensors(""))
    beside = f"{prefix}.mixer.", f"{prefix}.channel."
    own = (tensor for tensor in layer.tensors(prefix, dim) if not tensor.name.startswith(beside))
    yield 2 * sum(tensor.quantizable for tensor in own)  # a matrix, and what is done with its output


def _mixer(mixer: Mixer, formats: Formats, prefix: str) -> Iterator[int]:
    if isinstance(mixer, Attention):
        yield side_by_side(formats, prefix, tuple(mixer.projections)) + mixer.bias
        yield 1 + mixer.out_bias
        yield mixer.rope is not None
        if mixer.qk_norm is not None:
            yield 3 if mixer.source is None else 1  # q, k, and the two side by side again
        yield _CACHE_WRITES * (mixer.source is None)
        yield 1 + _CAPPED_SCORES * (mixer.softcap is not None)
        yield 2 * mixer.gated + (mixer.clip is not None) + (mixer.query_scale is not None)
        yield (mixer.out_norm is not None) + (mixer.value_norm is not None and mixer.source is None)
    elif isinstance(mixer, LatentAttention):
        compressed = ("kv_down",) if mixer.q_rank is None else ("q_down", "kv_down")
        yield side_by_side(formats, prefix, compressed)
        yield 1 if mixer.q_rank is None else 2  # norm and projection
        yield 3  # a norm and two rotations
        yield _CACHE_WRITES + 2  # two halves side by side, of queries and of keys
        yield 4  # into the latent space, attention, out of it, o
    else:
        yield _RECURRENCE + sum(tensor.quantizable for tensor in mixer.tensors(""))


def _mlp(mlp: MLP, formats: Formats, prefix: str) -> Iterator[int]:
    yield side_by_side(formats, prefix, mlp.inputs) + 2  # activation, down
    yield 2 * mlp.bias + (mlp.down_norm is not None)


def _experts(moe: MoE, formats: Formats, prefix: str) -> Iterator[int]:
    yield 1 + moe.router_bias + moe.correction + _ROUTING + 2 * moe.renormalize
    yield side_by_side(formats, f"{prefix}.experts", moe.inputs) + 2
    yield 4 * moe.bias  # taken for each expert, added
    yield 2 * isinstance(moe, LatentMoE)
    if moe.shared is not None:
        yield from _mlp(moe.shared, formats, f"{prefix}.shared")
        yield 1 + 2 * moe.shared_gated


def side_by_side(formats: Formats, prefix: str, names: tuple[str, ...]) -> int:
    """Launches of projections of one input: one where their storage is the same, else one each and one to join."""
    stored = {formats.get(f"{prefix}.{name}.weight") for name in names}
    return 1 if len(stored) == 1 else len(names) + 1
