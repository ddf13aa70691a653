"""How a model learns: low-rank adapters on some of its matrices (LoRA, rsLoRA, DoRA), or its own weights (full)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.adapters.method import Method
from macllm.adapters.targets import first_layer, fully_learned, select
from macllm.errors import OptionError
from macllm.nn.adapted import Factors, adapt, plain, restore, row_lengths
from macllm.nn.decoder import Decoder
from macllm.nn.linear import PackedLinear
from macllm.nn.stack import Stack
from macllm.nn.stored import Packed
from macllm.quantization import Quantization
from macllm.spec import ModelSpec, TensorSpec
from macllm.tune.forward import first_trainable
from macllm.tune.trained import flat


@dataclass(frozen=True)
class Attached:
    """What learns in a model: names in its ``trainable_parameters()``, values, and the first layer that has any.

    No gradient is needed below ``first_layer``: the number of layers where only norm and head learn,
    -1 where the embedding does.
    """

    names: tuple[str, ...]
    parameters: int
    first_layer: int


def attach(model: Decoder, spec: ModelSpec, method: Method, seed: int = 0) -> Attached:
    """Makes a model learn by a method, and nothing else in it; what it computes stays the same to the bit.

    ``seed`` draws the adapters' first factors. Raises OptionError for targets that name nothing and, with ``full``,
    for packed weights.
    """
    detach(model)
    if method.kind == "full":
        _unfreeze(model, spec, method.num_layers)
    else:
        chosen = select(spec, method.targets, method.num_layers)
        adapt(model, first_factors(model, chosen, method, seed), method.dropout)
    return learning(model)


def detach(model: Decoder) -> None:
    """Takes adapters out again; nothing in the model learns any more."""
    restore(model)
    model.freeze()


def learning(model: Decoder) -> Attached:
    """What learns in a model as it is."""
    found = flat(model)
    return Attached(tuple(found), sum(array.size for array in found.values()), first_trainable(model))


def first_factors(
    model: Decoder, chosen: Sequence[TensorSpec], method: Method, seed: int
) -> dict[str, Factors]:
    """Factors that change nothing: the first random as mlx-lm draws it, the second zero, in float32."""
    stored = dict(model.tensors()) if method.kind == "dora" else {}
    keys = mx.random.split(mx.random.key(seed), len(chosen))
    factors = {}
    for key, tensor in zip(keys, chosen, strict=True):
        *count, outputs, inputs = tensor.shape
        bound = 1 / math.sqrt(inputs)
        a = mx.random.uniform(-bound, bound, (*count, inputs, method.rank), key=key)
        b = mx.zeros((*count, method.rank, outputs))
        lengths = row_lengths(plain(stored[tensor.name])) if stored else None
        mx.eval([one for one in (a, b, lengths) if one is not None])  # one expanded matrix at a time
        factors[tensor.name.removesuffix(".weight")] = Factors(a, b, method.factor, lengths)
    return factors


def _unfreeze(model: Decoder, spec: ModelSpec, num_layers: int) -> None:
    """What :func:`fully_learned` names."""
    first = first_layer(spec, num_layers)
    parts: list[Module] = [model]
    if first > 0:
        parts = [*model.layers[first:], model.norm, *([model.head] if model.head is not None else [])]
    packed = {name: stored for part in parts for name, stored in _packed(part)}
    if packed:
        name = next(tensor.name for tensor in spec.tensors() if tensor.name in packed)
        others = f", like {len(packed) - 1} others," if len(packed) > 1 else ""
        raise OptionError(
            f"{name}{others} is stored as {packed[name]}, and packed weights cannot learn; take a 16-bit "
            "version of the model, or a method that adds an adapter (lora)"
        )
    for part in parts:
        part.unfreeze()
    learned = fully_learned(spec, num_layers)
    fixed = {tensor.name for tensor in spec.tensors()} - learned
    for path, module in model.named_modules():
        module.freeze(recurse=False, keys=[key for key in module if f"{path}.{key}" in fixed])


def _packed(part: Module) -> Iterator[tuple[str, Quantization]]:
    """The packed matrices of a part of a model by canonical name."""
    for module in part.modules():
        stored = module.packed if isinstance(module, PackedLinear) else None
        if isinstance(module, Stack) and isinstance(module.stored, Packed):
            stored = module.stored
        if stored is not None:
            yield from ((f"{each.name}.weight", stored.quantization) for each in module.parts)
