"""Rows under other names: what a tool wrote with its own keys is read as it would be with ours, or refused by place."""

import json
from pathlib import Path
from typing import Any

import pytest
from templated import templated

from macllm.errors import OptionError
from macllm.tune.dataset import prepare
from macllm.tune.examples import ExampleSettings
from macllm.tune.keys import parse
from macllm.tune.rows import check
from macllm.tune.schema import Row, RowError, read_row


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACLLM_CACHE", str(tmp_path / "cache"))


def read(keys: str, row: Any) -> Row:
    return read_row(json.dumps(row), parse(keys))


@pytest.mark.parametrize(
    ("keys", "row", "same"),
    [
        (
            "question=prompt,answer=completion",
            {"question": "2+2", "answer": "4"},
            {"prompt": "2+2", "completion": "4"},
        ),
        (
            " q = prompt , good=chosen, bad=rejected",
            {"q": "2+2", "good": "4", "bad": "5", "id": 7},
            {"prompt": "2+2", "chosen": "4", "rejected": "5"},
        ),
        ("prompt=completion,completion=prompt", {"prompt": "4", "completion": "2+2"}, None),
        (
            "instruction+input=prompt,output=completion",
            {"instruction": "Add.", "input": "2 2", "output": "4"},
            {"prompt": "Add.\n\n2 2", "completion": "4"},
        ),
        (
            "instruction+input=prompt,output=completion",
            {"instruction": "Sing.", "input": "", "output": "La"},
            {"prompt": "Sing.", "completion": "La"},
        ),
        (
            "messages=",
            {"prompt": "a", "chosen": "b", "rejected": "c", "messages": []},
            {"prompt": "a", "chosen": "b", "rejected": "c"},
        ),
        ("good=label", {"prompt": "a", "completion": "b", "good": True}, None),
    ],
)
def test_a_row_reads_as_it_would_under_our_keys(keys: str, row: Any, same: Any) -> None:
    found = read(keys, row)
    if same is not None:
        assert found == read("", same)
    assert found.answer and found.messages


def test_two_keys_change_places() -> None:
    found = read("prompt=completion,completion=prompt", {"prompt": "4", "completion": "2+2"})
    assert (found.messages[0].text, found.answer[0].text) == ("2+2", "4")


@pytest.mark.parametrize(
    ("keys", "row", "words"),
    [
        ("question=prompt", {"q": "a"}, "there is no key 'question' to take as 'prompt' (its keys: 'q')"),
        ("q=prompt", {"q": "a", "prompt": "b", "completion": "c"}, "it has 'prompt' beside 'q'"),
        ("a+b=prompt", {"a": "x", "b": 3, "completion": "c"}, "'b' is no text and cannot be joined"),
        ("a=promt", {"a": "x", "completion": "c"}, "add its 'prompt'"),
    ],
)
def test_what_does_not_fit_a_row_is_refused(keys: str, row: Any, words: str) -> None:
    with pytest.raises(RowError) as error:
        read(keys, row)
    assert words in str(error.value)


@pytest.mark.parametrize("keys", ["question", "=prompt", "a+=prompt", "a=b=c", "a=prompt,b=prompt"])
def test_what_names_no_keys_is_refused(keys: str) -> None:
    with pytest.raises(OptionError, match="is not possible"):
        ExampleSettings(64, "turns", "2026-01-31", keys)


SHARED = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Hi"},
    {"from": "gpt", "value": "Hello"},
]


def test_sharegpt_is_read_where_it_says_who_says_what_and_no_more() -> None:
    found = read("conversations=messages", {"conversations": SHARED})
    told = [(message.role, message.text) for message in found.messages]
    assert told == [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")]
    for changed, words in (
        ({"from": "observation", "value": "3"}, "messages[2]: from='observation' is none of system, human"),
        ({"from": "gpt", "value": "a", "weight": 0}, "messages[2]: 'weight' beside 'from' and 'value'"),
        ({"from": ["gpt"], "value": "a"}, "messages[2]: from=['gpt'] is none of"),
        ({"from": "gpt"}, "messages[2]: 'value' is null, not a string"),
    ):
        with pytest.raises(RowError) as error:
            read("conversations=messages", {"conversations": [*SHARED[:2], changed]})
        assert words in str(error.value)


def test_a_file_is_checked_and_learned_from_under_its_keys(tmp_path: Path) -> None:
    rows = [{"question": f"{n}+1", "answer": f"{n + 1}"} for n in range(6)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = "question=prompt,answer=completion"
    assert check(path, keys=keys).good and not check(path).good
    settings = ExampleSettings(64, "turns", "2026-01-31", keys)
    data = prepare(path, templated("chatml"), settings)
    assert data.schema == "completion" and len(data.train) == 5
    # other keys are another content, also where both were kept
    swapped = ExampleSettings(64, "turns", "2026-01-31", "question=completion,answer=prompt")
    other = prepare(path, templated("chatml"), swapped)
    assert other.key != data.key
    with path.open("a") as file:
        file.write('{"question": "1"}\n')
    problems = prepare(path, templated("chatml"), settings).problems
    assert [str(one) for one in problems] == [
        "a.jsonl:7: there is no key 'answer' to take as 'completion' (its keys: 'question')"
    ]
