"""Whole runs by each method: the loss goes down, a stopped one goes on bit for bit, and the adapter is what it says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from running import QUICK, assert_same, job, left, ran

from macllm.adapters import files
from macllm.engine.loading import load_model
from macllm.engine.training_events import Planned, Trained, TrainStep, Validation
from macllm.errors import OptionError
from macllm.tune.setup import set_up

SHORT: dict[str, Any] = {**QUICK, "iters": 6, "steps_per_eval": 6, "learning_rate": 0.02}


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "pissa", "rank": 2, "scale": 1.0, "loraplus_ratio": 4.0},
        {"method": "ia3"},
        {"method": "bottleneck", "grad_checkpoint": True},
        {"method": "prompt", "virtual_tokens": 3, "samples": 1},
        {"method": "prefix", "virtual_tokens": 3, "grad_checkpoint": True, "samples": 1},
    ],
    ids=lambda settings: settings["method"],
)
def test_a_run_learns_and_a_stopped_one_goes_on_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    whole, broken = job(tmp_path / "whole"), job(tmp_path / "broken")
    whole, broken = (replace(one, settings={**SHORT, **settings}) for one in (whole, broken))
    events = ran(whole)
    looks = [event.loss for event in events if isinstance(event, Validation)]
    assert len(looks) == 2 and looks[-1] < looks[0]
    assert sum(isinstance(event, TrainStep) for event in events) == 6
    stopped = ran(broken, stop_after=2)
    assert isinstance(stopped[-1], Trained) and stopped[-1].step == 2
    ran(replace(broken, settings={}, resume=True))
    assert_same(left(whole.folder), left(broken.folder))
    loaded = load_model(whole.base, dtype="float32")
    tokens = mx.array([[1, 2, 3, 4, 5]])
    before = loaded.model(tokens)
    files.apply(loaded.model, files.read(whole.folder, loaded.spec))
    assert not mx.array_equal(loaded.model(tokens), before)


def test_the_ratio_of_lora_plus_changes_what_is_learned(tmp_path: Path) -> None:
    found = []
    for ratio in (1.0, 16.0):
        one = replace(job(tmp_path / str(ratio)), settings={**SHORT, "iters": 2, "loraplus_ratio": ratio})
        ran(one)
        found.append(left(one.folder))
    assert any((found[0][name] != found[1][name]).any() for name in found[0] if name.endswith("lora_b"))


def test_more_virtual_tokens_are_more_parameters_and_rows_are_not_packed(tmp_path: Path) -> None:
    counts = []
    for tokens in (2, 4):
        settings = {**SHORT, "iters": 1, "method": "prompt", "virtual_tokens": tokens}
        first = ran(replace(job(tmp_path / str(tokens)), settings=settings))[0]
        assert isinstance(first, Planned)
        counts.append(first.trainable_parameters)
    assert counts[1] == 2 * counts[0]
    with pytest.raises(OptionError, match=r"^target 'nothing' names no matrix"):
        set_up(replace(job(tmp_path / "targets"), settings={"targets": "nothing"}))
    packed = {**SHORT, "method": "prefix", "pack": "yes"}
    with pytest.raises(
        OptionError, match=r"^pack=yes is not possible: method 'prefix' puts its tokens before"
    ):
        ran(replace(job(tmp_path / "packed"), settings=packed))
