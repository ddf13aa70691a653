"""Invariants of the decoder over all families: chunks, rewinding, copies, batches, tensors back by name."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import decoder, difference, native, reference, tokens, variants, variants_by_pace, write_with_mlx_lm

from macllm.nn import linear
from macllm.nn.decoder import Decoder
from macllm.nn.linear import SeparateLinear
from macllm.nn.stored import Dense, Packed
from macllm.weights.model_files import open_model
from macllm.weights.names import Reader

TOLERANCE = 1e-4  # measured: 6e-5 where the original itself is as far from float64 (gemma3n), 2e-6 elsewhere
LENGTH = 33
IDS = tokens(LENGTH)


def logits(model: Decoder, ids: list[int]) -> mx.array:
    return model(mx.array([ids]))[0]


def feed(model: Decoder, ids: list[int], chunk: int, caches: list | None = None) -> tuple[mx.array, list]:
    """Logits (L, V) of ids given in chunks."""
    caches = model.make_caches() if caches is None else caches
    parts = [model(mx.array([ids[i : i + chunk]]), caches) for i in range(0, len(ids), chunk)]
    return mx.concatenate(parts, axis=1)[0], caches


@pytest.mark.parametrize("variant", variants_by_pace())
@pytest.mark.parametrize("chunk", [9])
def test_prefill_in_chunks_equals_prefill_at_once(variant: str, chunk: int) -> None:
    model = native(variant)
    assert difference(feed(model, IDS, chunk)[0], logits(model, IDS)) < TOLERANCE


@pytest.mark.parametrize("variant", variants())
def test_rewinding_equals_never_having_gone(variant: str) -> None:
    """For many numbers of tokens that the caches can drop, and other tokens after that."""
    model = native(variant)
    others = tokens(3, seed=5)
    _, caches = feed(model, IDS, 5)
    limit = min(cache.rewindable() for cache in caches)
    assert limit == LENGTH  # nothing has been thrown away yet
    for count in {0, 1, 2, 5, 7, 8, 9, LENGTH - 1, LENGTH}:
        kept = IDS[: LENGTH - count]
        gone = [cache.copy() for cache in caches]
        for cache in gone:
            cache.rewind(count)
        found, _ = feed(model, others, 2, gone)
        assert difference(found, logits(model, kept + others)[len(kept) :]) < TOLERANCE


@pytest.mark.parametrize("variant", ["mistral-wide-window", "gemma3-pattern"])
def test_rewinding_where_old_tokens_have_been_dropped(variant: str) -> None:
    model = native(variant)
    ids = tokens(700, seed=2)
    _, caches = feed(model, ids[:650], 130)
    _, caches = feed(model, ids[650:], 1, caches)
    limit = min(cache.rewindable() for cache in caches)
    assert limit < len(ids)  # sliding buffers have been compacted
    assert limit >= max(w for w in model.spec.windows if w is not None)
    whole = logits(model, ids)
    for count in {1, 2, 7, 8, 9, 63, 64, 65, limit - 1, limit} & set(range(limit + 1)):
        gone = [cache.copy() for cache in caches]
        for cache in gone:
            cache.rewind(count)
        found, _ = feed(model, ids[-count:], max(6, count // 3), gone)
        assert difference(found, whole[-count:]) < TOLERANCE


@pytest.mark.parametrize("variant", variants_by_pace())
def test_a_copy_and_its_original_go_separate_ways(variant: str) -> None:
    model = native(variant)
    left, right = tokens(6, seed=3), tokens(6, seed=4)
    _, caches = feed(model, IDS, 10)
    twins = [cache.copy() for cache in caches]
    found_left, found_right = [], []
    for a, b in zip(left, right, strict=True):  # in turns: neither may write where the other reads
        found_left.append(feed(model, [a], 1, caches)[0])
        found_right.append(feed(model, [b], 1, twins)[0])
    assert difference(mx.concatenate(found_left), logits(model, IDS + left)[LENGTH:]) < TOLERANCE
    assert difference(mx.concatenate(found_right), logits(model, IDS + right)[LENGTH:]) < TOLERANCE


def test_hidden_states_and_head_are_the_two_halves() -> None:
    for variant in ("llama", "llama-tied"):
        model = native(variant)
        ids = mx.array([IDS])
        assert mx.array_equal(model.logits(model.hidden(ids)), model(ids))


def plain(stored: Dense | Packed) -> list[mx.array]:
    if isinstance(stored, Dense):
        return [stored.array]
    return [array for array in (stored.weight, stored.scales, stored.biases) if array is not None]


def assert_same_tensors(folder: Path, model: Decoder) -> None:
    """Every canonical tensor comes back out of the stacked layers bit by bit as it is on disk."""
    files = open_model(folder)
    checkpoint = files.checkpoint(mx.float32)
    reader = Reader(files.naming, checkpoint.label, checkpoint.read)
    given = dict(model.tensors())
    assert set(given) == {tensor.name for tensor in files.spec.tensors()}
    for tensor in files.spec.tensors():
        expected = reader.read(tensor.name)
        assert given[tensor.name].shape == tensor.shape
        for found, array in zip(plain(given[tensor.name]), plain(expected), strict=True):
            assert found.dtype == array.dtype
            assert mx.array_equal(found, array), tensor.name


@pytest.mark.parametrize("variant", variants_by_pace())
def test_stacked_matrices_come_apart_exactly(variant: str) -> None:
    assert_same_tensors(reference(variant).folder, native(variant))


def mixed(path: str, module: object) -> bool | dict:
    """v and down as mlx-lm's mixed recipes keep them: more bits; and one matrix not quantized at all."""
    if path.endswith(("v_proj", "down_proj")):
        return {"bits": 8, "group_size": 32}
    return not path.endswith("layers.1.mlp.up_proj")


@pytest.mark.parametrize("variant", ["llama", "llama-biases", "qwen2-tied", "gemma3"])
@pytest.mark.parametrize("predicate", [None, mixed], ids=["uniform", "mixed"])
def test_packed_matrices_come_apart_exactly(variant: str, predicate: object, tmp_path: Path) -> None:
    write_with_mlx_lm(variant, tmp_path, bits=4, group_size=64, predicate=predicate)
    model = decoder(tmp_path)
    separate = [module for module in model.modules() if isinstance(module, SeparateLinear)]
    # q, k and v of both layers; gate and up of the one whose up is plain
    assert len(separate) == (3 if predicate is mixed else 0)
    assert_same_tensors(tmp_path, model)


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_the_ways_to_place_packed_weights_agree(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantized kernel, expansion for one long product, expansion at load: the same numbers."""
    write_with_mlx_lm("llama-tied", tmp_path, mode=mode)
    kernel = decoder(tmp_path)
    dense_rows = decoder(tmp_path, dense_rows=8)
    expanded = decoder(tmp_path, expand=True)
    calls = []
    matmul = linear.packed_matmul
    monkeypatch.setattr(linear, "packed_matmul", lambda x, w: calls.append(x.shape) or matmul(x, w))

    def run(model: Decoder, ids: list[int]) -> tuple[mx.array, bool]:
        calls.clear()
        return logits(model, ids), bool(calls)

    for count in (7, 8, LENGTH):
        expected, by_kernel = run(kernel, IDS[:count])
        assert by_kernel
        for model, uses_kernel in ((dense_rows, count < 8), (expanded, False)):
            found, by_kernel = run(model, IDS[:count])
            assert by_kernel == uses_kernel
            assert difference(found, expected) < TOLERANCE
    assert all(isinstance(stored, Dense) for _, stored in expanded.tensors())


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_stays_close(dtype: mx.Dtype) -> None:
    folder = reference("llama").folder
    ids = mx.array([IDS[:12]])
    half = decoder(folder, dtype=dtype)(ids)
    assert half.dtype == dtype
    assert difference(half.astype(mx.float32), decoder(folder)(ids)) < 0.05


def test_norms_and_scales_follow_the_compute_type(tmp_path: Path) -> None:
    write_with_mlx_lm("gemma3", tmp_path, bits=4, dtype="bfloat16")
    model = decoder(tmp_path, dtype=mx.float32)
    kinds = {
        np.dtype(np.array(x).dtype) for name, x in model.parameters()["norm"].items() if name == "weight"
    }
    assert kinds == {np.dtype(np.float32)}
    packed = [s for _, s in model.tensors() if isinstance(s, Packed)]
    assert packed
    assert {s.scales.dtype for s in packed} == {mx.float32}
