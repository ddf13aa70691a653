"""The recurrence of RWKV-7 (Peng et al. 2025, arXiv 2503.14456), in float32.

A state S maps keys to values. A token lets each of its rows fade by its own w, replaces what it holds for the key -a
by as much of it for b, and adds its own: S = diag(w) S + b (a S) + k v, y = r S.

As in the delta rule (``macllm.nn.delta_rule``) a chunk of tokens is a triangular system and products of matrices.
Fading between two tokens is here a quotient of what fades from the chunk's start: a token leaves no less than 0.54 of
a row, so chunks must be short, and are.
"""

from dataclasses import dataclass

import mlx.core as mx

from macllm.nn.compiled import compiled
from macllm.nn.exponential import LOG2_E, exp2, slow_exponential
from macllm.nn.triangular import solvable_size, unit_lower_inverse

CHUNK = 32  # tokens: rows then fade by 3e-9 at most


@dataclass(frozen=True)
class Inputs:
    """What tokens feed into the recurrence (B, L, H, N), the values (B, L, H, P); all in float32.

    A token whose k, v, a and b are 0 leaves a state of zero as it was.
    """

    r: mx.array
    log_w: mx.array  # between -0.61 and 0
    k: mx.array
    v: mx.array
    a: mx.array
    b: mx.array


def chunked(inputs: Inputs, state: mx.array | None, chunk: int = CHUNK) -> tuple[mx.array, mx.array]:
    """Outputs (B, L, H, P) and the state (B, H, N, P) after them, from the state before (None: nothing was seen)."""
    batch, length, heads, keys = inputs.k.shape
    width = inputs.v.shape[3]
    size = solvable_size(length, chunk)
    count = -(-length // size)

    def cut(array: mx.array) -> mx.array:
        """(B, L, H, N) to (B, n, H, S, N)."""
        missing = count * size - length
        if missing:
            array = mx.pad(array, [(0, 0), (0, missing), (0, 0), (0, 0)])
        return array.reshape(batch, count, size, heads, -1).swapaxes(2, 3)

    power, log_w = (exp2, inputs.log_w * LOG2_E) if slow_exponential() else (mx.exp, inputs.log_w)
    r, log_w, k, v, a, b = map(cut, (inputs.r, log_w, inputs.k, inputs.v, inputs.a, inputs.b))
    since = mx.cumsum(log_w, axis=-2)  # from the chunk's start, this token included
    back, end = power(-since), since[..., -1:, :]
    reading = mx.concatenate([a * power(since - log_w), r * power(since)], axis=-2)  # (B, n, H, 2 S, N)
    scores = reading @ mx.concatenate([b * back, k * back], axis=-2).swapaxes(-1, -2)  # (B, n, H, 2 S, 2 S)
    scores = scores * _seen(size)
    of_replaced, of_added = mx.split(scores, 2, axis=-1)  # (B, n, H, 2 S, S)

    # what each token replaces depends on what the ones before it in the chunk did
    solved = unit_lower_inverse(-of_replaced[..., :size, :])
    added = of_added @ v  # (B, n, H, 2 S, P)
    added_first, added_then = mx.split(added, 2, axis=-2)
    reading_first, reading_then = mx.split(reading, 2, axis=-2)
    replaced = solved @ mx.concatenate([reading_first, added_first], axis=-1)
    through, alone = mx.split(replaced, [keys], axis=-1)  # of the state before, and without it
    fading = power(end - since)
    left = (b * fading).swapaxes(-1, -2)  # (B, n, H, N, S), at the chunk's end
    kept, grown = power(end).swapaxes(-1, -2), (k * fading).swapaxes(-1, -2) @ v

    s = state if state is not None else mx.zeros((batch, heads, keys, width))
    states, wrote = [], []
    for index in range(count):
        states.append(s)
        wrote.append(through[:, index] @ s + alone[:, index])
        s = kept[:, index] * s + left[:, index] @ wrote[-1] + grown[:, index]

    y = reading_then @ mx.stack(states, axis=1) + of_replaced[..., size:, :] @ mx.stack(wrote, axis=1)
    y = (y + added_then).swapaxes(2, 3).reshape(batch, count * size, heads, width)
    return y[:, :length], s


def single(inputs: Inputs, state: mx.array) -> tuple[mx.array, mx.array]:
    """:func:`chunked` for one token."""
    batch, heads, keys, width = state.shape
    r, a = (x.reshape(batch, heads, 1, keys) for x in (inputs.r, inputs.a))
    log_w, k, b = (x.reshape(batch, heads, keys, 1) for x in (inputs.log_w, inputs.k, inputs.b))
    v = inputs.v.reshape(batch, heads, 1, width)
    state = compiled(_updated)(state, a @ state, log_w, k, v, b)
    return (r @ state).reshape(batch, 1, heads, width), state


def _updated(s: mx.array, held: mx.array, log_w: mx.array, k: mx.array, v: mx.array, b: mx.array) -> mx.array:
    return mx.exp(log_w) * s + b * held + k * v


def _seen(size: int) -> mx.array:
    """Ones (2 S, 2 S) where a token sees another: for what it replaces those before it, for its output itself too."""
    before, now = mx.tri(size, k=-1), mx.tri(size)
    return mx.concatenate([mx.tile(before, (1, 2)), mx.tile(now, (1, 2))], axis=0)
