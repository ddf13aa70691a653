"""Gives the plain tensors of a model other values, by canonical name: the way back from ``Decoder.tensors``."""

from collections.abc import Mapping, Sequence

import mlx.core as mx

from macllm.nn.decoder import Decoder
from macllm.nn.linear import Linear, PackedLinear, Part
from macllm.nn.stack import Stack
from macllm.nn.stored import Dense, Packed


def assign(model: Decoder, tensors: Mapping[str, mx.array]) -> None:
    """Puts ``tensors`` in place of the model's own, in the types that it has.

    Raises ValueError for one that the model does not have, or has packed.
    """
    plain = {name for name, stored in model.tensors() if isinstance(stored, Dense)}
    left = set(tensors) - plain  # looked at first: nothing is changed by half
    if left:
        raise ValueError(f"the model has no plain tensors {', '.join(sorted(left))}")
    for path, module in model.named_modules():
        if isinstance(module, PackedLinear) or (
            isinstance(module, Stack) and isinstance(module.stored, Packed)
        ):
            continue
        if isinstance(module, Linear | Stack):
            for kind in ("weight", "bias"):
                if kind in module:
                    axis = 1 if isinstance(module, Stack) else 0
                    module[kind] = _joined(module.parts, kind, module[kind], axis, tensors)
            continue
        for name, value in module.items():
            full = f"{path}.{name}" if path else name.replace("head_bias", "head.bias")
            if full in tensors and isinstance(value, mx.array):
                module[name] = tensors[full].reshape(value.shape).astype(value.dtype)


def _joined(
    parts: Sequence[Part], kind: str, value: mx.array, axis: int, tensors: Mapping[str, mx.array]
) -> mx.array:
    """The parts' tensors side by side along ``axis``, those that are not given as they were."""
    names = [f"{part.name}.{kind}" for part in parts]
    if not any(name in tensors for name in names):
        return value
    pieces, start = [], 0
    for part, name in zip(parts, names, strict=True):
        own = value[:, start : start + part.width] if axis else value[start : start + part.width]
        pieces.append(tensors.get(name, own).astype(value.dtype))
        start += part.width
    return mx.concatenate(pieces, axis=axis)
