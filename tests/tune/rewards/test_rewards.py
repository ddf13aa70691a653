"""What completions are worth: each rule on what it should take and on what only looks like it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from macllm.errors import InputError, OptionError
from macllm.tune.rewards.exact import ExactMatch
from macllm.tune.rewards.json_schema import JsonSchema
from macllm.tune.rewards.numeric import Numeric, last_number
from macllm.tune.rewards.pattern import Pattern
from macllm.tune.rewards.reward import Reward
from macllm.tune.rewards.weighted import BUILT_IN, Judged, rewards_of

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.mark.parametrize(
    ("reward", "row", "completion", "expected"),
    [
        (ExactMatch(), {"answer": "blue"}, " blue\n", 1),
        (ExactMatch(), {"answer": "blue"}, "It is blue", 0),
        (ExactMatch(), {"answer": ["blue", "azure"]}, "azure", 1),
        (ExactMatch(), {"answer": 4}, "4", 1),
        (ExactMatch(), {"answer": "blue"}, "<think>red? no</think>\n\nblue", 1),
        (Numeric(), {"answer": 72}, "48 and 24 make 72.", 1),
        (Numeric(), {"answer": "so it is #### 1,234.5"}, "**1234.50**", 1),
        (Numeric(), {"answer": 72}, "72 is what I thought first, but it is 71", 0),
        (Numeric(), {"answer": 72}, "none", 0),
        (Numeric(), {"answer": -3}, "x = \u22123", 1),
        (Numeric(), {"answer": 3.14159265}, "3.141593", 1),
        (Numeric(), {"answer": 3.14159265}, "3.14", 0),
        (Numeric(), {"answer": 3.14159265, "tolerance": 0.01}, "3.14", 1),
        (Numeric(), {"answer": 5}, "<think>it is 5</think>It is 6", 0),
        (Pattern(), {"pattern": r"^<a>.*</a>$"}, "<a>\n1</a>", 1),
        (Pattern(), {"pattern": r"^<a>.*</a>$"}, "a <a>1</a>", 0),
        (Pattern(), {"pattern": r"\{(?P<answer>\w+)\}", "answer": "7"}, "{6} or {7}", 1),
        (Pattern(), {"pattern": r"\{(?P<answer>\w+)\}", "answer": "7"}, "{7} or {6}", 0),
        (Pattern(), {"pattern": r"\{(?P<answer>\w+)\}", "answer": "7"}, "7", 0),
        (JsonSchema(), {"schema": SCHEMA}, '{"age": 3}', 1),
        (JsonSchema(), {"schema": SCHEMA}, '```json\n{"age": 3}\n```', 1),
        (JsonSchema(), {"schema": SCHEMA}, '{"age": "3"}', 0),
        (JsonSchema(), {"schema": SCHEMA}, "age: 3", 0),
        (JsonSchema(), {"schema": {"$ref": "https://example.com/never-fetched"}}, "{}", 0),
    ],
)
def test_a_rule_gives_one_for_what_it_asks_for(
    reward: Reward, row: dict[str, Any], completion: str, expected: float
) -> None:
    assert reward.missing(row) is None
    assert reward("", completion, row) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234,567", 1234567),
        ("1,2", 2),
        ("2e-3", 0.002),
        ("+.5", 0.5),
        ("5.", 5),
        ("$12.50!", 12.5),
        ("50%", 50),
        ("v2", None),
        ("", None),
        ("1e999", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("exact_match", {}, "'answer' is no text"),
        ("numeric", {"answer": "none"}, "'answer' holds no number"),
        ("numeric", {"answer": 1, "tolerance": -1}, "'tolerance' is -1"),
        ("regex", {"answer": "a"}, "'pattern' is no text"),
        ("regex", {"pattern": "("}, "'pattern' is no regular expression"),
        ("regex", {"pattern": "(?P<answer>a)"}, "'answer' is no text or number"),
        ("json_schema", {"schema": {"type": "number of things"}}, "'schema' is no JSON schema"),
        ("json_schema", {}, "'schema' is no object"),
        ("code", {"tests": []}, "'tests' is no text of Python"),
        ("code", {"tests": "assert ("}, "'tests' is no Python"),
    ],
)
def test_a_row_that_cannot_be_judged_is_told_why(name: str, row: dict[str, Any], reason: str) -> None:
    assert reason in str(BUILT_IN[name]().missing(row))
    assert reason in str(rewards_of(f"{name}*0.5").missing(row))


def test_a_pattern_without_end_is_worth_nothing_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("macllm.tune.rewards.pattern._SECONDS", 0.1)
    row = {"pattern": r"(a+)+(?<answer>b)c", "answer": "b"}
    assert Pattern()("", "a" * 40 + "!", row) == 0
    assert Pattern()("", "a" * 40 + "!", {"pattern": r"^(a|aa)+(?<!a)$"}) == 0


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "def short(prompt, completion, row):\n    return row['scale'] / (len(prompt) + len(completion))\n"
        "def broken(prompt, completion, row):\n    return row['missing']\n"
        "def nothing(prompt, completion, row):\n    return None\n"
        "def narrow(completion):\n    return 1\n"
    )
    judged = [Judged("ab", "cd", {"scale": 2})]
    rewards = rewards_of(f"{path}:short * 3, numeric")
    each = rewards.each(judged)
    assert each == {f"{path}:short": [0.5], "numeric": [0.0]}
    assert rewards.total(each) == [1.5]
    with pytest.raises(InputError, match=r"mine.py:broken: it raised KeyError: 'missing'"):
        rewards_of(f"{path}:broken").each(judged)
    with pytest.raises(InputError, match=r"it gave None for the completion 'cd'; give a number"):
        rewards_of(f"{path}:nothing").each(judged)
    with pytest.raises(OptionError, match="called with prompt, completion and row"):
        rewards_of(f"{path}:narrow")
    with pytest.raises(OptionError, match="has no function absent"):
        rewards_of(f"{path}:absent")


def test_weights_add_up_by_name() -> None:
    rewards = rewards_of("numeric, exact_match*-0.25")
    rows = [Judged("", text, {"answer": "7"}) for text in ("7", "it is 7", "8")]
    each = rewards.each(rows)
    assert each == {"numeric": [1, 1, 0], "exact_match": [1, 0, 0]}
    assert rewards.total(each) == [0.75, 1, 0]
    assert rewards.names == ("numeric", "exact_match")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "reward is not set"),
        ("length", "reward='length' is not known"),
        ("numeric*much", "'much' is no weight"),
        ("numeric, numeric*2", "names numeric twice"),
        ("nowhere.py:f", "there is no file nowhere.py"),
    ],
)
def test_what_is_no_reward_is_refused(text: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        rewards_of(text)


def test_a_reward_whose_package_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(OptionError, match=r"pip install 'macllm\[rewards\]'"):
        rewards_of("json_schema")
