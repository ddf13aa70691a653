"""The line of figures: what is there and nothing else."""

from dataclasses import replace

import pytest

from macllm.engine.figures import figures, waits
from macllm.engine.metrics import Metrics

WHOLE = Metrics(
    prompt_tokens=2000,
    reused_tokens=1812,
    ttft_s=0.4123,
    decode_tokens=412,
    decode_tps=71.26,
    draft_tested=100,
    draft_accepted=78,
)


def test_everything_that_was_measured_is_on_the_line() -> None:
    assert figures(WHOLE) == "71.3 tok/s · 412 tok · TTFT 0.41 s · 1812 reused · 78 % accepted"


@pytest.mark.parametrize(
    ("absent", "word"),
    [
        ({"decode_tps": 0.0}, "tok/s"),
        ({"ttft_s": 0.0}, "TTFT"),
        ({"reused_tokens": 0}, "reused"),
        ({"draft_tested": 0, "draft_accepted": 0}, "accepted"),
    ],
)
def test_what_was_not_measured_is_left_out(absent: dict[str, float], word: str) -> None:
    assert word in figures(WHOLE)
    less = figures(replace(WHOLE, **absent))
    assert word not in less
    assert less.split(" · ") == [part for part in figures(WHOLE).split(" · ") if word not in part]


def test_thought_time_is_told_where_there_is_any() -> None:
    assert figures(replace(WHOLE, thinking_s=4.21)) == figures(WHOLE) + " · thought 4.2 s"


def test_waits_tell_a_load_in_this_reply_from_one_long_ago() -> None:
    now = Metrics(ttft_s=2.0, prefill_s=0.5, load_s=1.2)
    assert waits(now) == (1.2, pytest.approx(0.3))
    assert waits(replace(now, ttft_s=0.6)) == (0.0, pytest.approx(0.1))
    assert waits(Metrics(prefill_s=0.5)) == (0.0, 0.0)


def test_drafts_that_all_failed_are_told() -> None:
    assert figures(replace(WHOLE, draft_accepted=0)).endswith("0 % accepted")


def test_a_reply_stopped_while_the_prompt_was_read_names_the_prompt() -> None:
    assert figures(Metrics(prompt_tokens=2000)) == "2000 prompt tok"


def test_nothing_measured_is_an_empty_line() -> None:
    assert figures(Metrics()) == ""
