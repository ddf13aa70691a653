"""Packed rows: every document as if it were alone, in every family that can; the others are refused."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from random_models import random_model
from tiny import first_variants

from macllm.errors import OptionError
from macllm.nn.decoder import Decoder
from macllm.spec import MoE, State
from macllm.tune.forward import hidden
from macllm.tune.sft import sft_loss
from macllm.tune.step import summed_gradients

# lengths of the documents of each row; what is missing to LENGTH is padding
ROWS = [[11, 1, 23], [40], [7, 3, 2, 19]]
LENGTH = 40
TOLERANCE = 1e-4
# the random gemma4 amplifies: weights changed by one part in 10^7 move its logits by up to 7e-3
AMPLIFYING = {"gemma4": 2e-2}
FAMILIES = sorted(first_variants())
MORE = [
    "mistral-window",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "llama3-rope",
    "gpt-oss",
]


def documents(vocab: int) -> list[list[np.ndarray]]:
    generator = np.random.default_rng(3)
    return [[generator.integers(0, vocab, length) for length in row] for row in ROWS]


def packed(rows: list[list[np.ndarray]], length: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    """Ids and segments (B, L)."""
    ids, segments = (np.zeros((len(rows), length), np.int32) for _ in range(2))
    for row, inside in enumerate(rows):
        whole = np.concatenate(inside)
        ids[row, : len(whole)] = whole
        segments[row, : len(whole)] = np.repeat(np.arange(len(inside)) + 1, [len(one) for one in inside])
    return ids, segments


def through(model: Decoder, ids: np.ndarray, segments: np.ndarray | None = None) -> np.ndarray:
    return np.array(model.logits(hidden(model, mx.array(ids), segments)))


@pytest.mark.parametrize("variant", sorted({*FAMILIES, *MORE}))
def test_a_document_in_a_packed_row_is_what_it_is_alone(variant: str) -> None:
    model = random_model(variant)
    rows = documents(90)
    ids, segments = packed(rows)
    if model.spec.unpackable is not None:
        with pytest.raises(OptionError, match=f"{model.spec.family}.*without packing"):
            hidden(model, mx.array(ids), segments)
        return
    found = through(model, ids, segments)
    assert np.isfinite(found).all()
    for row, inside in enumerate(rows):
        start = 0
        for one in inside:
            alone = through(model, one[None])[0]
            there = found[row, start : start + len(one)]
            assert np.abs(there - alone).max() < AMPLIFYING.get(variant, TOLERANCE) * np.abs(alone).max()
            start += len(one)


def test_models_that_carry_a_state_or_turn_by_length_cannot_pack() -> None:
    refused = {variant for variant in FAMILIES if random_model(variant).spec.unpackable is not None}
    carrying = {
        variant
        for variant in FAMILIES
        if any(isinstance(cache, State) for cache in random_model(variant).spec.caches)
    }
    assert carrying and carrying <= refused
    longer = random_model("llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    assert longer.spec.unpackable is not None and "length" in longer.spec.unpackable


@pytest.mark.parametrize(
    "variant", ["llama", "gemma3", "qwen3", "gpt-oss", "deepseek-v3", "gemma3n", "gemma4"]
)
def test_another_document_changes_nothing_at_all(variant: str) -> None:
    """Exactly nothing; in mixtures it changes how many rows an expert takes at once, and so how they are rounded."""
    model = random_model(variant)
    mixture = any(isinstance(layer.channel, MoE) for layer in model.spec.layers)

    def same(one: np.ndarray, other: np.ndarray) -> bool:
        return np.array_equal(one, other) or (
            mixture and np.abs(one - other).max() < 1e-5 * np.abs(other).max()
        )

    rows = documents(90)
    ids, segments = packed(rows)
    before = through(model, ids, segments)
    for row, which in ((0, 0), (0, 2), (2, 1)):
        other = [[one.copy() for one in inside] for inside in rows]
        other[row][which] = (other[row][which] + 1) % 90
        after = through(model, packed(other)[0], segments)
        own = np.zeros(segments.shape, bool)
        own[row] = segments[row] == which + 1
        assert same(after[~own & (segments > 0)], before[~own & (segments > 0)])
        assert not np.array_equal(after[own], before[own])
    changed = np.where(segments == 0, 7, ids)  # and padding is nobody's
    assert same(through(model, changed, segments)[segments > 0], before[segments > 0])


def loss_and_gradients(model: Decoder, rows: list[list[np.ndarray]], **options: object) -> tuple:
    """Of everything but first tokens, with every row a batch where ``each``."""
    each, length = options.pop("each", False), options.pop("length", LENGTH)
    batches = [packed([row], length) for row in rows] if each else [packed(rows, length)]
    return summed_gradients(
        model, batches, lambda batch: sft_loss(model, batch[0], batch[1] > 0, batch[1], **options)
    )


@pytest.mark.parametrize("variant", ["llama-tied", "gemma3", "gpt-oss", "deepseek-v3"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_loss_and_gradients_depend_on_no_padding_batch_or_packing(variant: str, checkpoint: bool) -> None:
    model = random_model(variant)
    rows = documents(90)
    alone = [[one] for inside in rows for one in inside]
    expected = loss_and_gradients(model, alone, each=True)
    assert expected[1] == sum(sum(row) - len(row) for row in ROWS)
    for found in (
        loss_and_gradients(model, rows, checkpoint=checkpoint),
        loss_and_gradients(model, rows, checkpoint=checkpoint, each=True, length=LENGTH + 7),
        loss_and_gradients(model, alone, checkpoint=checkpoint),
    ):
        assert found[1] == expected[1] and found[0] == pytest.approx(expected[0], rel=1e-5)
        for name, gradient in expected[2].items():
            far = mx.abs(found[2][name] - gradient).max().item()
            assert far < 1e-5 * found[1] + 1e-4 * mx.abs(gradient).max().item()


def test_one_document_a_row_is_the_plain_pass() -> None:
    model = random_model("llama")
    ids = np.random.default_rng(3).integers(0, 90, (2, 17))
    assert np.array_equal(through(model, ids), np.array(model(mx.array(ids))))
    whole = through(model, ids, np.ones(ids.shape, np.int32))
    assert np.abs(whole - through(model, ids)).max() < 1e-5


def test_memory_grows_with_the_tokens_and_not_with_their_square() -> None:
    model = random_model("llama", num_hidden_layers=1)
    peaks = []
    for count in (8, 32):
        ids, segments = packed(
            [[np.random.default_rng(3).integers(0, 90, 64) for _ in range(count)]], 64 * count
        )

        def of(parameters, ids=ids, segments=segments) -> mx.array:
            model.update(parameters)
            return hidden(model, mx.array(ids), segments).sum()

        before = model.trainable_parameters()
        mx.clear_cache()
        mx.reset_peak_memory()
        start = mx.get_active_memory()
        mx.eval(mx.value_and_grad(of)(before))
        model.update(before)
        peaks.append(mx.get_peak_memory() - start)
    assert peaks[1] < 4.4 * peaks[0]
    assert all(mx.isfinite(one).all().item() for _, one in tree_flatten(model.parameters()))
