"""Attention whose scores are computed anew in the backward pass: the same values and gradients, and linear memory."""

import mlx.core as mx
import numpy as np
import pytest

from macllm.nn.attend import Attend, Scores
from macllm.nn.step import Step

HEADS, KV_HEADS, WIDTH = 4, 2, 16
KINDS = {
    "full": Scores(0.25),
    "window": Scores(0.25, window=70),
    "chunk": Scores(0.25, chunk=100),
    "capped": Scores(0.25, softcap=2.0),
    "slopes": Scores(0.25, slopes=(0.5, 0.25, 0.125, 0.0625)),
}


def arrays(length: int, sinks: bool) -> list[mx.array]:
    rng = np.random.default_rng(0)
    shapes = [(2, heads, length, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    found = [mx.array(rng.normal(size=shape).astype(np.float32)) for shape in shapes]
    return [*found, mx.array(rng.normal(size=HEADS).astype(np.float32))] if sinks else found


def gradients(scores: Scores, given: list[mx.array], *, recomputes: bool) -> tuple[mx.array, list[mx.array]]:
    attend = Attend(scores)

    def loss(*each: mx.array) -> mx.array:
        step = Step(each[0].shape[2])
        step.recomputes = recomputes
        y = attend(*each[:3], step, *each[3:])
        return (y * mx.sin(mx.arange(y.size).reshape(y.shape))).sum()

    return mx.value_and_grad(loss, argnums=list(range(len(given))))(*given)


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_scores_that_are_kept(kind: str, sinks: bool) -> None:
    given = arrays(300, sinks)
    value, found = gradients(KINDS[kind], given, recomputes=True)
    kept_value, kept = gradients(KINDS[kind], given, recomputes=False)
    assert value.item() == pytest.approx(kept_value.item(), rel=1e-6)
    for one, other in zip(found, kept, strict=True):
        assert mx.abs(one - other).max().item() < 1e-5 * mx.abs(other).max().item()


def test_memory_grows_with_the_tokens_and_not_with_their_square() -> None:
    def peak(length: int, *, recomputes: bool) -> int:
        given = [mx.random.normal((1, heads, length, WIDTH)) for heads in (2, 1, 1)]
        mx.eval(given)
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(gradients(KINDS["full"], given, recomputes=recomputes))
        return mx.get_peak_memory() - before

    limit = mx.set_memory_limit(0)  # nothing is allocated ahead of what runs
    try:
        assert peak(1024, recomputes=True) < 3 * peak(
            512, recomputes=True
        )  # 2 where it is linear, 4 where it is not
        assert peak(1024, recomputes=True) < 0.7 * peak(1024, recomputes=False)
    finally:
        mx.set_memory_limit(limit)
