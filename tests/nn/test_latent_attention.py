"""Latent attention: both ways to compute it agree, over caches, padding and packed weights; what a token costs."""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
import pytest
from random_parameters import RandomParameters
from tiny import config_of, difference

from macllm.families import spec_from_config
from macllm.nn import latent_attention
from macllm.nn.kv_cache import FullCache
from macllm.nn.latent_attention import LatentAttentionBlock
from macllm.nn.step import Step
from macllm.quantization import Quantization
from macllm.sizes import kv_bytes, kv_bytes_per_token
from macllm.spec import LatentAttention, Rope, YarnScaling

TOLERANCE = 1e-5
YARN = YarnScaling(4.0, 16, attention_factor=1.2)
WIDE = LatentAttention(
    48, 3, 24, 64, nope_dim=64, rope_dim=8, value_dim=32, scale=0.1, rope=Rope(8, scaling=YARN)
)
SPECS = {
    "compressed": LatentAttention(48, 6, 24, 16, 12, 8, 10, 0.2, Rope(8, interleaved=True)),
    "whole-queries": LatentAttention(48, 5, None, 16, 12, 8, 10, 0.2, Rope(8), bias=True),
    "yarn": WIDE,
}
EACH = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
PACKINGS = [
    {},
    {"k_up": Quantization(4, 64), "v_up": Quantization(4, 64)},
    {"k_up": Quantization(8, 32), "v_up": Quantization(4, 32, "mxfp4")},
]


@pytest.fixture(params=[0, 1 << 30], ids=["expanded", "absorbed"])
def always(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_attention, "_ABSORBED_QUERIES", request.param)


def run(
    block: LatentAttentionBlock, x: mx.array, cuts: Sequence[int], padding: Sequence[int] | None = None
) -> tuple[mx.array, FullCache]:
    """States x (B, L, D) through the block, a piece up to each of ``cuts`` at a time, and the cache."""
    pads = mx.array(padding) if padding is not None else None
    cache, parts, start = FullCache(), [], 0
    for end in cuts:
        parts.append(block(x[:, start:end], Step(end - start, start, pads), (cache,)))
        start = end
    return mx.concatenate(parts, axis=1), cache


def states(rows: int, length: int, width: int) -> mx.array:
    return mx.array(np.random.default_rng(2).normal(size=(rows, length, width)).astype(np.float32))


@EACH
def test_a_prompt_and_its_pieces_are_the_same(spec: LatentAttention, always: None) -> None:
    block, x = LatentAttentionBlock(spec, RandomParameters(spec), "x"), states(2, 40, spec.dim)
    whole = block(x, Step(40), ())
    for cuts in ([40], range(1, 41), [7, 9, 10, 30, 40]):
        assert difference(run(block, x, cuts)[0], whole) < TOLERANCE


def both(monkeypatch: pytest.MonkeyPatch, compute: Callable[[], mx.array]) -> tuple[mx.array, mx.array]:
    found = []
    for limit in (0, 1 << 30):
        monkeypatch.setattr(latent_attention, "_ABSORBED_QUERIES", limit)
        found.append(compute())
    return found[0], found[1]


@EACH
@pytest.mark.parametrize("cuts", [[40], [13, 14, 40], range(1, 41)], ids=["whole", "pieces", "steps"])
def test_absorbed_equals_expanded(
    spec: LatentAttention, cuts: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    block, x = LatentAttentionBlock(spec, RandomParameters(spec), "x"), states(2, 40, spec.dim)
    expanded, absorbed = both(monkeypatch, lambda: run(block, x, cuts)[0])
    assert difference(absorbed, expanded) < TOLERANCE


@EACH
def test_absorbed_equals_expanded_beside_padding(
    spec: LatentAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, x, padding = (
        LatentAttentionBlock(spec, RandomParameters(spec), "x"),
        states(3, 30, spec.dim),
        [0, 4, 17],
    )
    expanded, absorbed = both(monkeypatch, lambda: run(block, x, [9, 11, 30], padding)[0])
    for row, before in enumerate(padding):
        assert difference(absorbed[row, before:], expanded[row, before:]) < TOLERANCE
        alone = block(x[row : row + 1, before:], Step(30 - before), ())
        assert difference(absorbed[row, before:], alone[0]) < TOLERANCE


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
@pytest.mark.parametrize("dense_rows", [None, 8])
def test_packed_projections_out_of_the_latent_space(
    packing: dict[str, Quantization], dense_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, random = states(1, 20, WIDE.dim), RandomParameters(WIDE, packing, dense_rows)
    packed = LatentAttentionBlock(WIDE, random, "x")
    expanded, absorbed = both(monkeypatch, lambda: run(packed, x, [14, 16, 20])[0])
    assert difference(absorbed, expanded) < TOLERANCE
    random.unpack()
    assert difference(run(LatentAttentionBlock(WIDE, random, "x"), x, [20])[0], expanded) < TOLERANCE


def test_a_short_step_is_absorbed_and_a_prompt_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for name in ("_absorbed", "_expanded"):
        own = getattr(LatentAttentionBlock, name)
        monkeypatch.setattr(
            LatentAttentionBlock, name, lambda *a, own=own, name=name: taken.append(name) or own(*a)
        )
    block, x = LatentAttentionBlock(WIDE, RandomParameters(WIDE), "x"), states(1, 100, WIDE.dim)
    run(block, x, [60, 61, 93, 100])
    assert taken == ["_expanded", "_absorbed", "_absorbed", "_absorbed"]


@EACH
def test_a_token_costs_one_latent_vector_and_one_key(spec: LatentAttention) -> None:
    block = LatentAttentionBlock(spec, RandomParameters(spec), "x")
    for length in (1, 30):
        _, cache = run(block, states(1, length, spec.dim), [length])
        assert (
            cache.nbytes == length * (spec.kv_rank + spec.rope_dim) * 4 == spec.caches[0].values(length) * 4
        )


def test_a_models_bytes_are_those_of_its_caches() -> None:
    spec = spec_from_config(config_of("deepseek-v3"))
    assert kv_bytes_per_token(spec, 4) == 3 * (16 + 8) * 4
    assert kv_bytes(spec, 30, 4) == 30 * 3 * (16 + 8) * 4
