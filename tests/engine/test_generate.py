"""The decode loop: what it yields, that no fast path changes it, and that a session stays what it says."""

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import tiny

from macllm.engine.events import Done, Event, Prefill, Stats, Token
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded
from macllm.engine.request import Limits, Sampling
from macllm.engine.session import Session
from macllm.errors import ContextError, InputError, MemoryLimitError

Models = Callable[[str], Loaded]
VARIANTS = ["llama", "qwen2-window", "qwen3-tied", "gemma3"]
PROMPT = tiny.tokens(21, seed=3)


def run(
    loaded: Loaded, prompt: Sequence[int], options: Options, session: Session | None = None
) -> list[Event]:
    return list(generate(loaded, session or Session(loaded.model), prompt, options))


def ids(events: Sequence[Event]) -> list[int]:
    return [event.id for event in events if isinstance(event, Token)]


def done(events: Sequence[Event]) -> Done:
    last = events[-1]
    assert isinstance(last, Done)
    return last


def up_to(count: int, **limits: object) -> Options:
    return Options(limits=Limits(max_tokens=count, ignore_eos=True, **limits))  # type: ignore[arg-type]


def naive_greedy(loaded: Loaded, prompt: Sequence[int], count: int) -> list[int]:
    """The whole text computed anew for every token, without caches."""
    text = list(prompt)
    for _ in range(count):
        logits = loaded.model(mx.array([text]))  # type: ignore[operator]
        text.append(int(mx.argmax(logits[0, -1]).item()))
    return text[len(prompt) :]


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_equals_the_model_run_without_caches(tiny_model: Models, variant: str) -> None:
    loaded = tiny_model(variant)
    assert ids(run(loaded, PROMPT, up_to(12))) == naive_greedy(loaded, PROMPT, 12)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("chunk", [1, 2, 7, 20, 21, 100])
def test_the_prefill_step_changes_nothing(tiny_model: Models, variant: str, chunk: int) -> None:
    loaded = tiny_model(variant)
    assert ids(run(loaded, PROMPT, replace(up_to(8), chunk=chunk))) == ids(run(loaded, PROMPT, up_to(8)))


def test_prefill_is_reported_to_its_end_before_the_first_token(tiny_model: Models) -> None:
    events = run(tiny_model("llama"), PROMPT, replace(up_to(3), chunk=8))
    steps = [event for event in events if isinstance(event, Prefill)]
    assert [step.done for step in steps] == [0, 8, 16, 21]
    assert {step.total for step in steps} == {21}
    kinds = [type(event) for event in events if not isinstance(event, Stats)]  # as time goes
    assert kinds == [Prefill] * 4 + [Token] * 3 + [Done]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_session_continues_as_if_computed_anew(tiny_model: Models, variant: str) -> None:
    loaded = tiny_model(variant)
    session = Session(loaded.model)
    first = ids(run(loaded, PROMPT, up_to(6), session))
    longer = [*PROMPT, *first, *tiny.tokens(5, seed=8)]
    events = run(loaded, longer, up_to(9), session)
    assert ids(events) == ids(run(loaded, longer, up_to(9)))
    # all that was fed is reused: the prompt and every token but the last, which no step has seen
    assert done(events).metrics.reused_tokens == len(PROMPT) + len(first) - 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_session_goes_back_to_an_edited_message(tiny_model: Models, variant: str) -> None:
    loaded = tiny_model(variant)
    session = Session(loaded.model)
    run(loaded, PROMPT, up_to(6), session)
    edited = [*PROMPT[:9], *tiny.tokens(4, seed=5)]
    assert ids(run(loaded, edited, up_to(9), session)) == ids(run(loaded, edited, up_to(9)))


def test_the_same_prompt_again_computes_one_token(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    session = Session(loaded.model)
    first = run(loaded, PROMPT, up_to(5), session)
    second = run(loaded, PROMPT, up_to(5), session)
    assert ids(first) == ids(second)
    assert done(second).metrics.reused_tokens == len(PROMPT) - 1


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("events_read", [1, 2, 4, 5, 6, 9])
def test_an_abandoned_generation_leaves_the_session_usable(
    tiny_model: Models, variant: str, events_read: int
) -> None:
    loaded = tiny_model(variant)
    session = Session(loaded.model)
    stream = generate(loaded, session, PROMPT, replace(up_to(20), chunk=8))
    for _ in range(events_read):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert {cache.offset for cache in session.caches} == {len(session.tokens)}
    longer = [*PROMPT, 5, 6, 7]
    assert ids(run(loaded, longer, up_to(8), session)) == ids(run(loaded, longer, up_to(8)))


def test_an_error_in_a_step_forgets_the_session(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    session = Session(loaded.model)

    class Broken:
        separate_head = layered = True

        def hidden(self, tokens: mx.array, caches: Sequence[object], ahead: int = 0) -> mx.array:
            loaded.model.hidden(tokens, caches)
            raise RuntimeError(f"[malloc] Unable to allocate {10**12} bytes.")

    with pytest.raises(MemoryLimitError, match="21 prompt tokens"):
        run(replace(loaded, model=Broken()), PROMPT, up_to(3), session)  # type: ignore[arg-type]
    assert session.tokens == []
    assert {cache.offset for cache in session.caches} == {0}


def test_cancelling_in_prefill_ends_before_the_next_chunk(tiny_model: Models) -> None:
    cancel = threading.Event()
    seen = []
    for event in generate(
        tiny_model("llama"),
        Session(tiny_model("llama").model),
        PROMPT,
        replace(up_to(9), chunk=4, cancel=cancel),
    ):
        seen.append(event)
        if isinstance(event, Prefill) and event.done == 8:
            cancel.set()
    assert [event.done for event in seen if isinstance(event, Prefill)] == [0, 4, 8]
    assert done(seen).reason == "cancelled"
    assert not ids(seen)


def test_cancelling_while_decoding_ends_within_a_step(tiny_model: Models) -> None:
    cancel = threading.Event()
    seen = []
    for event in generate(
        tiny_model("llama"), Session(tiny_model("llama").model), PROMPT, replace(up_to(50), cancel=cancel)
    ):
        seen.append(event)
        if len(ids(seen)) == 4:
            cancel.set()
    assert len(ids(seen)) <= 5
    assert done(seen).reason == "cancelled"


def test_no_tokens_asked_for_computes_the_prompt_only(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    session = Session(loaded.model)
    events = run(loaded, PROMPT, up_to(0), session)
    assert ids(events) == []
    assert done(events).reason == "length"
    assert session.tokens == PROMPT
    assert done(events).metrics.prefill_tps > 0


def test_the_context_ends_a_generation(tiny_model: Models) -> None:
    loaded = replace(tiny_model("llama"), max_context=len(PROMPT) + 4)
    events = run(loaded, PROMPT, Options(limits=Limits(ignore_eos=True)))
    assert len(ids(events)) == 4
    assert done(events).reason == "length"


def test_a_prompt_that_fills_the_context_is_computed(tiny_model: Models) -> None:
    events = run(replace(tiny_model("llama"), max_context=len(PROMPT)), PROMPT, Options())
    assert (ids(events), done(events).reason) == ([], "length")
    assert events[-2] == Prefill(len(PROMPT), len(PROMPT), 0)


def test_a_prompt_longer_than_the_context_is_refused(tiny_model: Models) -> None:
    loaded = replace(tiny_model("llama"), max_context=20, name="small")
    with pytest.raises(ContextError, match="21 tokens and the context of small holds 20"):
        run(loaded, PROMPT, up_to(4))


def test_a_prompt_whose_cache_does_not_fit_is_refused(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    small = replace(loaded.backend, memory_limit_bytes=1000)
    with pytest.raises(MemoryLimitError, match="a prompt of 21 tokens needs"):
        run(replace(loaded, backend=small), PROMPT, up_to(4))


def test_what_a_session_holds_of_a_prompt_is_not_counted_twice(tiny_model: Models) -> None:
    loaded, prompt = tiny_model("llama"), tiny.tokens(200, seed=1)
    session = Session(loaded.model)
    run(loaded, prompt, up_to(1), session)
    limit = mx.get_active_memory() + session.kv_bytes // 2
    small = replace(loaded, backend=replace(loaded.backend, memory_limit_bytes=limit))
    assert len(ids(run(small, prompt, up_to(1), session))) == 1
    with pytest.raises(MemoryLimitError, match="200 tokens"):
        run(small, prompt, up_to(1))


@pytest.mark.parametrize(("prompt", "says"), [([], "empty"), ([5, 99], "99"), ([-1], "-1")])
def test_a_prompt_that_cannot_be_is_refused(tiny_model: Models, prompt: list[int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run(tiny_model("llama"), prompt, up_to(4))


def test_a_stop_token_ends_the_reply_and_is_reported(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    text = ids(run(loaded, PROMPT, up_to(12)))
    stop = text[5]
    events = run(replace(loaded, stop_ids=frozenset({stop})), PROMPT, Options(limits=Limits(max_tokens=12)))
    assert ids(events) == text[: text.index(stop) + 1]
    assert done(events).reason == "stop"
    ignoring = run(replace(loaded, stop_ids=frozenset({stop})), PROMPT, up_to(12))
    assert ids(ignoring) == text


@pytest.mark.parametrize("chunk", [3, 64])
def test_the_same_seed_gives_the_same_tokens(tiny_model: Models, chunk: int) -> None:
    loaded = tiny_model("llama")
    mx.random.seed(chunk)  # MLX's own state plays no part
    options = Options(Sampling(temperature=1.5, seed=7), Limits(max_tokens=20, ignore_eos=True), chunk=chunk)
    assert ids(run(loaded, PROMPT, options)) == ids(run(loaded, PROMPT, replace(options, chunk=None)))
    other = replace(options, sampling=Sampling(temperature=1.5, seed=8))
    assert ids(run(loaded, PROMPT, options)) != ids(run(loaded, PROMPT, other))


def test_penalties_see_the_prompt_and_what_was_just_generated(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    sampling = Sampling(presence_penalty=2.0, repetition_penalty=100.0, repetition_context=0)
    text = ids(run(loaded, PROMPT, Options(sampling, Limits(max_tokens=30, ignore_eos=True))))
    assert len(set(text)) == len(text)
    assert not set(text) & set(PROMPT)


def test_dry_breaks_a_loop(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    plain = ids(run(loaded, PROMPT, up_to(60)))
    dry = Sampling(dry_multiplier=50.0, dry_allowed_length=1)
    text = ids(run(loaded, PROMPT, Options(dry, Limits(max_tokens=60, ignore_eos=True))))

    def repeats(tokens: list[int]) -> int:
        pairs = list(itertools.pairwise(tokens))
        return len(pairs) - len(set(pairs))

    assert repeats(text) < repeats(plain)


def test_logprobs_are_those_of_the_model(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    events = run(loaded, PROMPT, Options(limits=Limits(max_tokens=5, ignore_eos=True, logprobs=3)))
    tokens = [event for event in events if isinstance(event, Token)]
    whole = [*PROMPT, *ids(events)]
    logits = np.array(loaded.model(mx.array([whole]))[0]).astype(np.float64)  # type: ignore[operator]
    table = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for index, token in enumerate(tokens):
        row = table[len(PROMPT) - 1 + index]
        assert token.logprob == pytest.approx(row[token.id], abs=1e-4)
        assert [top.id for top in token.top] == np.argsort(-row)[:3].tolist()
        assert [top.logprob for top in token.top] == pytest.approx(sorted(row)[::-1][:3], abs=1e-4)


@pytest.mark.parametrize("chunk", [5, 64])
def test_prompt_logits_are_those_of_the_whole_forward(tiny_model: Models, chunk: int) -> None:
    loaded = tiny_model("gemma3")
    parts: list[np.ndarray] = []
    options = Options(
        limits=Limits(max_tokens=0),
        chunk=chunk,
        logits=lambda part: parts.append(np.array(part)),
        all_logits=True,
    )
    run(loaded, PROMPT, options)
    whole = np.array(loaded.model(mx.array([PROMPT]))[0])  # type: ignore[operator]
    assert np.concatenate(parts).shape == whole.shape
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)


def test_metrics_follow_their_definitions(tiny_model: Models) -> None:
    loaded = tiny_model("llama")
    metrics = done(run(loaded, PROMPT, up_to(10))).metrics
    assert metrics.prompt_tokens == 21
    assert metrics.reused_tokens == 0
    assert metrics.decode_tokens == 10
    assert metrics.ttft_s >= metrics.prefill_s > 0
    assert metrics.decode_tps == pytest.approx(9 / metrics.decode_s)  # the first token is the prefill's
    assert 0 < metrics.step_ms_p50 <= metrics.step_ms_p99
    assert metrics.kv_bytes == 30 * 3 * 2 * 2 * 8 * 4  # tokens fed, layers, k and v, heads, width, float32
    assert metrics.peak_memory_bytes >= metrics.memory_bytes > 0
    assert (metrics.dtype, metrics.backend) == ("float32", loaded.backend.name)
