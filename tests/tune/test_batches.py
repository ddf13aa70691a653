"""Batches: each example once a pass, in an order that goes on where it stopped, and padding is never learned."""

from collections import Counter
from dataclasses import asdict, replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm.errors import InputError, OptionError
from macllm.tune.batches import Batch, Batches, Batching, Position
from macllm.tune.examples import Example
from macllm.tune.packing import fill, first_fit_decreasing
from macllm.tune.split import permutation, validation_rows

WIDTH = 256


def examples(lengths: list[int]) -> list[Example]:
    """Example i of ids i+1, its second half learned."""
    made = []
    for index, length in enumerate(lengths):
        learned = np.arange(length) >= max(1, length // 2)
        made.append(Example(np.full(length, index + 1, dtype=np.int32), learned, f"a.jsonl:{index + 1}"))
    return made


def conversations(count: int) -> list[int]:
    """Lengths as short conversations have them: log-normal, a median of 60 tokens, a few at the limit."""
    chance = np.random.default_rng(0)
    return np.clip(np.exp(chance.normal(np.log(60), 0.8, count)), 4, WIDTH).astype(int).tolist()


def epoch(lengths: list[int], batching: Batching, seed: int = 0, number: int = 0) -> list[Batch]:
    batches = Batches(examples(lengths), batching, Position(seed, number))
    return list(islice(batches, batching.per_epoch(lengths)))


def same(one: Batch, other: Batch) -> bool:
    arrays = ("ids", "learned", "segments", "positions")
    equal = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    return equal and (one.examples, one.after) == (other.examples, other.after)


KINDS = [
    Batching(4, WIDTH),
    Batching(3, WIDTH, multiple=1),
    Batching(4, WIDTH, pack=True),
    Batching(1, WIDTH, pack=True),
]


@pytest.mark.parametrize("batching", KINDS)
@pytest.mark.parametrize("count", [1, 2, 101])
def test_every_example_stands_once_in_a_pass(batching: Batching, count: int) -> None:
    lengths = conversations(count)
    for number in (0, 1, 5):
        batches = epoch(lengths, batching, number=number)
        assert Counter(index for batch in batches for index in batch.examples) == Counter(range(count))
        assert [batch.after.epoch for batch in batches] == [number] * (len(batches) - 1) + [number + 1]
        sizes = [len(batch.ids) for batch in batches]
        assert max(sizes) <= batching.batch_size  # and one of them may be smaller, the rest of the rows
        assert sum(size < batching.batch_size for size in sizes) <= 1
    evaluated = list(Batches(examples(lengths), batching, Position(0)).once())
    assert Counter(index for batch in evaluated for index in batch.examples) == Counter(range(count))
    assert len(evaluated) == len(batches) == batching.per_epoch(lengths)


@pytest.mark.parametrize("batching", KINDS)
def test_one_pass_follows_the_other(batching: Batching) -> None:
    lengths = conversations(50)
    each = batching.per_epoch(lengths)
    batches = list(islice(Batches(examples(lengths), batching, Position(1)), 3 * each))
    for start in range(0, 3 * each, each):
        part = batches[start : start + each]
        assert Counter(index for batch in part for index in batch.examples) == Counter(range(50))
        assert part[-1].after == Position(1, start // each + 1, 0)


@pytest.mark.parametrize("batching", KINDS)
def test_rows_hold_their_examples_and_then_padding(batching: Batching) -> None:
    lengths = conversations(50)
    made = examples(lengths)
    for batch in epoch(lengths, batching):
        assert batch.ids.dtype == batch.segments.dtype == batch.positions.dtype == np.int32
        assert batch.learned.dtype == np.bool_ and batch.ids.shape[1] <= WIDTH
        seen = []
        for row in range(len(batch.ids)):
            count = int(batch.segments[row].max())
            padding = batch.segments[row] == 0
            assert padding[np.count_nonzero(~padding) :].all()  # at the end
            assert not batch.ids[row, padding].any() and not batch.learned[row, padding].any()
            assert not batch.positions[row, padding].any()
            for segment in range(1, count + 1):
                place = np.flatnonzero(batch.segments[row] == segment)
                example = made[int(batch.ids[row, place[0]]) - 1]
                assert np.array_equal(
                    place, np.arange(place[0], place[0] + len(example))
                )  # whole, in one row
                assert np.array_equal(batch.ids[row, place], example.ids)
                assert np.array_equal(batch.learned[row, place], example.learned)
                assert np.array_equal(batch.positions[row, place], np.arange(len(example)))
                assert not batch.learned[row, place[0]]  # never learned from another example's last token
                seen.append(int(example.ids[0]) - 1)
        assert tuple(seen) == batch.examples
        assert batch.tokens == sum(lengths[index] for index in seen)


@pytest.mark.parametrize("batching", KINDS)
def test_the_order_goes_on_where_it_stopped(batching: Batching) -> None:
    lengths = conversations(60)
    made = examples(lengths)
    many = 2 * batching.per_epoch(lengths) + 3
    uninterrupted = list(islice(Batches(made, batching, Position(seed=7)), many))
    for stop in range(many):
        position = Position(**asdict(uninterrupted[stop].after))  # as plain numbers, through a file
        batch = next(iter(Batches(made, batching, position)))
        if stop + 1 < many:
            assert same(batch, uninterrupted[stop + 1])
    again = list(islice(Batches(made, batching, Position(seed=7)), many))
    assert all(same(*pair) for pair in zip(uninterrupted, again, strict=True))


def test_an_order_of_other_data_is_refused() -> None:
    with pytest.raises(InputError, match="stands at 9 of a pass of 3"):
        next(iter(Batches(examples([5] * 12), KINDS[0], Position(0, 0, 9))))


@pytest.mark.parametrize("batching", KINDS)
def test_another_seed_and_another_pass_are_another_order(batching: Batching) -> None:
    lengths = conversations(60)
    orders = {
        tuple(index for batch in epoch(lengths, batching, seed, number) for index in batch.examples)
        for seed in (0, 1, 2**64 - 1)
        for number in (0, 1)
    }
    assert len(orders) == 6


def test_what_counts_in_the_loss_is_the_same_however_it_is_batched() -> None:
    lengths = conversations(97)
    wanted = sum(example.supervised for example in examples(lengths))
    for size in (1, 2, 5, 8, 200):
        for pack in (False, True):
            batching = Batching(size, WIDTH, pack=pack)
            assert sum(batch.supervised for batch in epoch(lengths, batching)) == wanted
            once = Batches(examples(lengths), batching, Position(0)).once()
            assert sum(batch.supervised for batch in once) == wanted


def test_rows_of_about_one_length_stand_together() -> None:
    lengths = conversations(2000)

    def padding(window: list[Batch]) -> float:
        return 1 - sum(batch.tokens for batch in window) / sum(batch.ids.size for batch in window)

    sorted_by_length = padding(epoch(lengths, replace(KINDS[0], multiple=1)))
    order = permutation(np.random.PCG64(0), len(lengths))
    chunks = [[lengths[index] for index in order[start : start + 4]] for start in range(0, len(order), 4)]
    unsorted = 1 - sum(lengths) / sum(4 * max(chunk) for chunk in chunks)
    assert sorted_by_length < 0.03 < 0.3 < unsorted


def test_packing_fills_its_rows() -> None:
    lengths = conversations(2000)
    batches = epoch(lengths, Batching(4, WIDTH, pack=True))
    filled = sum(batch.tokens for batch in batches) / sum(batch.ids.size for batch in batches)
    assert filled >= 0.95
    for capacity in (512, 2048):
        assert fill(lengths, first_fit_decreasing(lengths, capacity), capacity) >= 0.95


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(40, 50))
def test_first_fit_decreasing_is_its_definition(lengths: list[int], capacity: int) -> None:
    rows: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fitting = (row for row in rows if sum(lengths[i] for i in row) + lengths[index] <= capacity)
        row = next(fitting, None)
        if row is None:
            rows.append([index])
        else:
            row.append(index)
    assert first_fit_decreasing(lengths, capacity) == rows


def test_pairs_stay_together() -> None:
    lengths = conversations(42)
    batching = Batching(4, WIDTH, together=2)
    batches = epoch(lengths, batching)
    assert Counter(index for batch in batches for index in batch.examples) == Counter(range(42))
    for batch in batches:
        assert len(batch.ids) <= 8
        assert [index % 2 for index in batch.examples] == [0, 1] * (len(batch.examples) // 2)
        assert all(b == a + 1 for a, b in zip(batch.examples[::2], batch.examples[1::2], strict=True))
    with pytest.raises(OptionError, match="cannot be packed"):
        replace(batching, pack=True)
    with pytest.raises(OptionError, match="batch_size=0"):
        Batching(0, WIDTH)


@pytest.mark.parametrize("count", [2, 3, 20, 1000, 20_000])
def test_rows_are_set_aside_by_seed(count: int) -> None:
    chosen = validation_rows(range(count), 3)
    assert chosen == sorted(set(chosen)) == validation_rows(range(count), 3)
    assert 1 <= len(chosen) == min(500, max(1, round(0.05 * count))) < count
    assert count < 20 or chosen != validation_rows(range(count), 4)


@given(st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=90), st.integers(0, 9))
def test_the_same_row_is_never_on_both_sides(contents: list[str], seed: int) -> None:
    if len(set(contents)) < 2:
        with pytest.raises(InputError, match="add rows"):
            validation_rows(contents, seed)
        return
    chosen = set(validation_rows(contents, seed))
    aside = {contents[index] for index in chosen}
    kept = {contents[index] for index in range(len(contents)) if index not in chosen}
    assert aside and kept and not aside & kept
    smallest = min(map(contents.count, contents))
    assert len(chosen) <= max(round(0.05 * len(contents)), smallest)
