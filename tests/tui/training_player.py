"""Engines that answer Train from the recorded run or with given events, and the run taken without an engine."""

from pathlib import Path
from typing import Any

from gate import Gate

from macllm.engine.protocol import ModelRef, Train
from macllm.engine.recording import Exchange, Recording, ReplayEngine, read_recording
from macllm.engine.training_events import TrainStep
from macllm_tui.training import TrainingRun

RECORDING = Path(__file__).parent / "recordings" / "training.jsonl"


def player(gate: Gate | None = None, *others: Exchange) -> ReplayEngine:
    """Plays the recorded run, then the other streams."""
    recorded = read_recording(RECORDING)
    return ReplayEngine(Recording(recorded.machine, (*recorded.exchanges, *others)), sleep=gate or Gate())


def answering(*events: Any) -> ReplayEngine:
    """Answers the first Train with these."""
    machine = read_recording(RECORDING).machine
    request = Train(ModelRef("", ""), "", "")
    return ReplayEngine(
        Recording(machine, (Exchange(request, tuple((0.0, (event,)) for event in events)),)), sleep=Gate()
    )


def play(run: TrainingRun, until_step: int = 10**9) -> TrainingRun:
    """Takes the recorded events without an engine."""
    for _, batch in read_recording(RECORDING).exchanges[0].batches:
        for event in batch:
            if isinstance(event, TrainStep) and event.step > until_step:
                return run
            run.take(event)
    return run


def fresh() -> TrainingRun:
    recorded = read_recording(RECORDING).exchanges[0].request
    assert isinstance(recorded, Train)
    return TrainingRun(player(), recorded)
