"""States of recurrences: going back, copies, files and bytes, against running over all tokens from the start."""

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macllm.nn.cache import LayerCache
from macllm.nn.cache_file import load_caches, save_caches
from macllm.nn.state_cache import Inputs, StateCache, States, run
from macllm.spec.memory import REWIND_TOKENS

PRIME = 1_000_000_007
LOGGED = 3 * REWIND_TOKENS  # tokens that the log never exceeds


def hashes(tokens: Sequence[int], before: int = 0) -> list[int]:
    """A number a token that every token before it changes."""
    found = []
    for token in tokens:
        before = (before * 31 + token + 1) % PRIME
        found.append(before)
    return found


class Hashing:
    """A recurrence that computes :func:`hashes`, and counts the tokens it was run over."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, inputs: Inputs, states: States | None) -> tuple[mx.array, States]:
        tokens = inputs[0][0, :, 0].tolist()
        self.steps += len(tokens)
        found = hashes(tokens, states[0].item() if states is not None else 0)
        assert inputs[1].tolist() == inputs[0].tolist()
        return mx.array(found, mx.int64)[None, :, None], (mx.array(found[-1:], mx.int64), mx.zeros(5))


class Recorder:
    """A cache beside the list of the tokens that it has seen."""

    def __init__(self, cache: StateCache) -> None:
        self.cache = cache
        self.recurrence = Hashing()
        self.tokens: list[int] = []
        self._next = 0

    def append(self, count: int) -> None:
        """Appends tokens that never were before and checks what comes out for them."""
        new = [self._next + i for i in range(count)]
        self._next += count
        before = hashes(self.tokens)[-1] if self.tokens else 0
        self.tokens += new
        ids = mx.array(new, mx.int64)[None, :, None]
        found = run(self.recurrence, (ids, ids), [self.cache])
        assert found[0, :, 0].tolist() == hashes(new, before)
        self.check()

    def rewind(self, count: int) -> None:
        self.cache.rewind(count)
        del self.tokens[len(self.tokens) - count :]
        self.check()

    def check(self) -> None:
        seen = len(self.tokens)
        assert self.cache.offset == seen
        assert self.cache.rewindable() <= min(seen, LOGGED)
        assert self.cache.nbytes == (8 + 5 * 4 if seen else 0)
        # the state, three checkpoints, two inputs of eight bytes
        assert self.cache.allocated_bytes <= 4 * (8 + 20) + 2 * 8 * min(seen, LOGGED)

    def twin(self, cache: StateCache | None = None) -> "Recorder":
        other = Recorder(self.cache.copy() if cache is None else cache)
        other.tokens, other._next = [*self.tokens], self._next + 1000
        return other

    def reloaded(self, folder: Path) -> "Recorder":
        save_caches(folder / "cache", [self.cache])
        loaded: list[LayerCache] = [StateCache()]
        load_caches(folder / "cache", loaded)
        assert isinstance(loaded[0], StateCache)
        return self.twin(loaded[0])


@pytest.mark.parametrize("steps", [(1,) * 200, (7,) * 40, (64,) * 5, (65, 63, 1, 64), (300, 1, 1, 129, 2)])
def test_it_goes_back_by_every_number_up_to_its_limit(steps: tuple[int, ...]) -> None:
    recorder = Recorder(StateCache())
    for count in steps:
        recorder.append(count)
        assert recorder.cache.rewindable() >= min(REWIND_TOKENS, len(recorder.tokens))
    for count in range(recorder.cache.rewindable() + 1):
        twin = recorder.twin()
        twin.rewind(count)
        twin.append(1)
        twin.append(70)
    recorder.append(1)


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "rewind", "fork", "file"]), st.integers(1, 200)), max_size=16
)


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_any_order_of_appends_rewinds_copies_and_files(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    recorder = Recorder(StateCache())
    for step, count in steps:
        if step == "append":
            recorder.append(count)
        elif step == "rewind":
            recorder.rewind(min(count, recorder.cache.rewindable()))
        else:  # the old one goes on too, and neither may change the other
            twin = recorder.twin() if step == "fork" else recorder.reloaded(tmp_path_factory.getbasetemp())
            recorder.append(min(count, 20))
            twin.append(2)
            recorder.append(1)
            recorder = twin
    recorder.append(1)


@pytest.mark.parametrize("accepted", [0, 1, 3, 4])
def test_drafts_that_are_dropped_again_cost_what_stays_of_them(accepted: int) -> None:
    """And keep neither the log nor the way back from staying as they are."""
    recorder = Recorder(StateCache())
    recorder.append(100)
    recorder.recurrence.steps = 0
    for _ in range(150):
        recorder.append(5)
        recorder.rewind(4 - accepted)
        assert recorder.cache.rewindable() >= REWIND_TOKENS - 4
    kept = 1 + accepted
    assert recorder.recurrence.steps <= 150 * (5 + (kept if accepted < 4 else 0))


@pytest.mark.parametrize("length", [1, 64, 65, 500])
def test_rewinding_too_far_is_refused_and_changes_nothing(length: int) -> None:
    recorder = Recorder(StateCache())
    recorder.append(length)
    for count in (recorder.cache.rewindable() + 1, -1):
        with pytest.raises(ValueError, match="cannot rewind"):
            recorder.cache.rewind(count)
    recorder.append(1)


def test_an_empty_cache_can_be_asked_everything(tmp_path: Path) -> None:
    cache = StateCache()
    assert (cache.offset, cache.nbytes, cache.allocated_bytes, cache.rewindable()) == (0, 0, 0, 0)
    assert cache.arrays() == []
    cache.rewind(0)
    assert cache.copy().offset == 0
    Recorder(cache).reloaded(tmp_path).append(3)


def test_a_recurrence_that_fails_leaves_the_cache_as_it_was() -> None:
    recorder = Recorder(StateCache())
    recorder.append(70)

    def failing(inputs: Inputs, states: States | None) -> tuple[mx.array, States]:
        raise MemoryError

    for count in (1, 30):
        with pytest.raises(MemoryError):
            run(failing, (mx.zeros((1, count, 1)),), [recorder.cache])
        recorder.check()
        recorder.append(1)


def test_nothing_of_a_long_prompt_stays_but_the_log() -> None:
    """Logged inputs are parts of what was computed for all tokens; they must not hold that."""
    cache = StateCache()

    def last(inputs: Inputs, states: States | None) -> tuple[mx.array, States]:
        return inputs[0] * 2, (mx.contiguous(inputs[0][:, -1]),)

    start = mx.get_active_memory()
    whole = mx.random.normal((1, 4000, 96))
    y = run(last, tuple(mx.split(whole, 3, axis=-1)), [cache])
    mx.eval(y, cache.arrays())
    del whole, y
    held = mx.get_active_memory() - start
    assert cache.allocated_bytes == (REWIND_TOKENS * 96 + 2 * 32) * 4
    assert held < 3 * cache.allocated_bytes
