"""Caches: what attention sees, rewinding, copies and bytes, against a plain list of all tokens."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import config_of

from macllm import sizes
from macllm.families import spec_from_config
from macllm.nn.cache import make_caches
from macllm.nn.kv_cache import FullCache, SlidingCache

HEADS, WIDTH = 2, 4
Cache = FullCache | SlidingCache


def key_of(position: int, generation: int) -> np.ndarray:
    """A key that says which token it is; ``generation`` tells a token from one it replaced after a rewind."""
    return np.full((1, HEADS, 1, WIDTH), position * 1000 + generation, np.float32)


class Recorder:
    """A cache beside the list of the tokens it should hold."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.tokens: list[np.ndarray] = []
        self.generation = 0

    def append(self, count: int) -> None:
        """Appends tokens and checks that attention sees exactly those it should, oldest first."""
        self.generation += 1
        new = [key_of(len(self.tokens) + i, self.generation) for i in range(count)]
        window = getattr(self.cache, "window", None)
        expected = len(self.tokens) + count
        if window is not None:  # the new tokens, and all that the first of them sees
            expected = min(len(self.tokens), window - 1) + count
        block = mx.array(np.concatenate(new, axis=2))
        keys, values = self.cache.update(block, -block)
        self.tokens += new
        assert keys.shape[2] == expected
        seen = np.concatenate(self.tokens[len(self.tokens) - expected :], axis=2)
        assert (np.array(keys) == seen).all()
        assert (np.array(values) == -seen).all()
        assert self.cache.offset == len(self.tokens)

    def rewind(self, count: int) -> None:
        self.cache.rewind(count)
        del self.tokens[len(self.tokens) - count :]
        assert self.cache.offset == len(self.tokens)

    def twin(self) -> "Recorder":
        other = Recorder(self.cache.copy())
        other.tokens, other.generation = [*self.tokens], self.generation + 500
        return other


def caches() -> list[Cache]:
    return [FullCache(), *(SlidingCache(window) for window in (1, 2, 7, 64, 300))]


@pytest.mark.parametrize("cache", caches(), ids=lambda c: str(getattr(c, "window", "full")))
def test_every_token_in_reach_is_seen_across_growth_and_compaction(cache: Cache) -> None:
    recorder = Recorder(cache)
    for count in (1, 5, 1, 1, 200, 1, 1, 70, 3, 250, 1, 512, 1, 1, 40, 1):
        recorder.append(count)
    for _ in range(300):
        recorder.append(1)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([None, 1, 3, 16, 40, 130, 256]),
    st.lists(st.tuples(st.sampled_from(["append", "rewind", "fork"]), st.integers(1, 300)), max_size=12),
)
def test_any_order_of_appends_rewinds_and_copies(window: int | None, steps: list[tuple[str, int]]) -> None:
    recorder = Recorder(FullCache() if window is None else SlidingCache(window))
    recorder.append(3)
    for step, count in steps:
        if step == "append":
            recorder.append(count)
        elif step == "rewind":
            recorder.rewind(min(count, recorder.cache.rewindable()))
        else:  # the old one goes on too, and neither may write into the other
            twin = recorder.twin()
            recorder.append(min(count, 20))
            twin.append(2)
            recorder.append(1)
            recorder = twin
    recorder.append(1)


@pytest.mark.parametrize("window", [1, 4, 16, 100, 256])
def test_a_window_can_always_be_rewound_by_its_own_width(window: int) -> None:
    recorder = Recorder(SlidingCache(window))
    for count in [*(1,) * 400, 300, 5, 600, 1, 1]:
        recorder.append(count)
        assert recorder.cache.rewindable() >= min(window, len(recorder.tokens))
        back = recorder.twin()
        back.rewind(back.cache.rewindable())
        back.append(1)  # sees all that it should, however far back


@pytest.mark.parametrize("cache", caches(), ids=lambda c: str(getattr(c, "window", "full")))
def test_rewinding_too_far_is_refused_and_changes_nothing(cache: Cache) -> None:
    recorder = Recorder(cache)
    for count in (700, 1, 1):
        recorder.append(count)
    for count in (cache.rewindable() + 1, -1):
        with pytest.raises(ValueError, match="cannot rewind"):
            cache.rewind(count)
    recorder.append(1)


def test_an_empty_cache_can_be_asked_everything() -> None:
    for cache in (FullCache(), SlidingCache(8)):
        assert (cache.offset, cache.nbytes, cache.allocated_bytes, cache.rewindable()) == (0, 0, 0, 0)
        assert cache.arrays() == []
        cache.rewind(0)
        assert cache.copy().offset == 0


@pytest.mark.parametrize(
    "variant", ["llama", "mistral-window", "qwen2-window", "gemma3", "qwen3", "deepseek-v3"]
)
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 100, 700])
def test_bytes_equal_the_arithmetic(variant: str, dtype: mx.Dtype, tokens: int) -> None:
    """The bytes known before a download are those of the caches that are built."""
    spec = spec_from_config(config_of(variant))
    built = make_caches(spec)
    for cache, held in zip(built, spec.caches, strict=True):
        shapes = [(1, held.heads, tokens, width) for width in (held.key_dim, held.value_dim)]
        cache.update(*(mx.zeros(shape, dtype) for shape in shapes))
    assert sum(cache.nbytes for cache in built) == sizes.kv_bytes(spec, tokens, dtype.size)
    assert all(cache.allocated_bytes == sum(a.nbytes for a in cache.arrays()) for cache in built)
    assert all(cache.allocated_bytes >= cache.nbytes for cache in built)


def test_buffers_stay_near_the_window() -> None:
    cache = SlidingCache(512)
    block = mx.zeros((1, 1, 64, 8), mx.float16)
    for _ in range(200):
        cache.update(block, block)
        mx.eval(cache.arrays())
    assert (
        cache.allocated_bytes <= 5 * cache.nbytes
    )  # two windows behind the last, one ahead, and steps of 256
