"""What each method learns of a model, by arithmetic alone: names and shapes, before anything is loaded."""

import math

from macllm.adapters.insert import check_virtual, scales_inputs
from macllm.adapters.learnable import first_layer, fully_learned
from macllm.adapters.method import AnyMethod, Bottleneck, Method, Scalings, Virtual
from macllm.adapters.targets import blocks, scaled, select
from macllm.nn.virtual import PLACE, prefix_place
from macllm.spec import Attention, ModelSpec

Shapes = dict[str, tuple[int, ...]]


def learned_shapes(spec: ModelSpec, method: AnyMethod, group: int = 64) -> Shapes:
    """By canonical name. ``group``: inputs of a quantization group, for ``qalora``.

    Raises OptionError for targets that name nothing, and where the model has no place for virtual tokens.
    """
    match method:
        case Method(kind="full"):
            names = fully_learned(spec, method.num_layers)
            return {one.name: one.shape for one in spec.tensors() if one.name in names}
        case Method():
            return _factors(spec, method, group if method.kind == "qalora" else 1)
        case Scalings():
            return {
                f"{one.name.removesuffix('.weight')}.ia3_l": (
                    *one.shape[:-2],
                    one.shape[-1 if scales_inputs(one) else -2],
                )
                for one in scaled(spec, method.targets, method.num_layers)
            }
        case Bottleneck():
            return _bottlenecks(spec, method)
        case Virtual():
            return _virtual(spec, method)


def parameters(spec: ModelSpec, method: AnyMethod, group: int = 64) -> int:
    """How many numbers learn; as :func:`learned_shapes`."""
    return sum(math.prod(shape) for shape in learned_shapes(spec, method, group).values())


def _factors(spec: ModelSpec, method: Method, group: int) -> Shapes:
    found: Shapes = {}
    for tensor in select(spec, method.targets, method.num_layers):
        name, (*count, outputs, inputs) = tensor.name.removesuffix(".weight"), tensor.shape
        found[f"{name}.lora_a"] = (*count, inputs // group, method.rank)
        found[f"{name}.lora_b"] = (*count, method.rank, outputs)
        if method.kind == "dora":
            found[f"{name}.m"] = (*count, outputs)
    return found


def _bottlenecks(spec: ModelSpec, method: Bottleneck) -> Shapes:
    rank, dim, found = method.rank, spec.dim, Shapes()
    for index in range(first_layer(spec, method.num_layers), len(spec.layers)):
        layer = spec.layers[index]
        for block in blocks(method.targets):
            if (layer.mixer if block == "mixer" else layer.channel) is None:
                continue
            place = f"layers.{index}.{block}_adapter"
            found |= {f"{place}.down": (dim, rank), f"{place}.down_bias": (rank,)}
            found |= {f"{place}.up": (rank, dim), f"{place}.up_bias": (dim,)}
    return found


def _virtual(spec: ModelSpec, method: Virtual) -> Shapes:
    check_virtual(spec, method)
    if method.kind == "prompt":
        return {f"{PLACE}.embeddings": (method.tokens, spec.dim)}
    found: Shapes = {}
    for index, layer in enumerate(spec.layers):
        if isinstance(layer.mixer, Attention) and layer.mixer.source is None:
            shape = (layer.mixer.kv_heads, method.tokens, layer.mixer.head_dim)
            found |= {f"{PLACE}.{prefix_place(index)}.{side}": shape for side in ("k", "v")}
    return found
