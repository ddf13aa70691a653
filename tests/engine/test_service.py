"""The engine's service: one model at a time, turns, sessions, what it says when and what it survives."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chatty
import mlx.core as mx
import pytest
from service_bench import Bench, kinds

from macllm.engine import resident as resident_module
from macllm.engine import service as service_module
from macllm.engine.counting import PromptCounter
from macllm.engine.events import Counted, Event, Loading, Ready, Trimmed
from macllm.engine.protocol import Count, Load, ModelRef, Request, Train
from macllm.engine.request import Sampling
from macllm.engine.resident import FULL_SHARE, IDLE_SHARE, MOST_SESSIONS, Resident
from macllm.tokenizer.load import load_tokenizer


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_model_is_loaded_once_and_says_so(bench: Bench) -> None:
    assert kinds(bench.answer(1, chatty.ask(tokens=3))) == ["Loading", "Ready", "Prefill", "Token", "Done"]
    assert kinds(bench.answer(2, chatty.ask(tokens=3))) == ["Prefill", "Token", "Done"]
    assert kinds(bench.answer(3, Load(chatty.ref()))) == ["Ready"]


def test_the_time_to_the_first_token_counts_the_load(bench: Bench) -> None:
    metrics = chatty.done(bench.answer(1, chatty.ask(tokens=3, model="deep"))).metrics
    assert metrics.ttft_s > metrics.load_s > 0


def test_a_reference_changes_the_sampling_it_names(bench: Bench) -> None:
    ready = bench.answer(1, Load(chatty.ref(temperature=0.5, top_k=7)))[-1]
    assert isinstance(ready, Ready)
    assert ready.sampling == Sampling(temperature=0.5, top_k=7)
    wanted = chatty.ids(bench.answer(2, chatty.ask(sampling=Sampling(temperature=0.5, top_k=7, seed=3))))
    request = chatty.ask(sampling=None, settings={"seed": 3})
    given = replace(request, model=chatty.ref(temperature=0.5, top_k=7))
    assert chatty.ids(bench.answer(3, given)) == wanted
    failure = chatty.failure(bench.answer(4, Load(chatty.ref(heat=1.0))))
    assert failure.kind == "OptionError"
    assert "heat" in failure.message


def test_a_cancelled_load_leaves_nothing_in_memory(bench: Bench) -> None:
    bench.answer(1, Load(chatty.ref("short")))
    bench.service._resident.free()
    before = mx.get_active_memory()
    bench.on_event = lambda number, event: bench.cancel(number) if isinstance(event, Loading) else None
    events = bench.answer(2, Load(chatty.ref("deep")))
    assert kinds(events) == ["Loading", "Done"]
    assert chatty.done(events).reason == "cancelled"
    assert mx.get_active_memory() == before
    bench.on_event = lambda number, event: None
    assert isinstance(bench.answer(3, Load(chatty.ref("deep")))[-1], Ready)


def test_open_generations_take_turns(bench: Bench) -> None:
    bench.answer(1, Load(chatty.ref()))
    bench.order.clear()
    for number in (2, 3, 4):
        bench.send(number, chatty.ask(tokens=10))
    bench.run(2, 3, 4)
    steps = [number for number in bench.order if number > 1]
    assert steps[:9] == [2, 3, 4] * 3


def test_another_model_waits_until_the_open_generations_have_ended(bench: Bench) -> None:
    bench.send(1, chatty.ask(tokens=30))
    bench.service.turn()
    bench.send(2, chatty.ask(tokens=5, model="short"))
    bench.send(3, chatty.ask(tokens=5))  # behind it, so that it does not wait for ever
    bench.run(1, 2, 3)
    assert bench.ended == [1, 2, 3]
    assert len(chatty.ids(bench.heard[1])) == 30
    assert [kinds(bench.heard[number])[0] for number in (1, 2, 3)] == ["Loading"] * 3


def test_what_waits_for_another_model_can_be_cancelled(bench: Bench) -> None:
    bench.send(1, chatty.ask(tokens=10_000))
    bench.service.turn()
    bench.send(2, Load(chatty.ref("short")))
    bench.service.turn()
    bench.cancel(2)
    assert chatty.done(bench.run(2)).reason == "cancelled"
    bench.cancel(1)
    assert chatty.done(bench.run(1)).reason == "cancelled"


def reused(events: list[Event]) -> int:
    return chatty.done(events).metrics.reused_tokens


def test_a_conversation_goes_on_from_its_cache_and_others_do_not_disturb_it(bench: Bench) -> None:
    first = bench.answer(1, chatty.ask("Hello", session="a"))
    bench.answer(2, chatty.ask("Something else", session="b"))
    bench.answer(3, chatty.ask("And nothing to keep"))
    longer = chatty.ask(session="a", messages=chatty.talk("Hello", chatty.text_of(first), "Go on"))
    assert reused(bench.answer(4, longer)) >= chatty.done(first).metrics.prompt_tokens
    fresh = replace(longer, session="")
    assert chatty.ids(bench.answer(5, fresh)) == chatty.ids(bench.heard[4])
    assert reused(bench.heard[5]) == 0


def test_a_conversation_asked_twice_at_once_lends_its_cache_to_one(bench: Bench) -> None:
    bench.answer(1, chatty.ask("Hello", session="a"))
    bench.send(2, chatty.ask("Hello", session="a"))
    bench.send(3, chatty.ask("Hello", session="a"))
    bench.run(2, 3)
    assert reused(bench.heard[2]) > 0
    assert reused(bench.heard[3]) == 0
    assert chatty.ids(bench.heard[2]) == chatty.ids(bench.heard[3]) == chatty.ids(bench.heard[1])
    assert reused(bench.answer(4, chatty.ask("Hello", session="a"))) > 0


def test_the_conversation_left_longest_ago_is_forgotten_first(bench: Bench) -> None:
    names = [f"chat {number}" for number in range(MOST_SESSIONS + 1)]
    for number, name in enumerate(names, start=1):
        bench.answer(number, chatty.ask(session=name, tokens=1))
    assert reused(bench.answer(50, chatty.ask(session=names[-1], tokens=1))) > 0
    assert reused(bench.answer(51, chatty.ask(session=names[0], tokens=1))) == 0


def converse(resident: Resident, name: str) -> None:
    """Has a conversation fill some of its cache and leave it."""
    lease = resident.lease(name)
    for cache in lease.session.caches:
        cache.update(mx.zeros((1, 2, 9, 8)), mx.zeros((1, 2, 9, 8)))  # type: ignore[attr-defined]
    lease.session.tokens += range(9)
    lease.session.evaluate()
    resident.give_back(lease)


def limit_memory(resident: Resident, limit_bytes: float) -> None:
    tight = replace(resident.loaded.backend, memory_limit_bytes=int(limit_bytes))
    resident._loaded = replace(resident.loaded, backend=tight)


@pytest.fixture
def resident() -> Resident:
    found = Resident()
    found.load(chatty.ref(), lambda done, total: None)
    return found


def test_caches_give_way_where_memory_nears_its_limit(resident: Resident) -> None:
    for name in ("old", "new"):
        converse(resident, name)
    room = resident.lease("next")
    limit_memory(resident, mx.get_active_memory() / FULL_SHARE + 1)
    resident.make_room()
    assert list(resident._idle) == ["old", "new"]
    resident.make_room(room, tokens=1)
    assert list(resident._idle) == ["new"]  # what the older one held was enough
    resident.make_room(room, tokens=100_000)
    assert list(resident._idle) == []


def test_conversations_that_rest_take_a_share_of_memory_and_the_last_is_kept(
    resident: Resident, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_module, "FULL_SHARE", 1e9)  # other tests hold memory too
    converse(resident, "a")
    each = resident._idle_bytes()
    limit_memory(resident, 2.5 * each / IDLE_SHARE)
    for name in "bcdef":
        converse(resident, name)
    assert list(resident._idle) == ["e", "f"]
    limit_memory(resident, 0.5 * each / IDLE_SHARE)
    converse(resident, "f")
    assert list(resident._idle) == ["f"]


def test_the_oldest_turns_are_left_out_where_asked_for(bench: Bench) -> None:
    turns = chatty.talk(
        "First question", "First answer", "Second question", "Second answer", "Third question"
    )
    messages = (chatty.Message.of("system", "Be brief."), *turns)
    failure = chatty.failure(bench.answer(1, chatty.ask(messages=messages, model="short", tokens=40)))
    assert failure.kind == "ContextError"
    assert failure.exit_code == 2
    dropping = chatty.ask(messages=messages, model="short", tokens=40, overflow="drop", reserve=40)
    events = bench.answer(2, dropping)
    assert Trimmed(4) in events
    assert len(chatty.ids(events)) == 40
    alone = chatty.ask(messages=(messages[0], messages[-1]), model="short", tokens=40)
    assert chatty.ids(bench.answer(3, alone)) == chatty.ids(events)


def test_a_reply_that_was_begun_is_gone_on_with(bench: Bench) -> None:
    begun = chatty.ask(messages=chatty.talk("Hello", "Well"), continue_final=True)
    tokenizer = load_tokenizer(chatty.folder("endless"))
    events = bench.answer(1, begun)
    prompt = tokenizer.encode_chat(begun.messages, continue_final=True)
    assert tokenizer.decode(prompt).endswith("Well")
    assert chatty.done(events).metrics.prompt_tokens == len(prompt)


def test_counts_are_those_of_the_prompt_that_is_sent(bench: Bench) -> None:
    talk = chatty.talk("Hello", "Well?")
    count = Count(chatty.ref(), talk, "How are you?")
    assert bench.answer(1, count) == [Counted(-1, -1)]
    assert bench.heard[1] == [Counted(-1, -1)]
    sent = chatty.ask(messages=(*talk, chatty.Message.of("user", count.draft)), tokens=1)
    prompt = chatty.done(bench.answer(2, sent)).metrics.prompt_tokens
    assert bench.answer(3, count) == [Counted(len(count.draft), prompt)]
    assert bench.answer(4, replace(count, draft="How")) == [Counted(3, prompt - len(count.draft) + 3)]


@pytest.mark.parametrize("draft", ["a", "Some words.", " two\n\nparagraphs ", "é😀", ""])
@pytest.mark.parametrize("talk", [(), ("Hello", "Well?"), ("Hello", "Well?", "Go on")])
def test_counting_along_with_the_typing_is_counting_anew(draft: str, talk: tuple[str, ...]) -> None:
    tokenizer = load_tokenizer(chatty.folder("endless"))
    messages = chatty.talk(*talk)
    typed = PromptCounter(tokenizer)
    for length in range(len(draft)):
        typed.count(messages, draft[:length])
    assert typed.count(messages, draft) == PromptCounter(tokenizer).count(messages, draft)


def test_a_count_is_answered_while_a_reply_is_written(bench: Bench) -> None:
    bench.send(1, chatty.ask(tokens=10_000))
    bench.service.turn()
    bench.send(2, Count(chatty.ref(), (), "draft"))
    bench.send(3, Count(chatty.ref("short"), (), "draft"))
    bench.service.turn()
    assert bench.heard[2] == [
        Counted(5, chatty.done(bench.answer(4, chatty.ask("draft"))).metrics.prompt_tokens)
    ]
    assert bench.heard[3] == [Counted(-1, -1)]
    assert 1 not in bench.ended


FAILURES: list[tuple[Callable[[Path], Request], str, int, str]] = [
    (lambda place: Load(ModelRef("none", str(place / "none"))), "SourceError", 2, "none"),
    (lambda place: Load(ModelRef("empty", str(place))), "ConfigError", 2, "config.json"),
    (lambda place: Train(chatty.ref(), "data.jsonl", "mine"), "TrainingUnavailable", 1, "only chats"),
    (lambda place: chatty.ask("x" * 500, model="short"), "ContextError", 2, "140"),
    (lambda place: chatty.ask(messages=()), "TokenizerError", 2, "user message"),
    (lambda place: chatty.ask(sampling=None, settings={"top_k": -5}), "OptionError", 2, "top_k=-5"),
]


@pytest.mark.parametrize(("request_of", "kind", "exit_code", "named"), FAILURES)
def test_what_fails_is_said_and_the_next_request_is_answered(
    bench: Bench, tmp_path: Path, request_of: Callable[[Path], Request], kind: str, exit_code: int, named: str
) -> None:
    failure = chatty.failure(bench.answer(1, request_of(tmp_path)))
    assert failure.kind == kind
    assert failure.exit_code == exit_code
    assert named in failure.message
    assert len(chatty.ids(bench.answer(2, chatty.ask(tokens=5)))) == 5


def breaking(kind: type[Exception], words: str, after: int) -> Any:
    """A decode loop that fails: MLX on a CPU does not say that memory ran out, it crashes."""
    real = service_module.generate

    def generate(*arguments: Any) -> Iterator[Event]:
        for number, event in enumerate(real(*arguments)):
            if number == after:
                raise kind(words)
            yield event

    return generate


@pytest.mark.parametrize(
    ("kind", "words"), [(RuntimeError, "[metal::malloc] Unable to allocate 9 bytes."), (MemoryError, "")]
)
def test_where_memory_runs_out_the_model_is_let_go_and_the_next_request_loads_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], words: str
) -> None:
    bench.service._resident.free()
    empty = mx.get_active_memory()
    with monkeypatch.context() as patch:
        patch.setattr(service_module, "generate", breaking(kind, words, after=4))
        failure = chatty.failure(bench.answer(1, chatty.ask(session="a", model="big")))
    assert failure.kind == "MemoryLimitError"
    assert mx.get_active_memory() < empty + 100_000  # of 36 MB
    assert kinds(bench.answer(2, chatty.ask(session="a", model="big")))[0] == "Loading"


def test_any_other_error_is_named_and_the_model_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(service_module, "generate", breaking(ZeroDivisionError, "by zero", after=4))
        failure = chatty.failure(bench.answer(1, chatty.ask()))
    assert failure.kind == "ZeroDivisionError"
    assert failure.exit_code == 1
    assert "by zero" in failure.message
    assert kinds(bench.answer(2, chatty.ask())) == ["Prefill", "Token", "Done"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"\xff\xfe{", "cannot be read"),
        (b"[1]", "expected an object"),
        (b"{}", "id=None"),
        (b'{"id": 0, "request": {}}', "id=0"),
        (b'{"id": true, "request": {}}', "id=True"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_a_line_that_is_no_request_is_answered(bench: Bench, line: bytes, named: str) -> None:
    bench.inbox.read([line, b'{"cancel": 77}', b'{"cancel": [1]}'])
    assert named in chatty.failure(bench.heard[0]).message
    assert isinstance(bench.answer(1, Load(chatty.ref()))[-1], Ready)


@pytest.mark.parametrize(
    ("request_json", "named"),
    [
        (None, "NoneType"),
        ({"type": "Explode"}, "'Explode'"),
        ({"type": "Done", "reason": "stop", "text": "", "metrics": {}}, "Done is an event"),
        ({"type": "Load", "model": {"name": "m"}}, "path"),
    ],
)
def test_a_request_that_is_none_fails_under_its_id(bench: Bench, request_json: Any, named: str) -> None:
    bench.inbox.read([json.dumps({"id": 3, "request": request_json}).encode()])
    assert named in chatty.failure(bench.heard[3]).message
    assert bench.ended == [3]
