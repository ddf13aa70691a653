"""Methods that are no factors of matrices, put into a model: scalings, bottlenecks, virtual tokens.

Each starts with the model as it was, to the bit, but for virtual tokens: those start as tokens of the vocabulary,
drawn at random, that stand before the sequence.
"""

import math

import mlx.core as mx

from macllm.adapters.learnable import first_layer
from macllm.adapters.method import Bottleneck, Other, Scalings, Virtual
from macllm.adapters.targets import blocks, scaled
from macllm.errors import OptionError
from macllm.nn.beside import learned
from macllm.nn.bottleneck import BottleneckAdapter
from macllm.nn.cache import make_caches
from macllm.nn.decoder import Decoder
from macllm.nn.layer import LayerBlock
from macllm.nn.scaled import scale
from macllm.nn.token_cache import TokenCache
from macllm.nn.virtual import Prefix, Prompt, pairs
from macllm.spec import Attention, ModelSpec, TensorSpec


def insert(model: Decoder, method: Other, seed: int = 0) -> None:
    """Puts what the method learns into a model that has nothing beside it.

    ``seed`` draws what begins at random. Raises OptionError where the model has no place for it.
    """
    match method:
        case Scalings():
            _scalings(model, method)
        case Bottleneck():
            _bottlenecks(model, method, mx.random.key(seed))
        case Virtual():
            _virtual_tokens(model, method, mx.random.key(seed))


def scales_inputs(tensor: TensorSpec) -> bool:
    """Whether IA3's numbers of a matrix are of its inputs."""
    return tensor.name.endswith("down.weight") and ".channel." in tensor.name


def _scalings(model: Decoder, method: Scalings) -> None:
    chosen = scaled(model.spec, method.targets, method.num_layers)
    numbers = {}
    for tensor in chosen:
        *count, outputs, inputs = tensor.shape
        numbers[_name(tensor)] = mx.ones((*count, inputs if scales_inputs(tensor) else outputs))
    scale(model, numbers, [_name(tensor) for tensor in chosen if scales_inputs(tensor)])


def _bottlenecks(model: Decoder, method: Bottleneck, key: mx.array) -> None:
    spec, places = model.spec, blocks(method.targets)
    bound = 1 / math.sqrt(spec.dim)
    for index in range(first_layer(spec, method.num_layers), len(spec.layers)):
        layer = model.layers[index]
        if not isinstance(layer, LayerBlock) or not layer.takes_adapters:
            raise OptionError(
                f"layers of family {spec.family!r} have no place behind their blocks; take lora instead of bottleneck"
            )
        for block in places:
            if block in layer:
                key, own = mx.random.split(key)
                down = mx.random.uniform(-bound, bound, (spec.dim, method.rank), key=own)
                place = f"{block}_adapter"
                layer[place] = BottleneckAdapter(f"layers.{index}.{place}", down, spec.dim)


def _virtual_tokens(model: Decoder, method: Virtual, key: mx.array) -> None:
    check_virtual(model.spec, method)
    if model.kv_bits is not None:
        raise OptionError(
            f"{method.kind} stands before plain keys and values; load the model without a quantized cache"
        )
    ids = mx.random.randint(0, model.spec.vocab, (1, method.tokens), key=key)
    embeddings = model.embed(ids)[0]
    if model.spec.embed_scale is not None:
        embeddings = embeddings * model.spec.embed_scale
    if model.spec.embed_norm is not None:
        embeddings = model.embed_norm(embeddings)
    found = Prompt(embeddings) if method.kind == "prompt" else Prefix(pairs(model, embeddings))
    found.eval()
    model.virtual = found
    mx.eval(learned(model))


def check_virtual(spec: ModelSpec, method: Virtual) -> None:
    """Raises OptionError where nothing can stand before every sequence of a model."""
    why = _virtual_refusal(spec)
    if why is None and isinstance(make_caches(spec)[-1], TokenCache):
        why = "positions of its tokens depend on the sequence's length"
    if why is not None:
        raise OptionError(
            f"family {spec.family!r} cannot have virtual tokens ({why}); take lora instead of {method.kind}"
        )


def _virtual_refusal(spec: ModelSpec) -> str | None:
    if spec.positions is not None:
        return "its positions are learned, and there is none before the first"
    if spec.frame is not None:
        return "its layers take more than states"
    for index, layer in enumerate(spec.layers):
        mixer = layer.mixer
        if mixer is None:
            continue
        if not isinstance(mixer, Attention):
            return f"layer {index} is no attention over keys and values"
        if mixer.window is not None or mixer.chunk is not None:
            return f"layer {index} does not see all tokens before"
        if mixer.query_scale is not None:
            return f"queries of layer {index} are scaled by their position"
    return None


def _name(tensor: TensorSpec) -> str:
    return tensor.name.removesuffix(".weight")
