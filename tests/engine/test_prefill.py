"""A long prompt can be given up between two layers, shows its rate on the way, and neither changes a number."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import tiny

from macllm.engine import generate as generate_module
from macllm.engine.events import Done, Event, Prefill, Stats, Token
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded
from macllm.engine.prefill import SHORT_CHUNK, Cancelled, LayerWatch, chunk_size, take_back
from macllm.engine.request import Limits
from macllm.engine.session import Session
from macllm.nn.cache import FullCache, SlidingCache

Models = Callable[[str], Loaded]
CHUNK = SHORT_CHUNK + 8
PROMPT = tiny.tokens(3 * CHUNK - 5, seed=3)
SOME = tiny.first_variants()


class CancelAt:
    """Is set from the ``at``-th time that somebody asks."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.asked = at, 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.at is not None and self.asked >= self.at


def up_to(count: int, cancel: CancelAt | None = None, chunk: int = CHUNK) -> Options:
    return Options(limits=Limits(max_tokens=count, ignore_eos=True), chunk=chunk, cancel=cancel)


def run(loaded: Loaded, session: Session, prompt: Sequence[int], options: Options) -> list[Event]:
    return list(generate(loaded, session, prompt, options))


def ids(events: Sequence[Event]) -> list[int]:
    return [event.id for event in events if isinstance(event, Token)]


def consistent(session: Session) -> bool:
    return {cache.offset for cache in session.caches} == {len(session.tokens)}


@pytest.mark.parametrize("variant", SOME)
def test_a_chunk_given_up_half_way_leaves_the_session_as_it_was(tiny_model: Models, variant: str) -> None:
    loaded = tiny_model(variant)
    layers = len(loaded.model.spec.layers)
    followup = [*PROMPT[: 2 * CHUNK - 3], *tiny.tokens(9, seed=6)]
    expected = ids(run(loaded, Session(loaded.model), followup, up_to(8)))
    # each chunk asks once before it begins and once after every layer but the last
    for at in {2, layers, layers + 2, 2 * layers + 2}:
        session, cancel = Session(loaded.model), CancelAt(at)
        events = run(loaded, session, PROMPT, up_to(8, cancel))
        done = events[-1]
        assert isinstance(done, Done)
        assert (done.reason, ids(events), cancel.asked) == ("cancelled", [], at)
        assert session.tokens == PROMPT[: (at - 1) // layers * CHUNK]
        assert consistent(session)
        assert ids(run(loaded, session, followup, up_to(8))) == expected


@pytest.mark.parametrize("variant", ["llama", "gemma3", "mistral-window"])
def test_giving_up_goes_on_from_what_a_conversation_had(tiny_model: Models, variant: str) -> None:
    loaded, session = tiny_model(variant), Session(tiny_model(variant).model)
    turns = [tiny.tokens(50, seed=1)]
    turns.append([*turns[0], *ids(run(loaded, session, turns[0], up_to(6))), *tiny.tokens(60, seed=2)])
    held = list(session.tokens)
    run(loaded, session, turns[1], up_to(6, CancelAt(2), chunk=100))
    assert (session.tokens, consistent(session)) == (held, True)
    again = run(loaded, session, turns[1], up_to(6))
    assert next(event for event in again if isinstance(event, Prefill)).reused == len(held)
    assert ids(again) == ids(run(loaded, Session(loaded.model), turns[1], up_to(6)))


@pytest.mark.parametrize("variant", SOME)
def test_a_watched_prefill_gives_the_same_logits(tiny_model: Models, variant: str) -> None:
    loaded = tiny_model(variant)

    def logits(cancel: CancelAt | None) -> np.ndarray:
        parts: list[np.ndarray] = []
        options = replace(up_to(0, cancel), logits=lambda part: parts.append(np.array(part)), all_logits=True)
        run(loaded, Session(loaded.model), PROMPT, options)
        return np.concatenate(parts)

    cancel = CancelAt()
    np.testing.assert_array_equal(logits(cancel), logits(None))
    assert cancel.asked == 3 * len(loaded.model.spec.layers)  # it was watched


def test_a_short_chunk_runs_in_one_go(tiny_model: Models) -> None:
    loaded, cancel = tiny_model("llama"), CancelAt()
    run(loaded, Session(loaded.model), PROMPT[:SHORT_CHUNK], up_to(0, cancel))
    assert cancel.asked == 1


def test_a_watch_passes_on_layer_by_layer_until_it_is_told() -> None:
    states = [mx.full((1, 4, 8), float(layer)) * 2 for layer in range(3)]
    told = CancelAt(3)
    watch = LayerWatch(told.is_set)
    watch(states[0])
    watch(states[1])
    with pytest.raises(Cancelled):
        watch(states[2])


def test_where_a_cache_cannot_go_back_all_start_anew(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    session = Session(loaded.model)
    run(loaded, session, PROMPT, up_to(0))

    class Fixed(FullCache):
        def rewindable(self) -> int:
            return 0

    fixed = Fixed()
    fixed.offset = len(PROMPT) + 3
    session.caches = [session.caches[0], fixed]
    take_back(session)
    assert session.tokens == []
    assert consistent(session)
    assert len(session.caches) == len(loaded.model.make_caches())


def test_a_window_goes_back_by_a_chunk_longer_than_itself() -> None:
    window = SlidingCache(4)
    keys = mx.arange(600, dtype=mx.float32).reshape(1, 1, 600, 1)
    window.update(keys[..., :20, :], keys[..., :20, :])
    window.update(keys[..., 20:, :], keys[..., 20:, :])
    window.rewind(580)
    seen, _ = window.update(keys[..., 20:22, :], keys[..., 20:22, :])
    assert seen.flatten().tolist() == [17, 18, 19, 20, 21]


def test_the_size_of_a_step() -> None:
    assert chunk_size("cpu", watched=True, layered=True) == chunk_size("cpu", watched=False, layered=False)
    assert chunk_size("metal", watched=True, layered=True) == chunk_size(
        "metal", watched=False, layered=False
    )
    watched = chunk_size("metal", watched=True, layered=False)
    assert watched < chunk_size("metal", watched=False, layered=False)


def test_stats_come_while_the_prompt_is_read(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_module, "STATS_EVERY_S", 0.0)
    events = run(tiny_model("llama"), Session(tiny_model("llama").model), PROMPT, up_to(3))
    kinds = [type(event) for event in events]
    assert kinds == [Prefill, Prefill, Stats, Prefill, Stats, Prefill, *[Token, Stats] * 3, Done]
    first, second, *decoding = [event for event in events if isinstance(event, Stats)]
    for stats, computed in ((first, CHUNK), (second, 2 * CHUNK)):
        assert stats.metrics.prefill_tps == pytest.approx(computed / stats.metrics.prefill_s)
        assert (stats.metrics.ttft_s, stats.steps_ms, stats.metrics.max_context) == (0.0, (), 512)
    assert [len(stats.steps_ms) for stats in decoding] == [0, 1, 1]
    assert decoding[-1].metrics.context_tokens == len(PROMPT) + 3


def test_cancelling_while_decoding_is_asked_once_a_token(tiny_model: Models) -> None:
    loaded, cancel = tiny_model("llama"), threading.Event()
    session, seen = Session(loaded.model), []
    for event in generate(loaded, session, PROMPT, replace(up_to(50), cancel=cancel)):
        seen.append(event)
        if len(ids(seen)) == 4:
            cancel.set()
    assert len(ids(seen)) == 4
    assert consistent(session)
