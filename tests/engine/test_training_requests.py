"""The engine asked to fine-tune, with what really trains: alone on the machine, stopped, resumed, refused by line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import chatty
import mlx.core as mx
import pytest
from service_bench import Bench, kinds

from macllm.adapters import kept
from macllm.engine.events import Counted, Event, Loading, Notice
from macllm.engine.protocol import Count, Load, Train
from macllm.engine.training_events import Planned, Saved, Trained, TrainStep
from macllm.tune.worker import train

SETTINGS = {"iters": 6, "learning_rate": 1e-2, "max_seq_length": 64, "batch_size": 2, "samples": 1}


@pytest.fixture
def bench(macllm_home: Path) -> Bench:
    return Bench(train)


def run_of(folder: Path, rows: list[Any] | None = None, **settings: Any) -> Train:
    """A request for an adapter named "mine"."""
    path = folder / "data.jsonl"
    content = rows or [{"prompt": f"{n} and {n}?", "completion": "ab" * (n % 5 + 1)} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return Train(chatty.ref(), str(path), "mine", {**SETTINGS, **settings})


def on(kind: type[Event], action: Callable[[], object]) -> Callable[[int, Event], None]:
    """Does it each time such an event comes."""
    return lambda number, event: (action(), None)[1] if isinstance(event, kind) else None


def steps(events: list[Any]) -> list[int]:
    return [event.step for event in events if isinstance(event, TrainStep)]


def test_a_run_ends_with_an_adapter_under_its_name_and_frees_what_it_took(
    bench: Bench, tmp_path: Path
) -> None:
    bench.service._resident.free()
    before = mx.get_active_memory()
    events: list[Any] = bench.answer(1, run_of(tmp_path))
    assert kinds(events)[:2] == ["Loading", "Planned"] and kinds(events)[-2:] == ["Trained", "Done"]
    assert steps(events) == [1, 2, 3, 4, 5, 6] and chatty.done(events).reason == "stop"
    trained = events[-2]
    assert isinstance(trained, Trained) and Path(trained.path) == kept.folder() / "mine"
    assert (kept.folder() / "mine" / kept.WEIGHTS).is_file()
    assert mx.get_active_memory() < before + 4096  # a few constants are kept, and no matrix


def test_it_waits_for_the_reply_under_way_then_has_the_machine_for_itself(
    bench: Bench, tmp_path: Path
) -> None:
    bench.send(1, chatty.ask(tokens=30))
    bench.service.turn()
    bench.send(2, run_of(tmp_path))
    bench.send(3, Load(chatty.ref("short")))
    bench.on_event = on(Planned, lambda: bench.send(4, chatty.ask(tokens=5)))
    bench.run(2)
    assert bench.ended == [1, 3, 4, 2]  # who asks meanwhile is told at once
    assert len(chatty.ids(bench.heard[1])) == 30
    for number in (3, 4):
        refused = chatty.failure(bench.heard[number])
        assert (
            refused.kind == "TrainingUnderWay"
            and "adapter 'mine' is being trained on endless" in refused.message
        )
    assert kinds(bench.answer(5, chatty.ask(tokens=5))) == ["Loading", "Ready", "Prefill", "Token", "Done"]


def test_tokens_are_counted_while_it_trains(bench: Bench, tmp_path: Path) -> None:
    count = Count(chatty.ref(), chatty.talk("Hello", "Hi"), "draft")
    bench.answer(1, Load(chatty.ref()))
    (wanted,) = bench.answer(2, count)
    counts = []
    bench.on_event = on(
        Planned, lambda: (bench.send(3, count), bench.send(4, Count(chatty.ref("short"), (), "a")))
    )
    bench.answer(5, run_of(tmp_path))
    counts = [bench.heard[3], bench.heard[4]]
    assert counts == [[wanted], [Counted(-1, -1)]] and wanted != Counted(-1, -1)
    assert bench.ended.index(3) < bench.ended.index(5)


def test_a_stop_comes_after_the_step_under_way_is_saved_and_can_be_resumed(
    bench: Bench, tmp_path: Path
) -> None:
    request = run_of(tmp_path)
    bench.on_event = lambda number, event: (
        bench.cancel(number) if isinstance(event, TrainStep) and event.step == 2 else None
    )
    events: list[Any] = bench.answer(1, request)
    assert steps(events) == [1, 2] and kinds(events)[-3:] == ["Saved", "Trained", "Done"]
    assert events[-2].reason == "stopped"
    bench.on_event = lambda number, event: None
    assert "already" in chatty.failure(bench.answer(2, request)).message  # nothing is written over
    resumed: list[Any] = bench.answer(3, replace(request, resume=True))
    assert steps(resumed) == [3, 4, 5, 6]
    assert next(event for event in resumed if isinstance(event, Planned)).resumed_step == 2


def test_a_stop_before_the_first_step_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.on_event = lambda number, event: bench.cancel(number) if isinstance(event, Loading) else None
    events = bench.answer(1, run_of(tmp_path))
    assert kinds(events) == ["Loading", "Done"] and chatty.done(events).reason == "cancelled"
    assert kept.existing("mine") is None


def test_every_row_that_cannot_be_used_is_named_by_file_and_line(bench: Bench, tmp_path: Path) -> None:
    good = {"prompt": "a?", "completion": "b"}
    events = bench.answer(
        1, run_of(tmp_path, [good, {"prompt": "a?"}, good, {"prompt": 3, "completion": "b"}])
    )
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert [notice.split(": ")[0] for notice in notices] == ["data.jsonl:2", "data.jsonl:4"]
    failure = chatty.failure(events)
    assert failure.kind == "DataError" and failure.exit_code == 2 and "data.jsonl:2" in failure.message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": {"rang": 8}}, "did you mean rank"),
        ({"adapter": "../mine"}, "cannot be a folder"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"resume": True}, "no run has saved"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_and_a_chat_goes_on(
    bench: Bench, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    failure = chatty.failure(bench.answer(1, replace(run_of(tmp_path), **change)))
    assert failure.exit_code == 2 and named in failure.message
    assert len(chatty.ids(bench.answer(2, chatty.ask(tokens=5)))) == 5


async def test_the_process_of_the_app_trains(macllm_home: Path, tmp_path: Path) -> None:
    async with chatty.engine(worker="macllm.tune.worker") as engine:
        events: list[Any] = await chatty.read(engine.submit(run_of(tmp_path)))
    assert steps(events) == [1, 2, 3, 4, 5, 6]
    assert any(isinstance(event, Saved) for event in events)
    assert (kept.folder() / "mine" / kept.WEIGHTS).is_file()
