"""Changes that are the same for all inputs of a quantization group, folded into affine biases (arXiv 2309.14717).

A packed weight is ``scale * code + bias`` with one scale and one bias for a group, so adding a number to a whole group
adds it to the bias: codes and scales stay, and nothing is rounded but the sum.
"""

from dataclasses import replace

import mlx.core as mx

from macllm.errors import OptionError
from macllm.nn.adapted import Factors
from macllm.nn.stored import Packed, Stored


def folds(base: Stored, factors: Factors) -> bool:
    """Whether :func:`fold` can: the base is affine, and inputs of a group share their row of the first factor."""
    if not isinstance(base, Packed) or base.quantization.mode != "affine" or factors.magnitude is not None:
        return False
    whole = factors.whole().a
    return bool(mx.array_equal(whole, _spread(_by_group(whole, base), base)))


def fold(base: Packed, factors: Factors) -> Packed:
    """The matrix, or the stack, with the change in its biases, which keep their type. Raises OptionError if not so."""
    if not folds(base, factors):
        raise OptionError(
            f"an adapter that differs within groups of {base.quantization.group_size} inputs does not fold into "
            "biases; train it with qalora, or fuse it into 16-bit weights"
        )
    assert base.biases is not None
    whole = factors.whole()
    change = factors.scale * (_by_group(whole.a, base) @ whole.b).swapaxes(-1, -2)  # (..., O, I / group)
    return replace(base, biases=(base.biases.astype(mx.float32) + change).astype(base.biases.dtype))


def grouped(base: Stored, factors: Factors) -> Factors:
    """The same factors with one row a group where they fold, so that they still do when they have learned more."""
    if not folds(base, factors):
        return factors
    assert isinstance(base, Packed)
    whole = factors.whole()
    return replace(whole, a=_by_group(whole.a, base), group=base.quantization.group_size)


def _by_group(a: mx.array, base: Packed) -> mx.array:
    """The first row of every group (..., I / group, r)."""
    return a[..., :: base.quantization.group_size, :]


def _spread(a: mx.array, base: Packed) -> mx.array:
    return mx.repeat(a, base.quantization.group_size, axis=-2)
