"""Random weights of one block, dense or packed."""

from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from macllm.nn.linear import AnyLinear, Part, make_linear
from macllm.nn.stack import AnyStack, make_stack
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import Quantization
from macllm.spec import Channel, Mixer


class RandomParameters:
    """Random weights of one block; ``packing`` says how the stacks that end in a name are held."""

    def __init__(
        self,
        spec: Channel | Mixer,
        packing: Mapping[str, Quantization] | None = None,
        dense_rows: int | None = None,
        seed: int = 0,
    ) -> None:
        generator = np.random.default_rng(seed)
        self._packing, self._dense_rows = packing or {}, dense_rows
        self.stored: dict[str, Stored] = {}
        for tensor in spec.tensors("x"):
            scale = 0.3 if tensor.kind in ("stack", "matrix") else 1.0
            values = mx.array(generator.normal(0, scale, tensor.shape).astype(np.float32))
            name = tensor.name.removesuffix(".weight").rpartition(".")[2]
            self.stored[tensor.name] = self._packed(values, name) if tensor.kind == "stack" else Dense(values)

    def values(self) -> dict[str, np.ndarray]:
        """The weights, unpacked."""
        return {
            name: np.array(one.dequantize(mx.float32) if isinstance(one, Packed) else one.array, np.float64)
            for name, one in self.stored.items()
        }

    def unpack(self) -> None:
        """Holds what is packed as plain matrices of the same values."""
        for name, one in self.stored.items():
            self.stored[name] = Dense(one.dequantize(mx.float32)) if isinstance(one, Packed) else one

    def linear(self, prefix: str, *names: str, bias: bool = False) -> AnyLinear:
        parts, stored, biases = self._parts(prefix, names, bias)
        return make_linear(parts, stored, biases, None)

    def stack(self, prefix: str, *names: str, bias: bool = False) -> AnyStack:
        parts, stored, biases = self._parts(prefix, names, bias)
        return make_stack(parts, stored, biases, self._dense_rows)

    def vector(self, name: str, *, wide: bool = False) -> mx.array:
        return self.stored[name].array

    def _parts(
        self, prefix: str, names: tuple[str, ...], bias: bool
    ) -> tuple[list[Part], list[Stored], list[mx.array] | None]:
        paths = [f"{prefix}.{name}" for name in names]
        stored = [self.stored[f"{path}.weight"] for path in paths]
        parts = [Part(path, one.shape[-2]) for path, one in zip(paths, stored, strict=True)]
        return parts, stored, [self.stored[f"{path}.bias"].array for path in paths] if bias else None

    def _packed(self, values: mx.array, name: str) -> Stored:
        q = self._packing.get(name)
        if q is None:
            return Dense(values)
        weight, scales, *biases = mx.quantize(values, q.group_size, q.bits, q.mode)
        return Packed(weight, scales, biases[0] if biases else None, q)
