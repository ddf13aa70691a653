"""Attention over packed keys and values as it is composed of kernels: one or two of them, equal to their twin."""

import mlx.core as mx
import pytest

from macllm.kernels import kv_dispatch
from macllm.kernels.harness.run import runner
from macllm.kernels.kernel import Launch
from macllm.kernels.kv_memory import pack
from macllm.kernels.kv_reach import Reach, blocks_of
from macllm.kernels.permission import running_on
from macllm.kernels.samples import random


@pytest.mark.parametrize(
    ("tokens", "reach_of", "names"),
    [
        (300, {}, ["kv_attention"]),
        (1100, {"window": 100}, ["kv_attention"]),
        (1100, {}, ["kv_attention", "kv_merge"]),
        (1100, {"window": 700}, ["kv_attention", "kv_merge"]),
    ],
    ids=["few keys", "a narrow window", "many keys", "a wide window"],
)
def test_many_keys_take_two_passes_and_few_one(
    tokens: int, reach_of: dict[str, int], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, new = random((1, 2, tokens, 64)), random((1, 2, 2, 64))
    q, sinks = random((1, 4, 2, 64)), random((4,))
    reach = Reach(10, tokens, 0.3, **reach_of)
    codes, scales = pack(keys, keys * 0.5, 8)
    expected = kv_dispatch.attend(q, codes, scales, reach, sinks)
    launched: list[str] = []
    on_the_cpu = runner()

    def run(launch: Launch) -> list[mx.array]:
        launched.append(launch.body.name)
        return on_the_cpu(launch)

    monkeypatch.setenv("MACLLM_KERNELS", "on")
    with running_on(run):
        found = kv_dispatch.attend(q, codes, scales, reach, sinks)
        stored = kv_dispatch.store(new, new, 8)
    assert launched == [*names, "kv_quantize"]
    assert mx.abs(found - expected).max().item() < 1e-5
    assert all(mx.array_equal(a, b) for a, b in zip(stored, pack(new, new, 8), strict=True))


def test_blocks_are_few_and_none_is_empty() -> None:
    for keys in range(1, 40_000, 7):
        blocks = blocks_of(keys)
        assert 1 <= blocks <= 64
        assert (blocks - 1) * -(-keys // blocks) < keys
