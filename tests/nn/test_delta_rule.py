"""The gated delta rule in chunks and in single steps, against the rule itself, token by token in float64."""

from dataclasses import fields

import mlx.core as mx
import numpy as np
import pytest

from macllm.nn.delta_rule import Inputs, chunked, single
from macllm.nn.triangular import unit_lower_inverse

RNG = np.random.default_rng(0)


def looped(q, k, v, g, beta, state) -> tuple[np.ndarray, np.ndarray]:
    """As the paper has it (its equation 10), one token and one head after the other."""
    batch, length, heads, width = v.shape
    y = np.zeros((batch, length, heads, width))
    s = np.array(state, np.float64)  # (B, H, N, P)
    per = heads // k.shape[2]
    for b in range(batch):
        for t in range(length):
            for h in range(heads):
                key, query = k[b, t, h // per], q[b, t, h // per]
                s[b, h] *= np.exp(g[b, t, h])
                s[b, h] += beta[b, t, h] * np.outer(key, v[b, t, h] - key @ s[b, h])
                y[b, t, h] = query @ s[b, h]
    return y, s


def given(length: int, batch: int = 2, groups: int = 2, per: int = 3, slow: float = 0.3) -> list[np.ndarray]:
    """Random inputs; ``slow`` is how fast states fade."""
    q, k = RNG.normal(size=(2, batch, length, groups, 8))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    v = RNG.normal(size=(batch, length, groups * per, 5))
    g = -slow * RNG.exponential(size=v.shape[:3])
    return [q, k, v, g, RNG.uniform(size=v.shape[:3])]


def as_inputs(arrays: list[np.ndarray]) -> Inputs:
    return Inputs(*(mx.array(array.astype(np.float32)) for array in arrays))


def apart(found: mx.array, expected: np.ndarray) -> float:
    return float(np.abs(np.array(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("length", [1, 2, 7, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 200])
@pytest.mark.parametrize("started", [False, True])
def test_chunks_equal_the_rule(length: int, started: bool) -> None:
    arrays = given(length)
    before = RNG.normal(size=(2, 6, 8, 5)) if started else np.zeros((2, 6, 8, 5))
    y, state = chunked(as_inputs(arrays), mx.array(before.astype(np.float32)) if started else None)
    expected, after = looped(*arrays, before)
    assert apart(y, expected) < 1e-5
    assert apart(state, after) < 1e-5


@pytest.mark.parametrize("chunk", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("per", [1, 4])
def test_any_size_of_chunk_gives_the_same(chunk: int, per: int) -> None:
    arrays = given(75, per=per)
    y, state = chunked(as_inputs(arrays), None, chunk)
    expected, after = looped(*arrays, np.zeros((2, 2 * per, 8, 5)))
    assert apart(y, expected) < 1e-5
    assert apart(state, after) < 1e-5


def test_single_steps_equal_the_rule() -> None:
    arrays = given(30)
    inputs = as_inputs(arrays)
    state, parts = mx.zeros((2, 6, 8, 5)), []
    for t in range(30):
        step = Inputs(*(getattr(inputs, field.name)[:, t : t + 1] for field in fields(Inputs)))
        y, state = single(step, state)
        parts.append(y)
    expected, after = looped(*arrays, np.zeros((2, 6, 8, 5)))
    assert apart(mx.concatenate(parts, axis=1), expected) < 1e-5
    assert apart(state, after) < 1e-5


@pytest.mark.parametrize("slow", [0.0, 1e-3, 30.0, 3000.0])
def test_states_that_never_fade_and_ones_that_fade_at_once(slow: float) -> None:
    arrays = given(150, slow=slow)
    y, state = chunked(as_inputs(arrays), None)
    expected, after = looped(*arrays, np.zeros((2, 6, 8, 5)))
    assert apart(y, expected) < 1e-5
    assert apart(state, after) < 1e-5


def test_one_strong_decay_takes_no_digits_from_the_weak_ones_after_it() -> None:
    arrays = given(64, slow=0.01)
    arrays[3][:, 3] = -2000.0
    y, _ = chunked(as_inputs(arrays), None)
    expected, _ = looped(*arrays, np.zeros((2, 6, 8, 5)))
    assert apart(y, expected) < 1e-5


def test_the_same_key_again_and_again() -> None:
    """The system of a chunk is then full: a series of its powers would have terms of 1e17."""
    arrays = given(128, slow=0.0)
    arrays[1][:] = arrays[1][:, :1]
    arrays[4][:] = 1.0
    y, state = chunked(as_inputs(arrays), None)
    expected, after = looped(*arrays, np.zeros((2, 6, 8, 5)))
    assert apart(y, expected) < 1e-5
    assert apart(state, after) < 1e-5


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 16, 32, 64])
def test_inverses_of_triangular_matrices(size: int) -> None:
    lower = RNG.uniform(-1, 1, size=(3, 2, size, size)) * 0.5
    found = unit_lower_inverse(mx.array(lower.astype(np.float32)))
    expected = np.linalg.inv(np.eye(size) + np.tril(lower, -1))
    assert found.shape == expected.shape or size == 1
    assert apart(mx.broadcast_to(found, expected.shape), expected) < 1e-5


def test_gradients_through_chunks_are_those_through_steps() -> None:
    inputs = as_inputs(given(40, batch=1))
    parts = [getattr(inputs, field.name) for field in fields(Inputs)]

    def by_chunks(*arrays: mx.array) -> mx.array:
        return (chunked(Inputs(*arrays), None, 16)[0] ** 2).sum()

    def by_steps(*arrays: mx.array) -> mx.array:
        state, total = mx.zeros((1, 6, 8, 5)), mx.array(0.0)
        for t in range(40):
            y, state = single(Inputs(*(array[:, t : t + 1] for array in arrays)), state)
            total = total + (y**2).sum()
        return total

    places = list(range(5))
    for left, right in zip(
        mx.grad(by_chunks, places)(*parts), mx.grad(by_steps, places)(*parts), strict=True
    ):
        assert apart(left, np.array(right)) < 1e-4
