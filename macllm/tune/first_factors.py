"""What low-rank adapters begin with: factors that change nothing, drawn at random or taken from the matrix itself."""

import math
from collections.abc import Sequence

import mlx.core as mx

from macllm.adapters.method import Method
from macllm.errors import OptionError
from macllm.nn.adapted import Factors, plain, row_lengths
from macllm.nn.decoder import Decoder
from macllm.nn.stored import Packed, Stored
from macllm.spec import TensorSpec

_SPARE, _ROUNDS = 8, 8  # columns beside those that are wanted, and passes, of the search for the largest part


def first_factors(
    model: Decoder, chosen: Sequence[TensorSpec], method: Method, seed: int
) -> dict[str, Factors]:
    """Those of the chosen matrices, in float32, one expanded matrix in memory at a time.

    Raises OptionError for a matrix whose storage the method does not learn on.
    """
    stored = dict(model.tensors())
    keys = mx.random.split(mx.random.key(seed), len(chosen))
    factors = {}
    for key, tensor in zip(keys, chosen, strict=True):
        name, matrix = tensor.name.removesuffix(".weight"), stored[tensor.name]
        match method.kind:
            case "pissa":
                found = _principal_factors(name, matrix, method, key)
            case "qalora":
                found = _drawn(tensor, method, key, _group(name, matrix))
            case "dora":
                found = _drawn(tensor, method, key, lengths=row_lengths(plain(matrix)))
            case _:
                if method.kind == "qlora" and not isinstance(matrix, Packed):
                    raise OptionError(
                        f"{name} is stored plain, and qlora learns beside packed weights; pack the model "
                        "(macllm convert --q-mode nf4), or take lora"
                    )
                found = _drawn(tensor, method, key)
        mx.eval(found.a, found.b, found.magnitude if found.magnitude is not None else [], found.start or [])
        factors[name] = found
    return factors


def _drawn(
    tensor: TensorSpec, method: Method, key: mx.array, group: int = 1, lengths: mx.array | None = None
) -> Factors:
    """The first at random as mlx-lm draws it, the second zero.

    A sum over a group is as much larger as there are fewer of them, so the bound is that of all inputs.
    """
    *count, outputs, inputs = tensor.shape
    bound = 1 / math.sqrt(inputs)
    a = mx.random.uniform(-bound, bound, (*count, inputs // group, method.rank), key=key)
    return Factors(a, mx.zeros((*count, method.rank, outputs)), method.factor, lengths, group)


def _group(name: str, matrix: Stored) -> int:
    """The inputs that share a scale and a bias."""
    if isinstance(matrix, Packed) and matrix.quantization.mode == "affine":
        return matrix.quantization.group_size
    kept = str(matrix.quantization) if isinstance(matrix, Packed) else "plain numbers"
    raise OptionError(
        f"{name} is stored as {kept}, and qalora folds into the biases of affine groups; "
        "take a base in mode affine, targets that leave it out, or lora"
    )


def _principal_factors(name: str, matrix: Stored, method: Method, key: mx.array) -> Factors:
    """Factors whose change is the largest part of the matrix of this rank, and the same again as their start."""
    *count, outputs, inputs = matrix.shape
    if method.rank > min(outputs, inputs):
        raise OptionError(
            f"{name} is {outputs} x {inputs} and has no part of rank {method.rank}; lower rank, or leave it out "
            "with targets"
        )
    one_each = [matrix.rows(index) for index in range(count[0])] if count else [matrix]
    pairs = []
    for each, own in zip(one_each, mx.random.split(key, len(one_each)), strict=True):
        left, lengths, right = principal(plain(each), method.rank, own)
        roots = mx.sqrt(lengths / method.factor)
        pairs.append((right * roots, roots[:, None] * left.T))
        mx.eval(pairs[-1])
    a, b = (mx.stack(list(sides)) if count else sides[0] for sides in zip(*pairs, strict=True))
    return Factors(a, b, method.factor, start=(a, b))


def principal(matrix: mx.array, rank: int, key: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """The largest ``rank`` singular values (r,) of a matrix (O, I) in float32, and their vectors (O, r) and (I, r).

    By subspace iteration from a random start (arXiv 0909.4061, algorithm 4.4): a whole decomposition of an 8B's
    matrices would take hours.
    """
    outputs, inputs = matrix.shape
    width = min(rank + _SPARE, outputs, inputs)
    right = mx.random.normal((inputs, width), key=key)
    for _ in range(_ROUNDS):
        right, _ = mx.linalg.qr(matrix.T @ (matrix @ right), stream=mx.cpu)
    left, rest = mx.linalg.qr(matrix @ right, stream=mx.cpu)
    inner, lengths, turns = mx.linalg.svd(rest, stream=mx.cpu)
    return (left @ inner)[:, :rank], lengths[:rank], (right @ turns.T)[:, :rank]
