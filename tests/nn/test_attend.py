"""Attention against its definition: windows, chunks, penalties, sinks, caps, padding, in every way it is computed."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from reference_attention import Definition, attention

from macllm.nn import attend
from macllm.nn.attend import Attend, Scores
from macllm.nn.step import Step

HEADS, KV_HEADS, WIDTH = 4, 2, 8
SLOPES, SINKS = (0.5, 0.25, 0.125, 0.0625), (0.5, -1.0, 0.0, 2.0)
KINDS = {
    "full": Definition(),
    "window": Definition(window=5),
    "window-1": Definition(window=1),
    "wide-window": Definition(window=100),
    "chunk": Definition(chunk=6),
    "slopes": Definition(slopes=SLOPES),
    "slopes-window": Definition(slopes=SLOPES, window=7),
    "sinks": Definition(sinks=SINKS),
    "sinks-window": Definition(sinks=SINKS, window=5),
    "softcap": Definition(softcap=1.5),
    "softcap-window": Definition(softcap=1.5, window=5),
}
RNG = np.random.default_rng(0)


def arrays(queries: int, keys: int, batch: int = 2) -> tuple[mx.array, mx.array, mx.array]:
    shapes = [(batch, HEADS, queries, WIDTH), (batch, KV_HEADS, keys, WIDTH), (batch, KV_HEADS, keys, WIDTH)]
    q, k, v = (mx.array(RNG.normal(size=shape).astype(np.float32)) for shape in shapes)
    return q * 2, k, v


def attended(
    definition: Definition,
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    padding: tuple[int, ...] | None = None,
    block: int = 128,
    composed: bool = True,
) -> np.ndarray:
    scores = Scores(
        definition.scale, definition.window, definition.chunk, definition.softcap, definition.slopes
    )
    attention = Attend(scores)
    attention._block = block
    attention._composed = composed or definition.softcap is not None
    step = Step(q.shape[2], k.shape[2] - q.shape[2], mx.array(padding) if padding else None)
    sinks = mx.array(definition.sinks).astype(q.dtype) if definition.sinks else None
    return np.array(attention(q, k, v, step, sinks).astype(mx.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("composed", [True, False], ids=["composed", "kernel"])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 13), (2, 13), (7, 7), (7, 20), (20, 33)])
@pytest.mark.parametrize("block", [3, 4, 128])
def test_every_kind_equals_its_definition(
    kind: str, composed: bool, queries: int, keys: int, block: int
) -> None:
    q, k, v = arrays(queries, keys)
    found = attended(KINDS[kind], q, k, v, block=block, composed=composed)
    assert np.abs(found - attention(*map(np.array, (q, k, v)), KINDS[kind])).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("composed", [True, False], ids=["composed", "kernel"])
@pytest.mark.parametrize(("queries", "keys"), [(1, 13), (5, 13), (13, 13)])
def test_padding_is_seen_by_nobody(kind: str, composed: bool, queries: int, keys: int) -> None:
    q, k, v = arrays(queries, keys, batch=3)
    padding = (0, 4, 10)
    found = attended(KINDS[kind], q, k, v, padding=padding, block=4, composed=composed)
    assert np.isfinite(found).all()
    expected = attention(*map(np.array, (q, k, v)), KINDS[kind], padding)
    for row, before in enumerate(padding):
        real = max(0, queries - (keys - before))  # queries of the row that are padding say nothing
        assert np.abs(found[row, :, real:] - expected[row, :, real:]).max() < 1e-5


@pytest.mark.parametrize("kind", ["full", "softcap", "slopes", "sinks-window"])
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_is_summed_in_single(kind: str, dtype: mx.Dtype) -> None:
    q, k, v = (array.astype(dtype) for array in arrays(9, 40))
    found = attended(KINDS[kind], q, k, v, composed=False)
    expected = attention(*(np.array(a.astype(mx.float32)) for a in (q, k, v)), KINDS[kind])
    assert np.abs(found - expected).max() < (0.01 if dtype == mx.float16 else 0.06)


def test_a_cache_that_holds_a_windows_keys_only_is_enough() -> None:
    """Keys out of reach may be missing: the last ones are the queries' own, whatever came before."""
    definition = Definition(window=5)
    q, k, v = arrays(6, 30)
    expected = attention(*map(np.array, (q, k, v)), definition)
    scores, step = Scores(definition.scale, definition.window), Step(6, 24)
    for composed in (True, False):
        attend_ = Attend(scores)
        attend_._composed = composed
        found = np.array(attend_(q, k[:, :, 20:], v[:, :, 20:], step))
        assert np.abs(found - expected).max() < 1e-5


def test_no_mask_of_all_queries_by_all_keys_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = Step._mask

    def recorded(self: Step, queries: range, keys: range, *reach: int | None) -> mx.array:
        made.append((len(queries), len(keys)))
        return original(self, queries, keys, *reach)

    monkeypatch.setattr(Step, "_mask", recorded)
    q, k, v = arrays(600, 600, batch=1)
    attended(replace(KINDS["window"], window=20), q, k, v, block=50)
    attended(KINDS["chunk"], q, k, v, block=50)
    assert made
    assert max(queries for queries, _ in made) == 50
    assert max(keys for _, keys in made) <= 50 + 20
    assert len(made) < 15  # blocks of the same shape share one


def test_a_window_costs_no_more_than_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    kernel = attend.fused

    def recorded(q: mx.array, k: mx.array, *rest: object) -> mx.array:
        seen.append(q.shape[2] * k.shape[2])
        return kernel(q, k, *rest)

    monkeypatch.setattr(attend, "fused", recorded)
    q, k, v = arrays(400, 400, batch=1)
    attended(Definition(window=16), q, k, v, block=32, composed=False)
    assert sum(seen) <= 400 * (32 + 16)
