"""Models of random weights on every kind of base: dense, or packed in any way, made without a file."""

import math
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from tiny import config_of

from macllm.families import spec_from_config
from macllm.kernels import dispatch
from macllm.nn.decoder import Decoder
from macllm.nn.linear import AnyLinear, Embedding, Linear, PackedLinear, Part, make_linear
from macllm.nn.stack import AnyStack, make_stack
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import BLOCKS, Quantization
from macllm.spec import ModelSpec

BASES: dict[str, Quantization | None] = {
    "dense": None,
    "affine": Quantization(4, 64),
    "mxfp4": Quantization(4, 32, "mxfp4"),
    "nf4": Quantization(4, 64, "nf4"),
    "blocks": Quantization(BLOCKS["q8_0"].bits, 32, "q8_0"),
}


def pack(values: mx.array, q: Quantization | None) -> Stored:
    """A matrix or a stack in storage; plain where its inputs are no multiple of a group."""
    if q is None or values.shape[-1] % q.group_size:
        return Dense(values)
    if q.block is not None:
        encoded = gguf.quants.quantize(np.array(values), gguf.GGMLQuantizationType[q.mode.upper()])
        return Packed(mx.array(encoded.view(np.uint8).reshape(*values.shape[:-1], -1)), None, None, q)
    if values.ndim == 3 and q.mode == "nf4":
        each = [dispatch.pack(q, one) for one in values]
        weight, scales, biases = (mx.stack(arrays) for arrays in zip(*each, strict=True))
        return Packed(weight, scales, biases, q)
    weight, scales, *biases = dispatch.pack(q, values)
    return Packed(weight, scales, biases[0] if biases else None, q)


class RandomParameters:
    """Gives blocks random weights of the sizes that leave activations near one."""

    def __init__(self, spec: ModelSpec, q: Quantization | None, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._stored: dict[str, Stored] = {}
        for tensor in spec.tensors():
            values = generator.normal(size=tensor.shape)
            if tensor.quantizable:
                scaled = mx.array((values / math.sqrt(tensor.shape[-1])).astype(np.float32))
                self._stored[tensor.name] = pack(scaled, q)
            else:
                around = 1.0 if tensor.kind == "norm" else 0.0
                self._stored[tensor.name] = Dense(mx.array((around + 0.1 * values).astype(np.float32)))

    def linear(self, prefix: str, *names: str, bias: bool = False) -> AnyLinear:
        parts, stored, biases = self._parts(prefix, names, bias)
        return make_linear(parts, stored, biases, None)

    def stack(self, prefix: str, *names: str, bias: bool = False) -> AnyStack:
        parts, stored, biases = self._parts(prefix, names, bias)
        return make_stack(parts, stored, biases, None)

    def embedding(self, name: str) -> Embedding:
        table = self.linear("", name)
        assert isinstance(table, Linear | PackedLinear)
        return Embedding(table, mx.float32)

    def vector(self, name: str, *, wide: bool = False) -> mx.array:
        return self._plain(name)

    def _parts(
        self, prefix: str, names: tuple[str, ...], bias: bool
    ) -> tuple[list[Part], list[Stored], list[mx.array] | None]:
        paths = [f"{prefix}.{name}" if prefix else name for name in names]
        stored = [self._stored[f"{path}.weight"] for path in paths]
        parts = [Part(path, one.shape[-2]) for path, one in zip(paths, stored, strict=True)]
        return parts, stored, [self._plain(f"{path}.bias") for path in paths] if bias else None

    def _plain(self, name: str) -> mx.array:
        stored = self._stored[name]
        assert isinstance(stored, Dense)
        return stored.array


def wide_spec(variant: str) -> ModelSpec:
    """That of a variant whose matrices have room for groups."""
    return spec_from_config(config_of(variant, wide=True))


def settled(variant: str) -> dict[str, Any]:
    """The variant's config with a key that mlx-lm has no default for."""
    config = config_of(variant)
    return {"rope_theta": 10_000.0, **config} if config["model_type"] == "qwen3_moe" else config


def random_model(spec: ModelSpec, base: str = "dense", seed: int = 0) -> Decoder:
    """A model of this spec, its matrices stored as ``base`` says."""
    return Decoder(spec, RandomParameters(spec, BASES[base], seed))
