"""The recurrence of Mamba 1: a selective scan (Gu and Dao 2023, arXiv 2312.00752), in float32.

h = exp(a dt) h + dt x B, y = h C + d x, with a decay for each value of the state, so that it is no product of
matrices. The tokens are cut into chunks that go forward side by side, about the square root of their number in
steps: once from nothing, which gives what each chunk adds to the state, and once from the states that they then
begin with. Memory holds the states of one token in each chunk, never of all.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx

from macllm.nn.compiled import compiled
from macllm.nn.exponential import LOG2_E, exp2, slow_exponential

_FEWEST = 16  # tokens of a chunk; with fewer there is nothing to be gained


@dataclass(frozen=True)
class Inputs:
    """What tokens feed into the recurrence, and what it is made of.

    A token with a time step of 0 leaves the state as it was.
    """

    x: mx.array  # (B, L, I)
    dt: mx.array  # (B, L, I), in float32
    b: mx.array  # (B, L, N)
    c: mx.array  # (B, L, N)
    rates: mx.array  # (I, N), of :func:`rates_of`
    d: mx.array  # (I,)


def rates_of(a_log: mx.array) -> mx.array:
    """How fast states fade, from the logarithms that models hold: ``-exp(a_log)``, in base two where that is faster."""
    return -mx.exp(a_log) * LOG2_E if slow_exponential() else -mx.exp(a_log)


def scan(inputs: Inputs, state: mx.array | None, chunk: int | None = None) -> tuple[mx.array, mx.array]:
    """Outputs (B, L, I) and the state (B, I, N) after them, from the state before (None: nothing was seen)."""
    batch, length, channels = inputs.x.shape
    if state is None:
        state = mx.zeros((batch, channels, inputs.b.shape[-1]))
    if length == 1:
        return _single(inputs, state)
    chunk = chunk or max(_FEWEST, math.isqrt(length))
    count = -(-length // chunk)
    size = -(-length // count)  # chunks of one size, with the least padding
    x, dt, b, c = (
        _cut(array.astype(mx.float32), count, size) for array in (inputs.x, inputs.dt, inputs.b, inputs.c)
    )
    starts = _starts(state, x[:, :-1], dt[:, :-1], b[:, :-1], inputs.rates) if count > 1 else state[:, None]
    seen = []
    for token, states in enumerate(_sweep(starts, x, dt, b, inputs.rates)):
        seen.append((states @ c[:, :, token, :, None]).squeeze(-1))  # (B, n, I)
    y = mx.stack(seen, axis=2) + x * inputs.d
    return y.reshape(batch, -1, channels)[:, :length], states[:, -1]


def _single(inputs: Inputs, state: mx.array) -> tuple[mx.array, mx.array]:
    batch, _, channels = inputs.x.shape
    x, dt = inputs.x.reshape(batch, channels, 1), inputs.dt.reshape(batch, channels, 1)
    state = compiled(_advanced)(state, dt, inputs.rates, x, inputs.b)
    y = state @ inputs.c.astype(mx.float32).reshape(batch, -1, 1)  # (B, I, 1)
    return y.reshape(batch, 1, channels) + inputs.x * inputs.d, state


def _starts(state: mx.array, x: mx.array, dt: mx.array, b: mx.array, rates: mx.array) -> mx.array:
    """The states (B, n + 1, I, N) that chunks begin with, from the first one's (B, I, N) and all chunks but the last.

    Those are x and dt (B, n, S, I) and B (B, n, S, N).
    """
    for states in _sweep(mx.zeros((*dt[:, :, 0].shape, b.shape[-1])), x, dt, b, rates):
        added = states  # by each chunk to the state, once its last token is through
    kept = _decay(dt.sum(axis=2)[..., None], rates)  # (B, n, I, N), by each chunk of the state
    starts = [state]
    for index in range(dt.shape[1]):
        starts.append(starts[-1] * kept[:, index] + added[:, index])
    return mx.stack(starts, axis=1)


def _sweep(states: mx.array, x: mx.array, dt: mx.array, b: mx.array, rates: mx.array) -> Iterator[mx.array]:
    """The states (B, n, I, N) of chunks after each of their tokens; x and dt (B, n, S, I), B (B, n, S, N)."""
    advanced = compiled(_advanced)
    for token in range(dt.shape[2]):
        given, steps = x[:, :, token, :, None], dt[:, :, token, :, None]
        states = advanced(states, steps, rates, given, b[:, :, token, None])
        yield states


def _advanced(state: mx.array, dt: mx.array, rates: mx.array, x: mx.array, b: mx.array) -> mx.array:
    return state * _decay(dt, rates) + (dt * x) * b


def _decay(dt: mx.array, rates: mx.array) -> mx.array:
    return exp2(dt * rates) if slow_exponential() else mx.exp(dt * rates)


def _cut(array: mx.array, count: int, size: int) -> mx.array:
    """(B, L, ...) to (B, n, S, ...), with zeros at the end."""
    missing = count * size - array.shape[1]
    if missing:
        array = mx.pad(array, [(0, 0), (0, missing), (0, 0)])
    return array.reshape(array.shape[0], count, size, array.shape[-1])
