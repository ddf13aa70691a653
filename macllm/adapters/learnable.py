"""What of a model can learn: the matrices that may have an adapter, and the weights that learn in full. No MLX."""

import re
from collections.abc import Iterator

from macllm.adapters.method import ALL_LAYERS
from macllm.spec import Attention, LatentAttention, ModelSpec, ParallelMixers, TensorSpec, TimeMix

ALL = "all"
_LAYER = re.compile(r"layers\.(\d+)\.")
_KINDS = {"matrix", "stack", "router"}
_AFTER = ("norm", "head")  # what a model has after its layers
_MADE_ONCE = (".A_log", ".correction", ".activation.alpha_p", ".activation.alpha_n", ".activation.eps")


def first_layer(spec: ModelSpec, num_layers: int) -> int:
    """The index of the first of the last ``num_layers`` layers; 0 where there are no more."""
    return 0 if num_layers == ALL_LAYERS else max(0, len(spec.layers) - num_layers)


def layer_of(canonical: str) -> int | None:
    """The layer that a tensor is in; None for one outside."""
    match = _LAYER.match(canonical)
    return int(match[1]) if match is not None else None


def matrices(spec: ModelSpec) -> Iterator[TensorSpec]:
    """What may have an adapter: the matrices, stacks and routers of the layers, and the head."""
    for tensor in spec.tensors():
        if tensor.kind in _KINDS and (layer_of(tensor.name) is not None or tensor.name == "head.weight"):
            yield tensor


def attention(spec: ModelSpec) -> tuple[str, ...]:
    """Patterns for what is inside attention, whose layers may have other mixers beside it."""
    found = []
    for index, layer in enumerate(spec.layers):
        if isinstance(layer.mixer, ParallelMixers):
            parts = [name for name, one in layer.mixer.mixers if isinstance(one, Attention | LatentAttention)]
            found += [f"layers.{index}.mixer.{name}.*" for name in parts]
        elif isinstance(layer.mixer, Attention | LatentAttention):
            found.append(f"layers.{index}.mixer.*")
    return tuple(found)


def fully_learned(spec: ModelSpec, num_layers: int = ALL_LAYERS) -> set[str]:
    """The tensors that ``full`` on the last ``num_layers`` lets learn: those and what comes after them, or all.

    None that no gradient reaches: experts' corrections, which only choose, and vectors that a block computes with in
    a form made of them once, when it is built (decays of recurrences, most of RWKV's).
    """
    first = first_layer(spec, num_layers)
    found = set()
    for tensor in spec.tensors():
        layer = layer_of(tensor.name)
        inside = layer >= first if layer is not None else tensor.name.split(".")[0] in _AFTER
        if (first == 0 or inside) and not _made_once(spec, tensor, layer):
            found.add(tensor.name)
    return found


def _made_once(spec: ModelSpec, tensor: TensorSpec, layer: int | None) -> bool:
    if layer is None:
        return False
    if tensor.name.endswith(_MADE_ONCE):
        return True
    in_mixer = tensor.name.startswith(f"layers.{layer}.mixer.") and not tensor.name.endswith("_up.bias")
    return isinstance(spec.layers[layer].mixer, TimeMix) and in_mixer and not tensor.quantizable
