"""Models that carry states from token to token: chunks, going back, copies, padding, bytes and memory."""

import mlx.core as mx
import pytest
from tiny import decoder, difference, reference, tokens

from macllm import sizes
from macllm.nn.cache import LayerCache
from macllm.nn.decoder import Decoder
from macllm.nn.state_cache import StateCache
from macllm.spec import State

DENSE = ["lfm2-biases", "qwen3-5", "rwkv7"]  # MLX gathers dense experts in float32 only on CPU
KINDS = [*DENSE, "qwen3-next"]
TOLERANCE = 2e-5
LENGTH = 150
IDS = tokens(LENGTH)


def model_of(variant: str) -> Decoder:
    return decoder(reference(variant).folder)


def logits(model: Decoder, ids: list[int]) -> mx.array:
    return model(mx.array([ids]))[0]


def feed(
    model: Decoder, ids: list[int], chunk: int, caches: list[LayerCache] | None = None
) -> tuple[mx.array, list[LayerCache]]:
    """Logits (L, V) of ids given in chunks."""
    caches = model.make_caches() if caches is None else caches
    parts = [model(mx.array([ids[i : i + chunk]]), caches) for i in range(0, len(ids), chunk)]
    return mx.concatenate(parts, axis=1)[0], caches


@pytest.mark.parametrize("variant", KINDS)
@pytest.mark.parametrize("chunk", [1, 2, 3, 63, 64, 65, 130])
def test_any_chunks_equal_the_whole(variant: str, chunk: int) -> None:
    model = model_of(variant)
    assert difference(feed(model, IDS, chunk)[0], logits(model, IDS)) < TOLERANCE


@pytest.mark.parametrize("variant", KINDS)
@pytest.mark.parametrize("chunk", [1, 47, 150])
def test_rewinding_equals_never_having_gone(variant: str, chunk: int) -> None:
    """By every number up to the limit, with other tokens after that."""
    model = model_of(variant)
    others = tokens(3, seed=5)
    _, caches = feed(model, IDS, chunk)
    limit = min(cache.rewindable() for cache in caches)
    assert limit >= 64
    for count in [*range(0, limit, 9), 1, 2, 3, limit]:
        gone = [cache.copy() for cache in caches]
        for cache in gone:
            cache.rewind(count)
        kept = IDS[: LENGTH - count]
        found, _ = feed(model, others, 2, gone)
        assert difference(found, logits(model, kept + others)[len(kept) :]) < TOLERANCE


@pytest.mark.parametrize("variant", KINDS)
def test_drafts_that_are_dropped_again_leave_no_trace(variant: str) -> None:
    model = model_of(variant)
    _, caches = feed(model, IDS[:20], 20)
    found = []
    for position in range(20, 100, 2):
        draft = [*IDS[position : position + 2], *tokens(3, seed=position)]
        found.append(model(mx.array([draft]), caches)[0, :2])
        for cache in caches:
            cache.rewind(3)
    assert difference(mx.concatenate(found), logits(model, IDS[:100])[20:]) < TOLERANCE


@pytest.mark.parametrize("variant", KINDS)
def test_a_copy_and_its_original_go_separate_ways(variant: str) -> None:
    model = model_of(variant)
    left, right = tokens(6, seed=3), tokens(6, seed=4)
    _, caches = feed(model, IDS, 60)
    twins = [cache.copy() for cache in caches]
    found_left, found_right = [], []
    for a, b in zip(left, right, strict=True):
        found_left.append(feed(model, [a], 1, caches)[0])
        found_right.append(feed(model, [b], 1, twins)[0])
    assert difference(mx.concatenate(found_left), logits(model, IDS + left)[LENGTH:]) < TOLERANCE
    assert difference(mx.concatenate(found_right), logits(model, IDS + right)[LENGTH:]) < TOLERANCE


@pytest.mark.parametrize("variant", KINDS)
@pytest.mark.parametrize("chunk", [1, 30, 100])
def test_rows_with_padding_before_them_equal_the_rows_alone(variant: str, chunk: int) -> None:
    """Whatever the padding's ids, in whatever chunks, with steps after that and going back over them."""
    model = model_of(variant)
    rows = [tokens(100 - padding, seed=padding) for padding in (0, 37, 96)]
    padded = mx.array([[*tokens(100 - len(row), seed=77), *row] for row in rows])
    caches = model.make_caches([100 - len(row) for row in rows])
    parts = [model(padded[:, i : i + chunk], caches) for i in range(0, 100, chunk)]
    more = tokens(4, seed=9)
    parts += [model(mx.array([[id_]] * 3), caches) for id_ in more]
    for cache in caches:
        cache.rewind(3)
    parts.append(model(mx.array([more[1:]] * 3), caches))
    found = mx.concatenate(parts, axis=1)
    for index, row in enumerate(rows):
        alone = logits(model, row + more)
        expected = mx.concatenate([alone, alone[-3:]])
        assert difference(found[index, 100 - len(row) :], expected) < TOLERANCE


@pytest.mark.parametrize("variant", DENSE)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_bytes_are_those_of_the_arithmetic(variant: str, dtype: mx.Dtype) -> None:
    model = decoder(reference(variant).folder, dtype=dtype)
    caches = model.make_caches()
    for count in (1, 1, 70, 64, 65, *(1,) * 130):
        mx.eval(model(mx.array([tokens(count)]), caches), [cache.arrays() for cache in caches])
        seen = caches[0].offset
        assert sum(cache.nbytes for cache in caches) == sizes.kv_bytes(model.spec, seen, dtype.size)
        states = [cache for cache in caches if isinstance(cache, StateCache)]
        specs = [cache for cache in model.spec.caches if isinstance(cache, State)]
        for cache, spec in zip(states, specs, strict=True):
            assert cache.nbytes == spec.nbytes(dtype.size)
            logged = spec.logged * dtype.size * min(seen, 192)
            assert cache.allocated_bytes <= 4 * cache.nbytes + logged


@pytest.mark.parametrize("variant", DENSE)
def test_memory_does_not_grow_by_tokens(variant: str) -> None:
    """Over 1,000 steps, but for the keys and values of attention."""
    model = model_of(variant)
    caches = model.make_caches()
    attended = [cache for cache in caches if not isinstance(cache, StateCache)]

    def held(steps: int) -> int:
        for _ in range(steps):
            mx.eval(model(mx.array([[7]]), caches))
        mx.clear_cache()
        return mx.get_active_memory() - sum(cache.allocated_bytes for cache in attended)

    early = held(300)
    assert held(700) - early < 50_000


@pytest.mark.parametrize("variant", DENSE)
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_stays_close(variant: str, dtype: mx.Dtype) -> None:
    half = decoder(reference(variant).folder, dtype=dtype)
    whole, caches = feed(half, IDS[:12], 12)
    found = mx.concatenate([whole, feed(half, IDS[12:16], 1, caches)[0]])
    assert found.dtype == dtype
    apart = mx.abs(found.astype(mx.float32) - logits(model_of(variant), IDS[:16]))
    assert apart.mean().item() < 0.1 * mx.abs(found).mean().item()
