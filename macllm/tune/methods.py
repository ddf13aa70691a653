"""How a model learns: factors of its matrices, something else beside it, or its own weights (full)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlx.nn.layers.base import Module

from macllm.adapters.insert import insert
from macllm.adapters.learnable import first_layer, fully_learned
from macllm.adapters.method import AnyMethod, Method
from macllm.adapters.targets import select
from macllm.errors import OptionError
from macllm.nn.adapted import adapt
from macllm.nn.beside import restore
from macllm.nn.decoder import Decoder
from macllm.nn.linear import PackedLinear
from macllm.nn.stack import Stack
from macllm.nn.stored import Packed
from macllm.quantization import Quantization
from macllm.spec import ModelSpec
from macllm.tune.first_factors import first_factors
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


def attach(model: Decoder, spec: ModelSpec, method: AnyMethod, seed: int = 0) -> Attached:
    """Makes a model learn by a method, and nothing else in it; what it computes stays the same to the bit.

    Only virtual tokens are seen from the start. ``seed`` draws what begins at random. Raises OptionError for targets
    that name nothing, and where the model has no place for the method or is stored in a way that it does not learn on.
    """
    detach(model)
    if not isinstance(method, Method):
        insert(model, method, seed)
    elif method.kind == "full":
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


def rate_shares(names: Iterable[str], ratio: float) -> dict[str, float]:
    """LoRA+ (arXiv 2402.12354): the second factor learns ``ratio`` times as fast as the first. Shares of the rate.

    ``names`` as in :class:`Attached`; those of no second factor are left out.
    """
    return {name: ratio for name in names if name.endswith(".lora_b") and ratio != 1}


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
