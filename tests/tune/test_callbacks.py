"""Callbacks: mlx-lm's keys, means over so many steps; TensorBoard's own files, read back record by record."""

import struct
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from macllm.engine.training_events import Trained, TrainStep, Validation
from macllm.errors import OptionError
from macllm.tune.callbacks import CallbackFeed, TrainingCallback
from macllm.tune.reporters import checked_names, reporters


class Kept(TrainingCallback):
    def __init__(self) -> None:
        self.train: list[dict[str, Any]] = []
        self.valid: list[dict[str, Any]] = []

    def on_train_loss_report(self, train_info: Any) -> None:
        self.train.append(dict(train_info))

    def on_val_loss_report(self, val_info: Any) -> None:
        self.valid.append(dict(val_info))


def step(number: int, steps: int = 6) -> TrainStep:
    """Half a second and 100 tokens a step."""
    return TrainStep(
        number,
        steps,
        10.0 - number,
        1e-4,
        0.5,
        100 * number,
        200.0,
        7,
        2_000_000_000,
        0.5 * number,
        1.0,
        0.25,
        40,
    )


def told(numbers: range, every: int = 2, *more: Any) -> Kept:
    kept = Kept()
    feed = CallbackFeed([kept], every)
    for event in (*map(step, numbers), *more):
        feed.take(event)
    return kept


def test_the_keys_are_mlx_lms() -> None:
    package = find_spec("mlx_lm")  # read, not imported, which takes seconds
    assert package is not None and package.origin is not None
    text = (Path(package.origin).parent / "tuner" / "trainer.py").read_text()
    kept = told(range(1, 3), 1, Validation(2, 1.5, best=True))
    for name, info in (("train", kept.train[0]), ("val", kept.valid[0])):
        body = text.split(f"on_{name}_loss_report(")[1].split("}")[0]
        theirs = {line.split('"')[1] for line in body.splitlines() if '":' in line}
        assert theirs and theirs <= set(info), name
    assert kept.valid[0]["iteration"] == 2 and kept.valid[0]["val_loss"] == 1.5
    assert kept.valid[0]["val_time"] >= 0


def test_a_report_is_of_the_steps_since_the_last() -> None:
    kept = told(range(1, 7), 4)
    assert [info["iteration"] for info in kept.train] == [4, 6]  # the last steps are not left out
    assert [info["train_loss"] for info in kept.train] == [7.5, 4.5]
    for info in kept.train:
        assert info["iterations_per_second"] == pytest.approx(2) and info["peak_memory"] == 2.0
        assert info["tokens_per_second"] == pytest.approx(200)
    assert kept.train[-1]["trained_tokens"] == 600


def test_a_run_that_went_on_or_was_stopped_is_told_too() -> None:
    kept = told(range(3, 6), 2, Trained("stopped", 5, "", 5.0, None))
    assert [info["iteration"] for info in kept.train] == [4, 5]
    for info in kept.train:
        assert info["iterations_per_second"] == pytest.approx(2)
        assert info["tokens_per_second"] == pytest.approx(200)


def records(folder: Path) -> Iterator[Event]:
    """The events of TensorBoard's files: length, its checksum, the event, its checksum."""
    for file in folder.glob("events.out.tfevents.*"):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_tensorboard_gets_its_own_files(tmp_path: Path) -> None:
    made = reporters(checked_names("tensorboard"), tmp_path, "p", {"rank": 8})
    feed = CallbackFeed(made, 2)
    for event in (*map(step, range(1, 5)), Validation(4, 1.5, best=True)):
        feed.take(event)
    feed.close()
    found: dict[str, list[tuple[int, float]]] = {}
    for event in records(tmp_path / "tensorboard"):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert found["train/train_loss"] == [(2, 8.5), (4, 6.5)]
    assert found["validation/val_loss"] == [(4, 1.5)] and "settings/text_summary" in found


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_others_are_told_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in: they are not installed for tests, and would ask for an account or start a server."""
    library = ModuleType(name)
    calls: list[tuple[str, Any, Any]] = []
    for call in ("init", "log", "finish"):
        setattr(library, call, lambda *words, _call=call, **more: calls.append((_call, words, more)))
    monkeypatch.setitem(sys.modules, name, library)
    feed = CallbackFeed(reporters(checked_names(name), tmp_path / "mine", "p", {"rank": 8}))
    for event in (step(1), Validation(1, 1.5, best=True)):
        feed.take(event)
    feed.close()
    assert [call for call, _, _ in calls] == ["init", "log", "log", "finish"]
    begun, train, valid = (more for _, _, more in calls[:3])
    assert begun["project"] == "p" and begun["name"] == "mine" and begun["config"] == {"rank": 8}
    assert train["step"] == valid["step"] == 1 and calls[1][1][0]["train_loss"] == 9.0


def test_names_are_checked_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked_names("") == () and checked_names(" TensorBoard,tensorboard ") == ("tensorboard",)
    with pytest.raises(OptionError, match="report_to='paper' is not known"):
        checked_names("tensorboard,paper")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(
        OptionError, match=r"tensorboardX, which is not installed; `pip install 'macllm\[tensor"
    ):
        checked_names("tensorboard")
