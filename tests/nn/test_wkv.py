"""The recurrence of RWKV-7 in chunks and in single steps, against its formula, token by token in float64."""

from dataclasses import fields

import mlx.core as mx
import numpy as np
import pytest

from macllm.nn.wkv import Inputs, chunked, single

RNG = np.random.default_rng(0)


def looped(r, log_w, k, v, a, b, state) -> tuple[np.ndarray, np.ndarray]:
    """One token and one head after the other."""
    y, s = np.zeros_like(v), np.array(state, np.float64)  # (B, H, N, P)
    for row in range(v.shape[0]):
        for t in range(v.shape[1]):
            for h in range(v.shape[2]):
                at = (row, t, h)
                held = a[at] @ s[row, h]
                s[row, h] = np.exp(log_w[at])[:, None] * s[row, h]
                s[row, h] += np.outer(b[at], held) + np.outer(k[at], v[at])
                y[at] = r[at] @ s[row, h]
    return y, s


def given(length: int, batch: int = 2, strongest: float = 0.6065) -> list[np.ndarray]:
    """Random inputs as the model makes them: what is replaced is of the same direction."""
    r, k, direction = RNG.normal(size=(3, batch, length, 3, 8))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    v = RNG.normal(size=(batch, length, 3, 5))
    log_w = -strongest * RNG.uniform(size=k.shape)
    return [r, log_w, k, v, -direction, direction * RNG.uniform(size=k.shape)]


def as_inputs(arrays: list[np.ndarray]) -> Inputs:
    return Inputs(*(mx.array(array.astype(np.float32)) for array in arrays))


def apart(found: mx.array, expected: np.ndarray) -> float:
    return float(np.abs(np.array(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 150])
@pytest.mark.parametrize("started", [False, True])
def test_chunks_equal_the_formula(length: int, started: bool) -> None:
    arrays = given(length)
    before = RNG.normal(size=(2, 3, 8, 5)) if started else np.zeros((2, 3, 8, 5))
    y, state = chunked(as_inputs(arrays), mx.array(before.astype(np.float32)) if started else None)
    expected, after = looped(*arrays, before)
    assert apart(y, expected) < 1e-5
    assert apart(state, after) < 1e-5


@pytest.mark.parametrize("chunk", [1, 2, 4, 8, 16, 32])
def test_any_size_of_chunk_gives_the_same(chunk: int) -> None:
    arrays = given(75)
    y, state = chunked(as_inputs(arrays), None, chunk)
    expected, after = looped(*arrays, np.zeros((2, 3, 8, 5)))
    assert apart(y, expected) < 1e-5
    assert apart(state, after) < 1e-5


@pytest.mark.parametrize("strongest", [0.0, 1e-4, 0.6065])
def test_rows_that_all_fade_as_much_as_they_can(strongest: float) -> None:
    arrays = given(100, strongest=strongest)
    arrays[1][:] = -strongest
    arrays[4][:] = arrays[4][:, :1]  # the same key again and again
    arrays[5][:] = -arrays[4]
    y, state = chunked(as_inputs(arrays), None)
    expected, after = looped(*arrays, np.zeros((2, 3, 8, 5)))
    assert apart(y, expected) < 1e-5
    assert apart(state, after) < 1e-5


def test_single_steps_equal_the_formula() -> None:
    arrays = given(30)
    inputs = as_inputs(arrays)
    state, parts = mx.zeros((2, 3, 8, 5)), []
    for t in range(30):
        step = Inputs(*(getattr(inputs, field.name)[:, t : t + 1] for field in fields(Inputs)))
        y, state = single(step, state)
        parts.append(y)
    expected, after = looped(*arrays, np.zeros((2, 3, 8, 5)))
    assert apart(mx.concatenate(parts, axis=1), expected) < 1e-5
    assert apart(state, after) < 1e-5
