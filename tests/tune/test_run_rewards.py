"""A run by rewards: the metrics say how they rise, a stopped run draws what it would have drawn, bad rows are named."""

from dataclasses import replace
from pathlib import Path

import chatty
import pytest
from running import assert_same, data, job, left, ran

from macllm.engine.training_events import TrainStep, Validation
from macllm.tune.metrics_file import read
from macllm.tune.setup import DataError

QUICK = {
    "objective": "grpo",
    "iters": 4,
    "max_completion_length": 6,
    "num_generations": 4,
    "learning_rate": 1e-3,
    "steps_per_eval": 2,
    "loss_type": "dr_grpo",
    "beta": 0.05,
}
ROWS = [{"prompt": f"{n}+1?", "answer": str(n + 1), "wanted": "abcdefghijklm"} for n in range(12)]


@pytest.fixture
def reward(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(
        "def share(prompt, completion, row):\n    return sum(c in row['wanted'] for c in completion) / 6\n"
    )
    return f"{path}:share, exact_match*2"


def test_a_stopped_run_draws_what_it_would_have_drawn(tmp_path: Path, reward: str) -> None:
    for name in ("whole", "parts"):
        data(tmp_path / name, ROWS)
    whole = ran(job(tmp_path / "whole", reward=reward, **QUICK))
    ran(job(tmp_path / "parts", reward=reward, **QUICK), stop_after=1)
    ran(replace(job(tmp_path / "parts"), settings={}, resume=True))
    assert_same(left(tmp_path / "whole" / "out"), left(tmp_path / "parts" / "out"))

    rows = read(tmp_path / "whole" / "out")
    for row in rows[1:]:
        assert row["reward"] == pytest.approx(
            row[f"rewards/{reward.split(',')[0]}/mean"] + 2 * row["rewards/exact_match/mean"]
        )
        assert (
            row["completions/mean_length"] <= 6 and 0 <= row["frac_reward_zero_std"] <= 1 and row["kl"] >= 0
        )
    assert [row["step"] for row in rows if "eval_reward" in row] == [0, 2, 4]
    looks = [event for event in whole if isinstance(event, Validation)]
    assert [look.loss for look in looks] == pytest.approx(
        [-row["eval_reward"] for row in rows if "eval_reward" in row]
    )
    steps = [event.figures["reward"] for event in whole if isinstance(event, TrainStep)]
    assert steps == [row["reward"] for row in rows[1:]]


def test_every_row_that_cannot_be_judged_is_named(tmp_path: Path) -> None:
    data(tmp_path, [*ROWS, {"prompt": "?"}, {"prompt": "??", "answer": "four"}])
    with pytest.raises(DataError) as raised:
        ran(job(tmp_path, reward="numeric", **QUICK))
    assert [str(problem)[:14] for problem in sorted(raised.value.problems, key=str)] == [
        "data.jsonl:13:",
        "data.jsonl:14:",
    ]
    assert "'answer' holds no number" in str(raised.value)


def test_a_student_comes_nearer_and_a_stopped_run_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    settings = {
        "objective": "distill",
        "teacher": str(chatty.folder("other")),
        "divergence": "js",
        "on_policy": 0.5,
        "max_completion_length": 6,
        "iters": 6,
        "steps_per_eval": 3,
    }
    whole, parts = job(tmp_path / "whole", **settings), job(tmp_path / "parts", **settings)
    looks = [event.loss for event in ran(whole) if isinstance(event, Validation)]
    ran(parts, stop_after=2)
    ran(replace(parts, settings={}, resume=True))
    assert_same(left(tmp_path / "whole" / "out"), left(tmp_path / "parts" / "out"))
    assert looks[-1] < looks[0]
