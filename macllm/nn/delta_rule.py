"""The gated delta rule (Yang et al. 2024, arXiv 2412.06464), in float32.

A state S maps keys to values. A token lets it fade by exp(g), and moves what it holds for the key k towards the value
v: S = exp(g) S + k beta (v - k exp(g) S), y = q S.

Over a chunk of tokens the values written depend on each other by a lower triangular system; once that is solved
(the WY representation of the product of the steps), all else is products of matrices, and only the state is carried
from chunk to chunk.
"""

from dataclasses import dataclass

import mlx.core as mx

from macllm.nn.compiled import compiled
from macllm.nn.exponential import LOG2_E, exp2, slow_exponential
from macllm.nn.ssd import segment_sums
from macllm.nn.triangular import solvable_size, unit_lower_inverse

CHUNK = 64  # tokens


@dataclass(frozen=True)
class Inputs:
    """What tokens feed into the recurrence; H value heads share K of queries and keys. All in float32.

    A token whose key, value and g are 0 leaves the state as it was.
    """

    q: mx.array  # (B, L, K, N)
    k: mx.array  # (B, L, K, N), of length one at most
    v: mx.array  # (B, L, H, P)
    g: mx.array  # (B, L, H), 0 or below
    beta: mx.array  # (B, L, H), between 0 and 1, or 2


def chunked(inputs: Inputs, state: mx.array | None, chunk: int = CHUNK) -> tuple[mx.array, mx.array]:
    """Outputs (B, L, H, P) and the state (B, H, N, P) after them, from the state before (None: nothing was seen)."""
    batch, length, groups, keys = inputs.k.shape
    heads, width = inputs.v.shape[2:]
    size = solvable_size(length, chunk)
    count = -(-length // size)

    def cut(array: mx.array, *last: int) -> mx.array:
        """(B, L, ...) to (B, n, K, R, S, ...), R heads a key."""
        missing = count * size - length
        if missing:
            array = mx.pad(array, [(0, 0), (0, missing), *((0, 0),) * (array.ndim - 2)])
        return array.reshape(batch, count, size, groups, -1, *last).moveaxis(2, 4)

    power, g = (exp2, inputs.g * LOG2_E) if slow_exponential() else (mx.exp, inputs.g)
    q, k, v = cut(inputs.q, keys), cut(inputs.k, keys), cut(inputs.v, width)
    beta, g = cut(inputs.beta)[..., None], cut(g)
    decays = power(segment_sums(g))  # (B, n, K, R, S, S), from each token to each later one
    since = power(mx.cumsum(g, axis=-1))[..., None]  # (B, n, K, R, S, 1), from the chunk's start
    fading = decays[..., -1, :, None]  # to the chunk's end

    solved = unit_lower_inverse(beta * (k @ k.swapaxes(-1, -2)) * decays)
    written = solved @ (beta * v)  # (B, n, K, R, S, P), were the state before zero
    reading = mx.concatenate([solved @ (beta * since * k), since * q], axis=-2)  # (B, n, K, R, 2 S, N)
    left = (fading * k).swapaxes(-1, -2)  # (B, n, K, R, N, S)
    kept = since[..., -1:, :]

    shape = (batch, groups, heads // groups, keys, width)
    s = state.reshape(shape) if state is not None else mx.zeros(shape)
    read, wrote = [], []
    for index in range(count):
        held, seen = mx.split(reading[:, index] @ s, 2, axis=-2)  # (B, K, R, S, P) each
        wrote.append(written[:, index] - held)
        read.append(seen)
        s = kept[:, index] * s + left[:, index] @ wrote[-1]

    scores = (q @ k.swapaxes(-1, -2)) * decays
    y = mx.stack(read, axis=1) + scores @ mx.stack(wrote, axis=1)
    y = y.moveaxis(4, 2).reshape(batch, count * size, heads, width)[:, :length]
    return y, s.reshape(batch, heads, keys, width)


def single(inputs: Inputs, state: mx.array) -> tuple[mx.array, mx.array]:
    """:func:`chunked` for one token."""
    batch, heads, keys, width = state.shape
    groups = inputs.k.shape[2]
    q, k = (x.reshape(batch, groups, 1, 1, keys) for x in (inputs.q, inputs.k))
    g, beta = (x.reshape(batch, groups, -1, 1, 1) for x in (inputs.g, inputs.beta))
    s = state.reshape(batch, groups, -1, keys, width)  # (B, K, R, N, P), R heads a key
    v = inputs.v.reshape(batch, groups, -1, 1, width)
    s = compiled(_updated)(s, k @ s, k.swapaxes(-1, -2), v, g, beta)
    return (q @ s).reshape(batch, 1, heads, width), s.reshape(state.shape)


def _updated(s: mx.array, held: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array) -> mx.array:
    decay = mx.exp(g)
    return decay * s + k * (beta * (v - decay * held))
