"""How weights are placed and in which type they are computed: the cases of every machine, decided here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
import tiny

from macllm.backend import Backend
from macllm.engine.loading import load_model
from macllm.engine.placement import compute_backend, plan
from macllm.errors import MemoryLimitError
from macllm.families import spec_from_config
from macllm.nn.linear import PackedLinear
from macllm.weights.model_files import open_model

CPU = Backend("cpu", "x86_64", 24 * 10**9, 19 * 10**9, "float32", "openblas")
M1 = Backend("metal", "Apple M1", 16 * 10**9, 11 * 10**9, "float16", "accelerate")
M4 = Backend("metal", "Apple M4 Max", 64 * 10**9, 48 * 10**9, "bfloat16", "accelerate")
LLAMA = spec_from_config(tiny.config_of("llama"))
GEMMA = spec_from_config(tiny.config_of("gemma3"))


@pytest.mark.parametrize(
    ("backend", "spec", "half", "expected"),
    [
        (CPU, LLAMA, "bfloat16", "float32"),  # half precision is emulated there
        (M4, LLAMA, "bfloat16", "bfloat16"),
        (M4, LLAMA, "float16", "float16"),  # a GGUF's scales stay exact
        (M4, GEMMA, "float16", "bfloat16"),  # it overflows float16
        (M1, LLAMA, "bfloat16", "float16"),  # bfloat16 is emulated there
        (M1, GEMMA, "bfloat16", "bfloat16"),
        (M1, None, "bfloat16", "bfloat16"),  # mlx-lm's class: nothing is known of its range
        (M4, None, None, "bfloat16"),
    ],
)
def test_the_type_that_a_model_is_computed_in(
    backend: Backend, spec: object, half: str, expected: str
) -> None:
    assert compute_backend(backend, spec, half, forced=False).dtype == expected  # type: ignore[arg-type]


def test_the_user_has_the_last_word() -> None:
    chosen = replace(M1, dtype="float32")
    assert compute_backend(chosen, GEMMA, "bfloat16", forced=True).dtype == "float32"


def packed_starter(starter_gguf: Path, backend: Backend) -> tuple[bool, int | None, int]:
    files = open_model(starter_gguf)
    made = plan(files.spec, files.checkpoint(mx.float32), files.naming, backend)
    return made.placement.expand, made.placement.dense_rows, made.weight_bytes


def test_packed_weights_are_expanded_on_cpu_where_half_the_memory_holds_them(starter_gguf: Path) -> None:
    assert packed_starter(starter_gguf, CPU) == (True, None, 134_515_008 * 4)
    small = replace(CPU, memory_limit_bytes=800 * 10**6)
    expand, dense_rows, weights = packed_starter(starter_gguf, small)
    assert not expand
    assert dense_rows is not None
    assert weights < 100 * 10**6


def test_packed_weights_stay_packed_on_a_gpu(starter_gguf: Path) -> None:
    expand, dense_rows, weights = packed_starter(starter_gguf, M4)
    assert (expand, dense_rows) == (False, None)
    assert weights < 100 * 10**6


def test_a_model_that_cannot_fit_is_refused_before_it_is_read(starter_gguf: Path) -> None:
    with pytest.raises(
        MemoryLimitError, match=r"context of 4096 tokens needs \d+ MB, but models may take 100 MB"
    ):
        packed_starter(starter_gguf, replace(M4, memory_limit_bytes=100 * 10**6))


def test_both_placements_give_the_same_text(
    starter_gguf: Path, monkeypatch: pytest.MonkeyPatch, run_greedy: Callable[..., list[int]]
) -> None:
    expanded = load_model(starter_gguf)
    small = replace(expanded.backend, memory_limit_bytes=900 * 10**6)
    monkeypatch.setattr("macllm.engine.loading.current", lambda dtype=None: small)
    packed = load_model(starter_gguf)
    assert isinstance(packed.model.layers[0].mixer.qkv, PackedLinear)  # type: ignore[attr-defined]
    ids = expanded.require_tokenizer().encode_chat("Name three rivers.")
    assert run_greedy(packed, ids, 8) == run_greedy(expanded, ids, 8)
