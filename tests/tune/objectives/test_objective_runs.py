"""Whole runs with every objective of preferences: they learn, tell TRL's figures, and go on bit for bit."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import chatty
import pytest
from running import QUICK, assert_same, data, left, ran

from macllm.engine.training_events import Preparing, Sample, Trained, Validation
from macllm.errors import Cancelled, InputError
from macllm.tune import setup
from macllm.tune.job import Job
from macllm.tune.metrics_file import read
from macllm.tune.objectives.reward import HEAD
from macllm.tune.reward_model import RewardModel

PAIRS = [{"prompt": f"{n}?", "chosen": "ab" * (n % 3 + 1), "rejected": "c" * (n % 4 + 1)} for n in range(16)]
LABELLED = [
    {"prompt": f"{n}?", "completion": "ab" if n % 2 else "cc", "label": bool(n % 2)} for n in range(16)
]


def job(folder: Path, objective: str, rows: list[dict[str, Any]] = PAIRS, **settings: Any) -> Job:
    path = folder / "data.jsonl"
    path = path if path.exists() else data(folder, rows)
    given = {**QUICK, "objective": objective, "learning_rate": 5e-3, **settings}
    return Job(chatty.folder("endless"), path, folder / "out", given, dtype="float32")


@pytest.mark.parametrize("objective", ["dpo", "ipo", "simpo", "cpo", "orpo", "reward", "kto"])
def test_a_run_learns_what_is_preferred(objective: str, tmp_path: Path) -> None:
    rows = LABELLED if objective == "kto" else PAIRS
    events = ran(job(tmp_path, objective, rows, max_seq_length=128))
    losses = [event.loss for event in events if isinstance(event, Validation)]
    assert losses[-1] < losses[0] and isinstance(events[-1], Trained)
    looks = [row for row in read(tmp_path / "out") if row["val_loss"] is not None]
    assert "rewards/chosen" in looks[-1] or "rewards/rejected" in looks[-1]
    if objective != "kto":
        assert looks[-1]["rewards/margins"] > looks[0]["rewards/margins"]
    if objective == "reward":
        scorer = RewardModel.load(chatty.folder("endless"), tmp_path / "out", dtype="float32")
        asked = [{"role": "user", "content": "3?"}]
        good, bad = scorer.score(
            [[*asked, {"role": "assistant", "content": text}] for text in ("abab", "ccc")]
        )
        assert good > bad
        _the_page_says_how_to_ask_it(tmp_path / "out")
    assert (tmp_path / "out" / HEAD).exists() == (objective == "reward")


def _the_page_says_how_to_ask_it(folder: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "finetuning-objectives.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    places = {"models/base": str(chatty.folder("endless")), "adapters/judge": str(folder)}
    for said, place in places.items():
        assert said in block
        block = block.replace(said, place)
    names: dict[str, Any] = {}
    exec(compile(block, "finetuning-objectives.md", "exec"), names)
    assert isinstance(names["good"], float) and names["good"] != names["bad"]


@pytest.mark.parametrize(
    ("objective", "rows", "settings"),
    [
        ("dpo", PAIRS, {"method": "full", "learning_rate": 1e-3}),
        ("kto", LABELLED, {"dropout": 0.3, "grad_accumulation_steps": 2}),
        ("reward", PAIRS, {}),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    objective: str, rows: list[dict[str, Any]], settings: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ran(job(whole, objective, rows, iters=5, **settings))
    stopped = job(parts, objective, rows, iters=5, **settings)
    ran(stopped, stop_after=3)
    shutil.rmtree(cache, ignore_errors=True)  # the base says the same of answers when it is asked again
    ran(replace(stopped, resume=True))
    assert_same(left(parts / "out"), left(whole / "out"))


def test_samples_of_pairs_are_of_different_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("macllm.tune.samples.TOKENS", 2)
    rows = [{"prompt": f"{n}?", "chosen": "ab", "rejected": "c"} for n in range(60)]
    events = ran(job(tmp_path, "dpo", rows, iters=1, samples=2))
    prompts = [event.prompt for event in events if isinstance(event, Sample) and event.step == 0]
    assert len(prompts) == len(set(prompts)) == 2


def test_rows_are_refused_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("macllm.tune.run.load_model", None)
    with pytest.raises(InputError, match=r"'sft' does not learn from 'preference' rows"):
        setup.set_up(job(tmp_path / "a", "sft"))
    with pytest.raises(InputError, match=r"label of all rows to learn from is true"):
        setup.set_up(job(tmp_path / "b", "kto", [{**row, "label": True} for row in LABELLED]))


def test_the_base_is_asked_once_and_tells_how_far_it_is(tmp_path: Path) -> None:
    events = ran(job(tmp_path / "a", "dpo", iters=1))
    told = [event for event in events if isinstance(event, Preparing)]
    assert told == events[: len(told)] and told[-1] == Preparing(32, 32) and len(told) == 8
    assert not any(isinstance(event, Preparing) for event in ran(job(tmp_path / "b", "dpo", iters=1)))
    with pytest.raises(Cancelled, match=r"stopped before the first step"):
        ran(job(tmp_path / "c", "kto", LABELLED), stop_after=0)
    assert not (tmp_path / "c" / "out").exists()
