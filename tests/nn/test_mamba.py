"""The recurrences of Mamba 1 and 2 against the same, token by token, in float64."""

import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from macllm.nn import selective_scan, ssd
from macllm.nn.exponential import slow_exponential

TOLERANCE = 2e-5
# how fast states fade: hardly, as trained models do, within a token or two, and all of it in the same sequence
SCALES = {"slow": 1e-4, "usual": 0.05, "fast": 4.0, "extreme": 300.0}
LENGTHS = [1, 2, 15, 16, 17, 64, 65, 150]

Scan = selective_scan.Inputs
Dual = ssd.Inputs


def steps(generator: np.random.Generator, shape: tuple[int, ...], scale: str) -> np.ndarray:
    if scale == "mixed":
        return generator.choice([0.0, 1e-6, 0.01, 1.0, 500.0], shape)
    return generator.uniform(0, SCALES[scale], shape)


def dual_inputs(length: int, scale: str, *, heads: int = 6, groups: int = 2, seed: int = 0) -> Dual:
    g = np.random.default_rng(seed)
    arrays = (
        g.normal(size=(2, length, heads, 5)),
        steps(g, (2, length, heads), scale),
        g.normal(size=(2, length, groups, 7)),
        g.normal(size=(2, length, groups, 7)),
        -np.exp(g.uniform(-2, 3, heads)),
        g.normal(size=heads),
    )
    return Dual(*(mx.array(array.astype(np.float32)) for array in arrays))


def scan_inputs(length: int, scale: str, seed: int = 0) -> Scan:
    g = np.random.default_rng(seed)
    arrays = (
        g.normal(size=(2, length, 11)),
        steps(g, (2, length, 11), scale),
        g.normal(size=(2, length, 4)),
        g.normal(size=(2, length, 4)),
        g.uniform(-2, 3, (11, 4)),
        g.normal(size=11),
    )
    x, dt, b, c, a_log, d = (mx.array(array.astype(np.float32)) for array in arrays)
    return Scan(x, dt, b, c, selective_scan.rates_of(a_log), d)


def exact(inputs: Dual | Scan) -> list[np.ndarray]:
    fading = inputs.a if isinstance(inputs, Dual) else inputs.rates
    return [np.array(a, np.float64) for a in (inputs.x, inputs.dt, inputs.b, inputs.c, fading, inputs.d)]


def slow_dual(inputs: Dual, state: mx.array | None) -> tuple[np.ndarray, np.ndarray]:
    x, dt, b, c, a, d = exact(inputs)
    batch, length, heads, width = x.shape
    b, c = (np.repeat(array, heads // array.shape[2], axis=2) for array in (b, c))
    h = np.zeros((batch, heads, width, b.shape[-1])) if state is None else np.array(state, np.float64)
    outputs = []
    for t in range(length):
        given = (dt[:, t, :, None] * x[:, t])[..., None] * b[:, t, :, None]
        h = h * np.exp(dt[:, t] * a)[..., None, None] + given
        outputs.append((h * c[:, t, :, None]).sum(-1) + x[:, t] * d[:, None])
    return np.stack(outputs, axis=1), h


def slow_scan(inputs: Scan, state: mx.array | None) -> tuple[np.ndarray, np.ndarray]:
    x, dt, b, c, a, d = exact(inputs)
    batch, length, channels = x.shape
    base = 2.0 if slow_exponential() else math.e
    h = np.zeros((batch, channels, b.shape[-1])) if state is None else np.array(state, np.float64)
    outputs = []
    for t in range(length):
        h = h * base ** (dt[:, t, :, None] * a) + (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
        outputs.append((h * c[:, t, None]).sum(-1) + x[:, t] * d)
    return np.stack(outputs, axis=1), h


def assert_close(
    found: tuple[mx.array, mx.array], expected: tuple[np.ndarray | mx.array, np.ndarray | mx.array]
) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        a, b = np.array(ours), np.array(theirs)
        assert a.dtype == np.float32
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= TOLERANCE * np.abs(b).max()


def begun(shape: tuple[int, ...]) -> mx.array:
    return mx.array(np.random.default_rng(9).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("scale", [*SCALES, "mixed"])
@pytest.mark.parametrize("length", LENGTHS)
def test_duality_in_chunks_equals_token_by_token(length: int, scale: str) -> None:
    inputs = dual_inputs(length, scale)
    for state in (None, begun((2, 6, 5, 7))):
        expected = slow_dual(inputs, state)
        for chunk in (1, 4, 16, ssd.CHUNK, 256):
            assert_close(ssd.chunked(inputs, state, chunk), expected)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_heads_share_b_and_c_in_groups(groups: int) -> None:
    inputs = dual_inputs(40, "usual", groups=groups)
    assert_close(ssd.chunked(inputs, None, 16), slow_dual(inputs, None))


@pytest.mark.parametrize("scale", [*SCALES, "mixed"])
def test_one_token_equals_a_chunk_of_one(scale: str) -> None:
    state = begun((2, 6, 5, 7))
    for seed in range(3):
        inputs = dual_inputs(1, scale, seed=seed)
        assert_close(ssd.single(inputs, state), slow_dual(inputs, state))


@pytest.mark.parametrize("scale", [*SCALES, "mixed"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_scan_of_chunks_side_by_side_equals_token_by_token(length: int, scale: str) -> None:
    inputs = scan_inputs(length, scale)
    for state in (None, begun((2, 11, 4))):
        expected = slow_scan(inputs, state)
        for chunk in (None, 1, 5, 16, 200):
            assert_close(selective_scan.scan(inputs, state, chunk), expected)


def sliced(inputs: Dual | Scan, start: int, end: int) -> Dual | Scan:
    return replace(inputs, **{name: getattr(inputs, name)[:, start:end] for name in ("x", "dt", "b", "c")})


@pytest.mark.parametrize("cuts", [[70], [1, 2, 3], [64], [63, 65], [99]])
def test_a_sequence_in_pieces_equals_the_whole(cuts: list[int]) -> None:
    for inputs, run in (
        (dual_inputs(100, "usual"), ssd.chunked),
        (scan_inputs(100, "usual"), selective_scan.scan),
    ):
        whole, state, parts = run(inputs, None), None, []
        for start, end in zip([0, *cuts], [*cuts, 100], strict=True):
            y, state = run(sliced(inputs, start, end), state)
            parts.append(y)
        assert_close((mx.concatenate(parts, axis=1), state), whole)


def test_a_time_step_of_zero_leaves_the_state_as_it_was() -> None:
    """Exactly: padding, and the tokens that fill up a chunk, have one."""
    for inputs, run, shape in (
        (dual_inputs(70, "usual"), ssd.chunked, (2, 6, 5, 7)),
        (dual_inputs(1, "usual"), ssd.single, (2, 6, 5, 7)),
        (scan_inputs(70, "usual"), selective_scan.scan, (2, 11, 4)),
        (scan_inputs(1, "usual"), selective_scan.scan, (2, 11, 4)),
    ):
        state = begun(shape)
        _, after = run(replace(inputs, dt=mx.zeros_like(inputs.dt)), state)
        assert mx.array_equal(after, state)


def test_stretches_that_fade_to_nothing_keep_the_digits_of_those_that_do_not() -> None:
    """A sum from the chunk's start, less another, would have lost them."""
    fading = mx.array([-4000.0, -3000.0, -1e-3, -2e-3])
    sums = np.array(ssd.segment_sums(fading))
    assert sums[3, 1] == pytest.approx(-3e-3, rel=1e-6)
    assert (np.diag(sums) == 0).all()
    assert (sums[np.triu_indices(4, 1)] == -np.inf).all()


@pytest.mark.parametrize("scale", ["usual", "extreme"])
def test_gradients_equal_those_token_by_token(scale: str) -> None:
    def loss(inputs: Dual | Scan, run, x: mx.array, dt: mx.array, pieces: int) -> mx.array:
        inputs, state, total = replace(inputs, x=x, dt=dt), None, mx.array(0.0)
        size = x.shape[1] // pieces
        for index in range(pieces):
            y, state = run(sliced(inputs, index * size, (index + 1) * size), state)
            total = total + (y * mx.cos(y)).sum()
        return total + (state * state).sum()

    for inputs, run in (
        (dual_inputs(24, scale), lambda i, s: ssd.chunked(i, s, 8)),
        (scan_inputs(24, scale), lambda i, s: selective_scan.scan(i, s, 8)),
    ):
        gradient = mx.grad(loss, argnums=(2, 3))
        found = gradient(inputs, run, inputs.x, inputs.dt, 1)
        assert_close(found, gradient(inputs, run, inputs.x, inputs.dt, 24))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_sums_are_in_float32_whatever_the_inputs_are(dtype: mx.Dtype) -> None:
    for inputs, run, slow in (
        (dual_inputs(40, "usual"), ssd.chunked, slow_dual),
        (scan_inputs(40, "usual"), selective_scan.scan, slow_scan),
    ):
        half = replace(inputs, **{name: getattr(inputs, name).astype(dtype) for name in ("x", "b", "c")})
        assert_close(
            run(half, None),
            slow(replace(half, **{n: getattr(half, n).astype(mx.float32) for n in "xbc"}), None),
        )
