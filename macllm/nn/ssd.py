"""The recurrence of Mamba 2: state space duality (Dao and Gu 2024, arXiv 2405.21060), in float32.

h = exp(a dt) h + dt x B, y = h C + d x: within a chunk of tokens that is attention without softmax, whose scores
fade with the distance; between chunks a state is carried. All of it is products of matrices.

Decays are exponentials of sums over the tokens between two positions, never quotients: where two decays have both
come down to nothing, their quotient is none.
"""

from dataclasses import dataclass

import mlx.core as mx

from macllm.nn.compiled import compiled
from macllm.nn.exponential import LOG2_E, exp2, slow_exponential

CHUNK = 64  # tokens; the work within a chunk grows with it, that between chunks shrinks


@dataclass(frozen=True)
class Inputs:
    """What tokens feed into the recurrence, and what it is made of.

    A token with a time step of 0 leaves the state as it was.
    """

    x: mx.array  # (B, L, H, P)
    dt: mx.array  # (B, L, H), in float32
    b: mx.array  # (B, L, G, N), G groups of heads
    c: mx.array  # (B, L, G, N)
    a: mx.array  # (H,), below 0
    d: mx.array  # (H,)


def chunked(inputs: Inputs, state: mx.array | None, chunk: int = CHUNK) -> tuple[mx.array, mx.array]:
    """Outputs (B, L, H, P) and the state (B, H, P, N) after them, from the state before (None: nothing was seen)."""
    batch, length, heads, width = inputs.x.shape
    groups, values = inputs.b.shape[2:]
    per = heads // groups
    count = -(-length // chunk)
    size = -(-length // count)  # chunks of one size, with the least padding

    def cut(array: mx.array, *last: int) -> mx.array:
        """(B, L, ...) to (B, n, S, G, ...)."""
        missing = count * size - length
        if missing:
            array = mx.pad(array, [(0, 0), (0, missing), *((0, 0),) * (array.ndim - 2)])
        return array.reshape(batch, count, size, groups, *last)

    power, a = (exp2, inputs.a * LOG2_E) if slow_exponential() else (mx.exp, inputs.a)
    x = inputs.x.astype(mx.float32)
    keys = cut(inputs.b.astype(mx.float32), values).swapaxes(2, 3)  # (B, n, G, S, N)
    queries = cut(inputs.c.astype(mx.float32), values).swapaxes(2, 3)
    given = cut(x * inputs.dt[..., None], per, width).transpose(
        0, 1, 3, 4, 2, 5
    )  # (B, n, G, R, S, P), R heads a group
    fading = cut(inputs.dt * a, per).transpose(0, 1, 3, 4, 2)  # (B, n, G, R, S)

    decays = power(segment_sums(fading))  # (B, n, G, R, S, S)
    scores = queries @ keys.swapaxes(-1, -2)  # (B, n, G, S, S)
    y = (scores[:, :, :, None] * decays) @ given  # (B, n, G, R, S, P)

    left = (given * decays[..., -1, :, None]).swapaxes(-1, -2)  # (B, n, G, R, P, S), at the chunk's end
    added = (left.reshape(batch, count, groups, -1, size) @ keys).reshape(batch, count, heads, width, values)
    kept = power(fading.sum(axis=-1)).reshape(batch, count, heads, 1, 1)
    states = [state if state is not None else mx.zeros((batch, heads, width, values))]
    for index in range(count):
        states.append(states[-1] * kept[:, index] + added[:, index])

    before = mx.stack(states[:-1], axis=1).reshape(batch, count, groups, -1, values)  # (B, n, G, R P, N)
    carried = (queries @ before.swapaxes(-1, -2)).reshape(batch, count, groups, size, per, width)
    y = y + carried.swapaxes(3, 4) * power(mx.cumsum(fading, axis=-1))[..., None]
    y = y.transpose(0, 1, 4, 2, 3, 5).reshape(batch, count * size, heads, width)[:, :length]
    return y + x * inputs.d[:, None], states[-1]


def segment_sums(x: mx.array) -> mx.array:
    """Sums over each stretch of the last axis: (..., S) to (..., S, S), at [i, j] those from j + 1 up to i.

    Minus infinity where i < j. Added up one by one: differences of sums from the start would lose digits.
    """
    size = x.shape[-1]
    rows = mx.broadcast_to(x[..., None], (*x.shape, size))
    return mx.where(mx.tri(size, dtype=mx.float32) > 0, mx.cumsum(mx.tril(rows, -1), axis=-2), -mx.inf)


def single(inputs: Inputs, state: mx.array) -> tuple[mx.array, mx.array]:
    """:func:`chunked` for one token."""
    batch, heads, width, values = state.shape
    groups = inputs.b.shape[2]
    x = inputs.x.reshape(batch, groups, -1, width, 1)  # (B, G, R, P, 1), R heads a group
    dt = inputs.dt.reshape(batch, groups, -1, 1, 1)
    a = inputs.a.reshape(groups, -1, 1, 1)
    b = inputs.b.reshape(batch, groups, 1, 1, values)
    state = compiled(_advanced)(state.reshape(batch, groups, -1, width, values), x, dt, a, b)
    c = inputs.c.reshape(batch, groups, values, 1).astype(mx.float32)
    y = state.reshape(batch, groups, -1, values) @ c  # (B, G, R P, 1)
    y = y.reshape(batch, 1, heads, width) + inputs.x * inputs.d[:, None]
    return y, state.reshape(batch, heads, width, values)


def _advanced(state: mx.array, x: mx.array, dt: mx.array, a: mx.array, b: mx.array) -> mx.array:
    return state * mx.exp(dt * a) + (dt * x) * b
