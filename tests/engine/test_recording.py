"""Recordings: what was recorded is played again, damaged files are refused by line, and nothing is overwritten."""

import asyncio
import contextlib
import json
import os
import resource
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import chatty
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm.engine.client import EngineClient
from macllm.engine.events import (
    Counted,
    Done,
    Event,
    Machine,
    Prefill,
    Ready,
    Stats,
    Token,
)
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Count, Generate, Load, ModelRef, Request, Train
from macllm.engine.recording import (
    Exchange,
    Recorder,
    Recording,
    ReplayEngine,
    read_recording,
    write_recording,
)
from macllm.engine.request import Sampling
from macllm.engine.training_events import Trained, TrainStep
from macllm.errors import InputError

MACHINE = Machine("metal", "Apple M4", 2**34, 2**33, "bfloat16")
MODEL = ModelRef("m", "/models/m")
METRICS = Metrics(decode_tokens=2, decode_tps=50.0)


def generate(text: str = "Hello") -> Generate:
    return Generate(MODEL, chatty.talk(text))


READY = Ready("m", 4096, Sampling(), True, "model", False, "abc", 0.1, 1000)
REPLY = Exchange(
    generate(),
    (
        (0.1, (Prefill(0, 9, 0), Prefill(9, 9, 0))),
        (0.5, (Token(1, "Hi"), Stats(METRICS, (20.0,)))),
        (0.6, (Token(2, " there"), Done("stop", "", METRICS))),
    ),
    at=1.0,
)
COUNT = Exchange(Count(MODEL, (), "Hel"), ((0.02, (Counted(1, 9),)),), at=0.9)
LOAD = Exchange(Load(MODEL), ((0.3, (READY,)),))


def every(exchange: Exchange) -> list[Any]:
    return [event for _, batch in exchange.batches for event in batch]


async def playing(*exchanges: Exchange, **options: Any) -> ReplayEngine:
    engine = ReplayEngine(Recording(MACHINE, exchanges), **{"pace": "instant", **options})
    await engine.start()
    return engine


async def test_what_an_engine_said_is_said_again(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    recorder = Recorder(EngineClient(), file)
    assert not recorder.alive
    await recorder.start()
    assert recorder.alive and recorder.problem == ""
    requests: list[Request] = [
        Load(chatty.ref()),
        chatty.ask("Hello", session="a"),
        Count(chatty.ref(), (), "How are"),
        chatty.ask("How are you?", session="a"),
        Load(ModelRef("none", "/nowhere")),
    ]
    heard = [await chatty.read(recorder.submit(request)) for request in requests]
    stopped = recorder.submit(chatty.ask("And now?", tokens=None))
    heard.append([*await chatty.until(stopped, Token)])
    stopped.cancel()
    heard[-1] += await chatty.read(stopped)
    left = recorder.submit(chatty.ask("Nobody reads this", tokens=3))
    await left.aclose()
    machine = recorder.machine
    await recorder.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    engine = ReplayEngine(file, pace="instant")
    assert engine.machine is None
    await engine.start()
    assert engine.machine == machine
    assert list(engine.requests[:-1]) == [*requests, chatty.ask("And now?", tokens=None)]
    for request, events in zip(engine.requests, heard, strict=False):
        assert await chatty.read(engine.submit(request)) == events
    assert [one.cancelled is not None for one in read_recording(file).exchanges] == [False] * 5 + [True] * 2


async def test_streams_that_were_open_at_once_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    recorder = Recorder(EngineClient(), file)
    await recorder.start()
    streams = [recorder.submit(chatty.ask(text, tokens=30)) for text in ("One", "Two")]
    heard = await asyncio.gather(*map(chatty.read, streams))
    await recorder.close()
    recorded = read_recording(file).exchanges
    assert [every(exchange) for exchange in recorded] == heard


async def test_a_crash_and_the_new_start_are_in_the_recording(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    client = EngineClient()
    recorder = Recorder(client, file)
    await recorder.start()
    stream = recorder.submit(chatty.ask(tokens=None))
    await chatty.until(stream, Token)
    assert client.pid is not None
    os.kill(client.pid, 9)
    failure = chatty.failure(await chatty.read(stream))
    assert await chatty.read(recorder.submit(chatty.ask())) == [failure]
    await recorder.start()
    after = await chatty.read(recorder.submit(chatty.ask(tokens=3)))
    await recorder.close()

    engine = ReplayEngine(file, pace="instant")
    await engine.start()
    assert chatty.failure(await chatty.read(engine.submit(chatty.ask()))) == failure
    assert (engine.alive, engine.problem) == (False, failure.message)
    assert await chatty.read(engine.submit(chatty.ask())) == [failure]
    await engine.start()
    assert (engine.alive, engine.problem) == (True, "")
    assert await chatty.read(engine.submit(chatty.ask())) == after


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    file.write_text("precious")
    with pytest.raises(InputError, match=r"talk.jsonl: is there already; give a new file"):
        Recorder(EngineClient(), file)
    assert file.read_text() == "precious"
    with pytest.raises(InputError, match="No such file or directory"):
        Recorder(EngineClient(), tmp_path / "none" / "talk.jsonl")


async def test_each_line_is_on_disk_when_it_was_said(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    recorder = Recorder(await playing(LOAD, REPLY), file)
    await recorder.start()
    assert len(file.read_text().splitlines()) == 1
    await chatty.read(recorder.submit(REPLY.request))
    recording = read_recording(file)  # as after a crash of the app: nobody closed it
    assert recording.machine == MACHINE
    assert [every(exchange) for exchange in recording.exchanges] == [every(REPLY)]


@contextlib.contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes meanwhile."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


async def test_a_full_disk_ends_the_recording_and_not_the_chat(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    recorder = Recorder(await playing(REPLY, REPLY), file)
    told: list[str] = []
    recorder.on_trouble = told.append
    await recorder.start()
    head = file.stat().st_size
    with disk_with_room_for(head + 200):  # the request fits, what comes of it does not
        assert await chatty.read(recorder.submit(REPLY.request)) == every(REPLY)
    assert "talk.jsonl: the recording ends early: File too large" in recorder.trouble
    assert told == [recorder.trouble]
    assert await chatty.read(recorder.submit(REPLY.request)) == every(REPLY)
    await recorder.close()
    (cut,) = read_recording(file).exchanges  # no line is half there
    assert cut.request == REPLY.request and not cut.complete


class Clock:
    """Sleeps as long as the test says."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


async def test_the_recorded_pace_is_that_of_the_recording() -> None:
    clock = Clock()
    engine = await playing(REPLY, pace="recorded", sleep=clock.sleep)
    assert await chatty.read(engine.submit(generate())) == every(REPLY)
    assert clock.slept == pytest.approx([0.1, 0.4, 0.1])


async def test_requests_are_answered_by_kind_and_in_order() -> None:
    second = replace(REPLY, batches=((0.0, (Done("length", "x", METRICS),)),))
    engine = await playing(LOAD, COUNT, REPLY, second)
    first, then = engine.submit(generate("other words")), engine.submit(generate())
    assert await chatty.read(then) == every(second)
    assert await chatty.read(first) == every(REPLY)
    assert await chatty.read(engine.submit(Load(MODEL))) == [READY]


async def test_what_was_not_recorded_fails_and_counts_are_as_the_last() -> None:
    engine = await playing(COUNT, REPLY)
    assert await chatty.read(engine.submit(COUNT.request)) == [Counted(1, 9)]
    assert await chatty.read(engine.submit(COUNT.request)) == [Counted(1, 9)]
    await chatty.read(engine.submit(generate()))
    failure = chatty.failure(await chatty.read(engine.submit(generate())))
    assert failure.message == "the recording holds 1 Generate requests and this is one more; record it again"
    assert await chatty.read((await playing()).submit(COUNT.request)) == [Counted(-1, -1)]


async def test_a_played_reply_can_be_cancelled() -> None:
    gate = asyncio.Event()
    waits = iter([0, 0])

    async def sleep(seconds: float) -> None:
        if next(waits, None) is None:
            await gate.wait()

    engine = await playing(REPLY, REPLY, pace="recorded", sleep=sleep)
    stream = engine.submit(generate())
    heard: list[Event] = []
    while not chatty.ids(heard):
        heard += await anext(stream)  # type: ignore[arg-type]
    stream.cancel()
    assert await chatty.read(stream) == [Done("cancelled", "", METRICS)]
    gate.set()
    assert await chatty.read(engine.submit(generate())) == every(REPLY)


async def test_a_reply_that_the_recording_cuts_off_fails() -> None:
    engine = await playing(replace(REPLY, batches=REPLY.batches[:2], complete=False))
    events = await chatty.read(engine.submit(generate()))
    assert events[:-1] == every(REPLY)[:4]
    assert chatty.failure(events).kind == "RecordingEnded"


async def test_a_closed_engine_takes_nothing_more() -> None:
    engine = ReplayEngine(Recording(MACHINE, (REPLY, REPLY)))
    assert chatty.failure(await chatty.read(engine.submit(generate()))).kind == "EngineDied"
    await engine.start()
    stream = engine.submit(generate())
    await engine.close()
    assert chatty.failure(await chatty.read(stream)).message == "the engine was closed"
    assert chatty.failure(await chatty.read(engine.submit(generate()))).kind == "EngineDied"
    assert not engine.alive


async def test_a_training_run_is_played_too(tmp_path: Path) -> None:
    steps = tuple(
        (step / 10, (TrainStep(step, 3, 2.0 / (step + 1), 1e-4, 0.5, 100, 50.0, 1, 1, 0.1, 0.2),))
        for step in range(3)
    )
    end = (0.4, (Trained("finished", 3, "/adapters/a", 0.6, None),))
    run = Exchange(Train(MODEL, "data.jsonl", "a"), (*steps, end))
    file = tmp_path / "run.jsonl"
    write_recording(file, MACHINE, [run])
    engine = ReplayEngine(file, pace="instant")
    await engine.start()
    assert await chatty.read(engine.submit(run.request)) == every(run)


TIMES = st.lists(st.integers(0, 5000), min_size=1, max_size=5).map(
    lambda ms: [one / 1000 for one in sorted(ms)]
)
EXCHANGES = st.lists(
    st.builds(
        lambda text, at, times, cancelled: Exchange(
            generate(text),
            tuple((time, (Token(index, text),)) for index, time in enumerate(times)),
            at,
            cancelled,
        ),
        st.text(max_size=5),
        st.integers(0, 9000).map(lambda ms: ms / 1000),
        TIMES,
        st.none() | st.integers(0, 0).map(float),
    ),
    max_size=4,
).map(lambda many: sorted(many, key=lambda one: one.at))


@given(exchanges=EXCHANGES)
def test_a_recording_made_in_code_is_read_as_it_was_made(
    tmp_path_factory: pytest.TempPathFactory, exchanges: Sequence[Exchange]
) -> None:
    file = tmp_path_factory.mktemp("made") / "talk.jsonl"
    write_recording(file, MACHINE, exchanges)
    read = read_recording(file)
    assert read.machine == MACHINE
    for found, made in zip(read.exchanges, exchanges, strict=True):
        assert (found.request, every(found)) == (made.request, every(made))
        assert found.at == pytest.approx(made.at)
        assert [time for time, _ in found.batches] == pytest.approx([time for time, _ in made.batches])
        assert found.cancelled == pytest.approx(made.cancelled)


HEAD = '{"macllm_recording": 1, "version": "0", "machine": null}'
ASKED = '{"t": 1, "id": 1, "request": {"type": "Load", "model": {"name": "m", "path": "p"}}}'
ENDED = '{"t": 2, "events": [], "ended": [1]}'


@pytest.mark.parametrize(
    ("lines", "place", "named"),
    [
        ([], 1, "nothing in it"),
        (["{"], 1, "not JSON"),
        (["[]"], 1, "list is not an object"),
        (['{"role": "user"}'], 1, "not a recording of macllm"),
        (['{"macllm_recording": 2}'], 1, "format 2"),
        (['{"macllm_recording": 1, "machine": {"type": "Machine"}}'], 1, "Machine: .*backend"),
        (
            ['{"macllm_recording": 1, "machine": {"type": "Trimmed", "messages": 1}}'],
            1,
            "Trimmed is not Machine",
        ),
        ([HEAD, '{"t": 1, "events": [[1, {"ty'], 2, "not JSON"),
        ([HEAD, '{"t": 1}'], 2, "nothing beside t"),
        ([HEAD, '{"t": 1, "id": 1}'], 2, "id beside t"),
        ([HEAD, ASKED.replace('"t": 1', '"t": "1"')], 2, "t='1'"),
        ([HEAD, ASKED.replace('"t": 1', '"t": -1')], 2, "t=-1"),
        ([HEAD, ASKED.replace('"t": 1', '"t": NaN')], 2, "t=nan"),
        ([HEAD, ASKED.replace('"id": 1', '"id": 0')], 2, "id=0"),
        ([HEAD, ASKED, ASKED], 3, "id=1"),
        ([HEAD, ASKED.replace("Load", "Lead")], 2, "'Lead'"),
        (
            [HEAD, ASKED, '{"t": 1, "events": [[2, {"type": "Trimmed", "messages": 1}]], "ended": []}'],
            3,
            "request 2",
        ),
        ([HEAD, ASKED, '{"t": 1, "events": [[1, {"type": "Trimmed"}]], "ended": []}'], 3, "messages"),
        ([HEAD, ASKED, '{"t": 1, "events": [1], "ended": []}'], 3, "not an id with its event"),
        ([HEAD, ASKED, '{"t": 1, "events": {}, "ended": []}'], 3, "not a list"),
        ([HEAD, ASKED, ENDED, ENDED], 4, "no request 1 is under way"),
        ([HEAD, ASKED, '{"t": 1, "cancel": []}'], 3, r"no request \[\]"),
        (
            [
                HEAD,
                ASKED,
                '{"t": 1, "events": [[1, {"type": "Load", "model": {"name": "m", "path": "p"}}]], "ended": []}',
            ],
            3,
            "Load is no event",
        ),
    ],
)
def test_a_damaged_recording_is_refused_by_file_and_line(
    tmp_path: Path, lines: list[str], place: int, named: str
) -> None:
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(InputError, match=rf"talk\.jsonl:{place}: .*{named}.*; record it again") as refusal:
        ReplayEngine(file)
    assert refusal.value.exit_code == 2
    with pytest.raises(InputError, match=rf"^recording:{place}: "):
        ReplayEngine(lines)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.jsonl: No such file"):
        ReplayEngine(tmp_path / "none.jsonl")
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=r"picture.png: is not text"):
        ReplayEngine(file)


def test_the_first_line_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    write_recording(file, MACHINE, [])
    head = json.loads(file.read_text().splitlines()[0])
    assert head["macllm_recording"] == 1
    assert head["machine"]["device"] == "Apple M4"
    assert head["version"]
