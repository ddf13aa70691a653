"""Causal depthwise convolution: both ways of computing it against a loop, and what its tail carries over."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from macllm.nn import convolution
from macllm.nn.convolution import CausalConvolution

RNG = np.random.default_rng(0)
CHANNELS = 6


class Given:
    """Parameters by name."""

    def __init__(self, **vectors: np.ndarray) -> None:
        self._vectors = vectors

    def vector(self, name: str, *, wide: bool = False) -> mx.array:
        return mx.array(self._vectors[name.removeprefix("conv.")])


def looped(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Token by token, channel by channel."""
    y = np.zeros_like(x)
    for t in range(x.shape[1]):
        for back in range(min(t + 1, weight.shape[1])):
            y[:, t] += x[:, t - back] * weight[:, -1 - back]
    return y


def made(width: int, **options: bool) -> tuple[CausalConvolution, np.ndarray, np.ndarray]:
    weight = RNG.normal(size=(CHANNELS, width)).astype(np.float32)
    bias = RNG.normal(size=CHANNELS).astype(np.float32)
    parameters: Any = Given(weight=weight, bias=bias)
    return CausalConvolution(parameters, "conv", **options), weight, bias


@pytest.fixture(params=["kernel", "shifted"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either way of computing it, whatever this machine would take."""
    for name in ("kernel", "shifted"):
        monkeypatch.setattr(convolution, name, getattr(convolution, request.param))
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 19])
def test_any_chunks_equal_the_loop(width: int, chunk: int) -> None:
    convolve, weight, _ = made(width)
    x = RNG.normal(size=(2, 19, CHANNELS)).astype(np.float32)
    tail, parts = None, []
    for start in range(0, 19, chunk):
        y, tail = convolve(mx.array(x[:, start : start + chunk]), tail)
        assert tail.shape == (2, width - 1, CHANNELS)
        parts.append(y)
    assert np.abs(np.array(mx.concatenate(parts, axis=1)) - looped(x, weight)).max() < 1e-5
    assert (np.array(tail) == x[:, 20 - width :]).all()


@pytest.mark.usefixtures("way")
def test_bias_and_activation_come_after_it() -> None:
    convolve, weight, bias = made(4, bias=True, silu=True)
    x = RNG.normal(size=(1, 9, CHANNELS)).astype(np.float32)
    y = looped(x, weight) + bias
    assert np.abs(np.array(convolve(mx.array(x), None)[0]) - y / (1 + np.exp(-y))).max() < 1e-5


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("length", [1, 12])
def test_half_precision_is_rounded_once(dtype: mx.Dtype, length: int) -> None:
    """The sum is float32's, whatever goes in and comes out."""
    convolve, weight, _ = made(4)
    convolve.weight = mx.array(weight).astype(dtype)
    x = mx.array(RNG.normal(size=(1, length, CHANNELS))).astype(dtype)
    y, tail = convolve(x, None)
    exact = mx.array(looped(*(np.array(a.astype(mx.float32)) for a in (x, convolve.weight)))).astype(dtype)
    assert y.dtype == tail.dtype == dtype
    assert mx.mean(y == exact).item() > 0.9  # the kernel sums in another order


def test_a_tail_holds_no_more_than_itself() -> None:
    convolve, _, _ = made(4)
    x = mx.random.normal((1, 4096, CHANNELS))
    _, tail = convolve(x, None)
    mx.eval(tail)
    del x
    before = mx.get_active_memory()
    del tail
    assert before - mx.get_active_memory() < 10_000
