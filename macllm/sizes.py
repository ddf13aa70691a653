"""Bytes by arithmetic: weights, KV cache, loading and training, before anything is downloaded or allocated."""

from collections.abc import Iterator, Mapping

from macllm.quantization import Quantization
from macllm.spec import ModelSpec

KEPT_WINDOWS = 2  # of tokens that a sliding cache keeps, so that rewinding within a window is exact
ADAPTER_RANK = 8  # of the LoRA whose memory `trainable_memory` states


def weight_bytes(spec: ModelSpec, formats: Mapping[str, Quantization | None], dense_bytes: int = 2) -> int:
    """Bytes of all weights; ``formats`` by canonical tensor name, dense tensors at ``dense_bytes`` each value."""
    total = 0
    for tensor in spec.tensors():
        stored = formats.get(tensor.name)
        total += stored.nbytes(tensor.size) if stored is not None else tensor.size * dense_bytes
    return total


def kv_bytes(spec: ModelSpec, tokens: int, value_bytes: int = 2) -> int:
    """Bytes of the KV cache at ``tokens`` tokens; a sliding window holds no more than its width."""
    return sum(
        layer.mixer.kv_values_per_token * value_bytes * min(tokens, layer.mixer.window or tokens)
        for layer in spec.layers
    )


def held_bytes(spec: ModelSpec, tokens: int, value_bytes: int = 2, chunk: int = 512) -> int:
    """Bytes that the caches allocate for ``tokens``: of a sliding window more than attention sees, to rewind."""
    return sum(
        layer.mixer.kv_values_per_token
        * value_bytes
        * min(tokens, KEPT_WINDOWS * layer.mixer.window + chunk if layer.mixer.window else tokens)
        for layer in spec.layers
    )


def kv_bytes_per_token(spec: ModelSpec, value_bytes: int = 2) -> int:
    """Bytes that one more token adds to the KV cache while every window still has room."""
    return kv_bytes(spec, 1, value_bytes)


def adapter_tensors(spec: ModelSpec, rank: int = ADAPTER_RANK) -> Iterator[int]:
    """Sizes of the LoRA factors on every matrix inside the layers."""
    for tensor in spec.tensors():
        if tensor.kind == "matrix" and tensor.name.startswith("layers."):
            yield rank * sum(tensor.shape)


def trainable_memory(spec: ModelSpec, weights: int, tokens: int = 2048, rank: int = ADAPTER_RANK) -> int:
    """Bytes to train a LoRA of ``rank`` on one sequence of ``tokens``, with gradient checkpointing.

    Weights as they are, float32 adapter with gradient and two Adam moments, 16-bit layer inputs, the widest
    layer's activations, and one chunk of 512 logits in float32.
    """
    adapter = sum(adapter_tensors(spec, rank)) * 4 * 4
    boundaries = len(spec.layers) * tokens * spec.dim * 2
    widest = max(
        layer.channel.hidden * 3 + layer.mixer.heads * layer.mixer.head_dim * 4 + spec.dim * 4
        for layer in spec.layers
    )
    return weights + adapter + boundaries + widest * tokens * 4 + 2 * 512 * spec.vocab * 4


def working_bytes(spec: ModelSpec, weights: int, context: int, value_bytes: int = 2, chunk: int = 512) -> int:
    """Bytes to hold the weights, a cache of ``context`` tokens and one prefill chunk's activations."""
    widest = max(layer.channel.hidden * 3 + spec.dim * 4 for layer in spec.layers)
    return weights + held_bytes(spec, context, value_bytes, chunk) + chunk * widest * 4 + spec.vocab * 4
