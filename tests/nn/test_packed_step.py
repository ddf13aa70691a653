"""Packed rows: positions begin anew, and every kind of attention is that of each document alone."""

import mlx.core as mx
import numpy as np
import pytest
from reference_attention import Definition, attention

from macllm.nn.attend import Attend, Scores
from macllm.nn.packed_step import PackedStep
from macllm.nn.rope import RotaryEmbedding
from macllm.nn.step import Step
from macllm.spec import LinearScaling, QueryScale, Rope, YarnScaling

HEADS, KV_HEADS, WIDTH = 4, 2, 8
SLOPES, SINKS = (0.5, 0.25, 0.125, 0.0625), (0.5, -1.0, 0.0, 2.0)
KINDS = {
    "full": Definition(),
    "window": Definition(window=5),
    "chunk": Definition(chunk=6),
    "slopes": Definition(slopes=SLOPES),
    "slopes-window": Definition(slopes=SLOPES, window=7),
    "sinks-window": Definition(sinks=SINKS, window=5),
    "softcap": Definition(softcap=1.5),
}
# three rows: documents that meet without padding between, one alone, padding behind, and a row of nothing else
SEGMENTS = np.array([[1] * 9 + [2] + [3] * 7, [1] * 17, [4] * 3 + [5] * 8 + [0] * 6, [0] * 17])
RUNS = [(0, 0, 9), (0, 9, 10), (0, 10, 17), (1, 0, 17), (2, 0, 3), (2, 3, 11)]
RNG = np.random.default_rng(0)


def states(heads: int, batch: int = len(SEGMENTS)) -> mx.array:
    return mx.array(RNG.normal(size=(batch, heads, SEGMENTS.shape[1], WIDTH)).astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("composed", [True, False], ids=["composed", "kernel"])
@pytest.mark.parametrize("block", [4, 128])
def test_each_document_attends_to_itself_alone(kind: str, composed: bool, block: int) -> None:
    definition = KINDS[kind]
    scores = Scores(
        definition.scale, definition.window, definition.chunk, definition.softcap, definition.slopes
    )
    attend = Attend(scores)
    attend._block, attend._composed = block, composed or definition.softcap is not None
    q, k, v = states(HEADS) * 2, states(KV_HEADS), states(KV_HEADS)
    sinks = mx.array(definition.sinks) if definition.sinks else None
    found = np.array(attend(q, k, v, PackedStep(SEGMENTS), sinks))
    for row, start, stop in RUNS:
        own = [np.array(each)[row : row + 1, :, start:stop] for each in (q, k, v)]
        assert np.abs(found[row : row + 1, :, start:stop] - attention(*own, definition)).max() < 1e-5
    assert not found.swapaxes(1, 2)[SEGMENTS == 0].any()


@pytest.mark.parametrize("scaling", [None, LinearScaling(3.0), YarnScaling(4.0, 32)])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dims", [WIDTH, WIDTH // 2])
def test_positions_begin_anew_with_every_document(
    scaling: LinearScaling | YarnScaling | None, interleaved: bool, dims: int
) -> None:
    rope = RotaryEmbedding(Rope(dims, 100.0, scaling=scaling, interleaved=interleaved))
    x = states(HEADS)
    found = np.array(rope(x, PackedStep(SEGMENTS).position))
    for row, start, stop in RUNS:
        if stop - start > 1:  # one token alone is turned by a matrix
            alone = rope(x[row : row + 1, :, start:stop], 0)
            assert np.abs(found[row : row + 1, :, start:stop] - np.array(alone)).max() < 1e-6


def test_what_it_knows_of_its_tokens() -> None:
    step = PackedStep(SEGMENTS)
    positions, valid = np.array(step.positions), np.array(step.valid)
    for row, start, stop in RUNS:
        assert positions[row, start:stop].tolist() == list(range(stop - start))
    assert np.array_equal(valid, SEGMENTS > 0)
    assert [run.length for run in step.runs] == [9, 1, 7, 17, 3, 8, 6, 17]
    assert [run.step is None for run in step.runs] == [False] * 6 + [True] * 2
    scale = QueryScale(0.1, 4, 0)
    found = np.array(step.query_scale(scale, mx.float32))
    expected = np.array(Step(17).query_scale(scale, mx.float32))
    assert np.array_equal(found[1, 0], expected) and np.array_equal(found[0, 0, 10:], expected[:7])


def test_apart_and_together_are_inverse() -> None:
    step, x = PackedStep(SEGMENTS), states(HEADS)
    parts = step.apart(x)
    assert [part.shape for part in parts] == [(1, HEADS, run.length, WIDTH) for run in step.runs]
    assert mx.array_equal(step.together(parts), x).item()
    alone = PackedStep(np.ones((1, 17), int))
    assert mx.array_equal(alone.together(alone.apart(x[:1])), x[:1]).item()
