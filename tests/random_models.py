"""Tiny models of a family with random weights, made without its original implementation."""

import math
from typing import Any

import mlx.core as mx
import numpy as np
from tiny import config_of

from macllm.families import spec_from_config
from macllm.nn.decoder import Decoder
from macllm.nn.linear import AnyLinear, Embedding, Part, make_linear
from macllm.nn.stack import AnyStack, make_stack
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import Quantization
from macllm.spec import ModelSpec, TensorSpec

FOUR_BITS = Quantization(4, 32)


class RandomWeights:
    """The ``Parameters`` of a whole spec; ``packed`` names the matrices that are held in four bits."""

    def __init__(self, spec: ModelSpec, packed: tuple[str, ...] = (), seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self._stored = {
            tensor.name: self._one(tensor, generator, tensor.name in packed) for tensor in spec.tensors()
        }

    def linear(self, prefix: str, *names: str, bias: bool = False) -> AnyLinear:
        return make_linear(*self._parts(prefix, names, bias), None)

    def stack(self, prefix: str, *names: str, bias: bool = False) -> AnyStack:
        return make_stack(*self._parts(prefix, names, bias), None)

    def embedding(self, name: str) -> Embedding:
        return Embedding(self.linear("", name), mx.float32)

    def vector(self, name: str, *, wide: bool = False) -> mx.array:
        return self._stored[name].array

    def _parts(
        self, prefix: str, names: tuple[str, ...], bias: bool
    ) -> tuple[list[Part], list[Stored], list[mx.array] | None]:
        paths = [f"{prefix}.{name}" if prefix else name for name in names]
        stored = [self._stored[f"{path}.weight"] for path in paths]
        parts = [Part(path, one.shape[-2]) for path, one in zip(paths, stored, strict=True)]
        return parts, stored, [self._stored[f"{path}.bias"].array for path in paths] if bias else None

    @staticmethod
    def _one(tensor: TensorSpec, generator: np.random.Generator, packed: bool) -> Stored:
        scale = 1 / math.sqrt(tensor.shape[-1]) if tensor.quantizable and tensor.kind != "embedding" else 0.3
        values = generator.normal(1.0 if tensor.kind == "norm" else 0.0, scale, tensor.shape)
        array = mx.array(values.astype(np.float32))
        if not packed:
            return Dense(array)
        weight, scales, biases = mx.quantize(array, FOUR_BITS.group_size, FOUR_BITS.bits)
        return Packed(weight, scales, biases, FOUR_BITS)


def random_model(
    variant: str, *, packed: tuple[str, ...] = (), seed: int = 0, wide: bool = False, **changes: Any
) -> Decoder:
    """A variant of ``tests/variants`` with ``changes`` to its config; every plain weight is trainable."""
    spec = spec_from_config({**config_of(variant, wide=wide), **changes})
    return Decoder(spec, RandomWeights(spec, packed, seed))
