"""Packed keys and values: what caches hold, how attention reads them, and how models go on and back with them."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
import numpy as np
import pytest
from reference_attention import Definition, attention
from tiny import config_of, decoder, tokens, write_original

from macllm import sizes
from macllm.errors import CheckpointError
from macllm.families import spec_from_config
from macllm.kernels.kv_memory import keys_and_values, pack, unpack
from macllm.nn import packed_attend
from macllm.nn.attend import Attend, Scores
from macllm.nn.cache import LayerCache
from macllm.nn.cache_file import load_caches, save_caches
from macllm.nn.decoder import Decoder
from macllm.nn.kv_cache import FullCache, SlidingCache
from macllm.nn.packed_attend import attend_packed
from macllm.nn.quantized_kv_cache import PackedView, QuantizedFullCache, QuantizedSlidingCache
from macllm.nn.step import Step

IDS = tokens(110)
# all tokens; a window with layers of all tokens; sinks and a window; soft-capped scores
FAMILIES = ("llama", "gemma3", "gpt-oss", "gemma2")
BITS = pytest.mark.parametrize("bits", [8, 4])
# The same sums in another order may put a number that is between two codes into the other one, and what follows from it
# is as large as a code: less than rounding all numbers costs, which is what the plain model is off by.
NEAR = {8: 0.005, 4: 0.1}
RNG = np.random.default_rng(7)


@cache
def written(variant: str) -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix="macllm-packed-")  # lives as long as this process
    write_original({**config_of(variant), "head_dim": 64}, Path(folder.name))
    return folder


@cache
def model_of(variant: str, bits: int | None) -> Decoder:
    model = decoder(Path(written(variant).name))
    model.kv_bits = bits
    return model


def fed(model: Decoder, ids: list[int], chunk: int, caches: list[LayerCache]) -> mx.array:
    parts = [model(mx.array([ids[start : start + chunk]]), caches) for start in range(0, len(ids), chunk)]
    found = mx.concatenate(parts, axis=1)[0]
    mx.eval(found)
    return found


def off(found: mx.array, expected: mx.array) -> float:
    """The root of the mean square of what differs, relative to the expected logits' own."""
    difference, whole = np.array(found) - np.array(expected), np.array(expected)
    return float(np.sqrt((difference**2).mean()) / whole.std())


def rows(count: int, heads: int = 2, width: int = 64, batch: int = 1) -> mx.array:
    return mx.array(RNG.normal(size=(batch, heads, count, width)).astype(np.float32))


def numbers(view: PackedView) -> tuple[mx.array, mx.array]:
    seen = slice(view.start, view.stop)
    keys, values = keys_and_values(view.codes[:, :, seen], view.scales[:, :, seen])
    return unpack(keys, mx.float32), unpack(values, mx.float32)


@BITS
@pytest.mark.parametrize("window", [None, 1, 40, 300])
def test_a_cache_shows_what_a_plain_one_does_rounded(bits: int, window: int | None) -> None:
    """Through growth, moves of the tail to the front, rewinds and copies."""
    plain = FullCache() if window is None else SlidingCache(window)
    packed = QuantizedFullCache(bits) if window is None else QuantizedSlidingCache(bits, window)
    for count, back in ((3, 0), (1, 1), (260, 5), (1, 0), (70, 30), (300, 1), (1, 0)):
        new, other = rows(count), rows(count)
        keys, values = plain.update(new, other)
        for found, expected in zip(numbers(packed.update(new, other)), (keys, values), strict=True):
            exact = numbers(PackedView(*pack(expected, expected, bits), 0, expected.shape[2]))[0]
            assert mx.array_equal(found, exact)
        assert (packed.offset, packed.rewindable()) == (plain.offset, plain.rewindable())
        plain.rewind(back)
        packed = packed.copy()
        packed.rewind(back)


@BITS
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_bytes_of_a_token_are_the_arithmetic(bits: int, dtype: mx.Dtype) -> None:
    spec = spec_from_config({**config_of("gemma3"), "head_dim": 64})
    found = [
        QuantizedFullCache(bits) if held.reach is None else QuantizedSlidingCache(bits, held.reach)
        for held in spec.caches
    ]
    for cache_, held in zip(found, spec.caches, strict=True):
        cache_.update(*(mx.zeros((1, held.heads, 700, held.key_dim), dtype) for _ in range(2)))
        assert cache_.allocated_bytes <= cache_.nbytes * cache_.capacity // min(700, held.reach or 700)
    assert sum(cache_.nbytes for cache_ in found) == sizes.kv_bytes(spec, 700, dtype.size, bits)


@BITS
@pytest.mark.parametrize("variant", FAMILIES)
def test_token_by_token_is_the_prompt_at_once(variant: str, bits: int) -> None:
    model = model_of(variant, bits)
    whole = fed(model, IDS, len(IDS), model.make_caches())
    for chunk in (1, 7, 40):
        caches = model.make_caches()
        assert off(fed(model, IDS, chunk, caches), whole) < NEAR[bits]
        held = sum(cache_.nbytes for cache_ in caches)
        assert held == sizes.kv_bytes(model.spec, len(IDS), 4, bits) < sizes.kv_bytes(model.spec, len(IDS), 4)


@pytest.mark.parametrize("variant", FAMILIES)
def test_logits_stay_near_plain_ones(variant: str) -> None:
    plain = fed(model_of(variant, None), IDS, len(IDS), model_of(variant, None).make_caches())
    error = {}
    for bits in (8, 4):
        model = model_of(variant, bits)
        error[bits] = off(fed(model, IDS, len(IDS), model.make_caches()), plain)
    assert NEAR[8] < error[8] < 0.04  # of random models, whose attention is sharper than a trained one's
    assert max(8 * error[8], NEAR[4]) < error[4] < 0.5  # 17 times as coarse


@pytest.mark.parametrize("variant", FAMILIES)
def test_going_back_and_apart_is_exact(variant: str) -> None:
    model = model_of(variant, 8)
    caches = model.make_caches()
    fed(model, IDS[:60], 13, caches)
    first = fed(model, IDS[60:66], 3, caches)
    twins = [cache_.copy() for cache_ in caches]
    for cache_ in caches:
        cache_.rewind(6)
    fed(model, IDS[70:80], 5, twins)  # which changes nothing here
    assert mx.array_equal(fed(model, IDS[60:66], 3, caches), first)


@pytest.mark.parametrize("variant", FAMILIES)
def test_going_on_from_a_file_equals_never_having_stopped(variant: str, tmp_path: Path) -> None:
    model = model_of(variant, 4)
    caches, loaded = model.make_caches(), model.make_caches()
    fed(model, IDS[:50], 20, caches)
    save_caches(tmp_path / "cache", caches)
    load_caches(tmp_path / "cache", loaded)
    assert mx.array_equal(fed(model, IDS[50:60], 1, caches), fed(model, IDS[50:60], 1, loaded))


def test_a_file_of_plain_caches_is_no_packed_ones(tmp_path: Path) -> None:
    packed, plain = model_of("llama", 4).make_caches(), model_of("llama", None).make_caches()
    fed(model_of("llama", 4), IDS[:9], 9, packed)
    save_caches(tmp_path / "cache", packed)
    with pytest.raises(CheckpointError, match="not the caches of this model"):
        load_caches(tmp_path / "cache", plain)


@pytest.mark.parametrize("variant", FAMILIES)
def test_padded_rows_equal_rows_alone(variant: str) -> None:
    model = model_of(variant, 8)
    padding = [0, 5, 30]
    batch = mx.array([[9] * before + IDS[before:40] for before in padding])
    caches = model.make_caches(padding)
    found = mx.concatenate([model(batch[:, a:b], caches) for a, b in ((0, 33), (33, 39), (39, 40))], axis=1)
    for row, before in zip(found, padding, strict=True):
        alone = fed(model, IDS[before:40], 40, model.make_caches())
        assert off(row[before:], alone) < NEAR[8]


@pytest.mark.parametrize(
    "variant",
    ["llama", "deepseek-v3", "internlm3-dynamic", "mpt", "qwen3-next"],
    ids=["narrow heads", "latent", "late rotation", "penalties", "states"],
)
def test_what_cannot_be_packed_stays_plain(variant: str) -> None:
    spec = spec_from_config(config_of(variant))
    assert sizes.kv_bytes(spec, 90, 2, 4) == sizes.kv_bytes(spec, 90, 2)
    assert sizes.held_bytes(spec, 90, 2, kv_bits=4) == sizes.held_bytes(spec, 90, 2)


@BITS
@pytest.mark.parametrize("queries", [1, 3, 8, 9, 40])
@pytest.mark.parametrize(
    "definition",
    [
        Definition(),
        Definition(window=6),
        Definition(chunk=16),
        Definition(softcap=1.5),
        Definition(sinks=(0.5, -1.0, 0.0, 2.0), window=20),
    ],
    ids=["full", "window", "chunk", "softcap", "sinks"],
)
def test_attention_equals_its_definition_over_the_rounded_numbers(
    definition: Definition, queries: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_attend, "_MOST_UNPACKED", 1)  # a head at a time
    keys = 45
    q, k, v = rows(queries, heads=4, batch=2), rows(keys, batch=2), rows(keys, batch=2)
    codes, scales = pack(k, v, bits)
    around = [(0, 0), (0, 0), (3, 5), (0, 0)]  # places of the buffers that are not in view
    view = PackedView(
        mx.pad(codes, around, constant_values=7), mx.pad(scales, around, constant_values=9.0), 3, 3 + keys
    )
    sinks = mx.array(definition.sinks) if definition.sinks else None
    plain = Attend(Scores(definition.scale, definition.window, definition.chunk, definition.softcap))
    found = attend_packed(plain, q, view, Step(queries, keys - queries), sinks)
    rounded = numbers(PackedView(codes, scales, 0, keys))
    expected = attention(np.array(q), *map(np.array, rounded), definition)
    assert np.abs(np.array(found) - expected).max() < 2e-5


@BITS
def test_a_step_of_decoding_takes_no_more_than_what_is_packed(bits: int) -> None:
    """No copy in full precision is made: what a step takes beside the cache is less than the cache."""
    cache_, step = QuantizedFullCache(bits), Step(1, 4000)
    attend = Attend(Scores(0.1))
    cache_.update(rows(4000, heads=4, width=128), rows(4000, heads=4, width=128))
    mx.eval(cache_.arrays())
    q, new = rows(1, heads=8, width=128), rows(1, heads=4, width=128)
    mx.eval(q, new)
    before = cache_.allocated_bytes
    mx.clear_cache()
    mx.reset_peak_memory()
    active = mx.get_active_memory()
    mx.eval(attend_packed(attend, q, cache_.update(new, new), step), cache_.arrays())
    assert cache_.allocated_bytes == before
    assert mx.get_peak_memory() - active < 1.5 * before
