"""Models whose kernels run as Metal on the CPU give what they give without kernels."""

from collections import Counter
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tiny import decoder, difference, tokens, write_with_mlx_lm

from macllm.kernels.harness.run import runner
from macllm.kernels.kernel import Launch
from macllm.kernels.permission import running_on

EXACT = 1e-4  # what logits in float32 may differ by
WORSE = 1.5  # times as far from float32's as without kernels; measured: 0.7 to 1.1


def step(folder: Path, count: int, dtype: mx.Dtype) -> mx.array:
    """Logits (L, V) of some tokens after nine others."""
    model = decoder(folder, dtype=dtype)
    caches = model.make_caches()
    mx.eval(model(mx.array([tokens(9)]), caches))
    return model(mx.array([tokens(count, seed=1)]), caches)[0].astype(mx.float32)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    ("bits", "group_size", "dtype"), [(4, 32, mx.float32), (8, 64, mx.float16), (4, 128, mx.bfloat16)]
)
def test_a_step_of_a_quantized_llama(
    bits: int,
    group_size: int,
    dtype: mx.Dtype,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_with_mlx_lm("llama", tmp_path, bits=bits, group_size=group_size)
    expected = step(tmp_path, count, mx.float32)
    without = difference(step(tmp_path, count, dtype), expected)
    ran, run = Counter[str](), runner()

    def counting(launch: Launch) -> Any:
        ran[launch.body.name] += 1
        return run(launch)

    monkeypatch.setenv("MACLLM_KERNELS", "on")
    with running_on(counting):
        found = step(tmp_path, count, dtype)
    assert difference(found, expected) <= WORSE * without + EXACT
    assert ran["add_norm"] == 2
    assert ran["swiglu_affine"] == (2 if count == 1 else 0)
    assert ran["skinny_affine"] == (0 if count == 1 else 2 * 4 + 1)  # qkv, o, gate and up, down; the head
