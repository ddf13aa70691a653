"""Requests and events as JSON: all of them come back as they were, and what is none is refused by name."""

import json
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from macllm.engine import events, protocol, training_events
from macllm.engine.events import Done, Token
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Count, Generate, ModelRef, Train
from macllm.engine.request import Limits, Sampling
from macllm.engine.wire import from_json, to_json
from macllm.errors import InputError
from macllm.tokenizer.messages import Message, TextPart, ToolCall

KINDS = [
    kind
    for union in (events.Event, training_events.TrainingEvent, protocol.Request)
    for kind in get_args(union)
]
TEXT = st.text(max_size=8)  # any but lone surrogates, which have their own test
# infinities too: a forbidden token's bias; -0.0 is 0.0, which may be left out
NUMBERS = st.floats(allow_nan=False).map(lambda number: number + 0.0)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(TEXT, values, max_size=3)


PLAIN = st.none() | st.booleans() | st.integers() | NUMBERS | TEXT
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=2) | objects(inner), max_leaves=4)

SAMPLING = st.builds(
    Sampling,
    temperature=st.floats(0, 100),
    top_k=st.integers(0, 2**31),
    top_p=st.floats(0.01, 1),
    logit_bias=st.dictionaries(st.integers(0, 10**6), st.floats(-100, 100) | st.just(float("-inf"))),
    dry_breakers=st.lists(st.text(min_size=1, max_size=4), max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 2**64 - 1),
)
LIMITS = st.builds(
    Limits,
    max_tokens=st.none() | st.integers(0, 2**31),
    stop=st.lists(st.text(min_size=1, max_size=4), max_size=2).map(tuple),
    logprobs=st.integers(-1, 20),
    ignore_eos=st.booleans(),
)
MODEL = st.builds(ModelRef, sampling=objects(st.integers() | NUMBERS))
MESSAGE = st.builds(
    Message,
    parts=st.lists(st.builds(TextPart, text=TEXT), max_size=2).map(tuple),
    tool_calls=st.lists(st.builds(ToolCall, name=TEXT, arguments=objects(JSON)), max_size=2).map(tuple),
)
METRICS = st.builds(Metrics, kv_by_kind=objects(st.integers()))
st.register_type_strategy(float, NUMBERS)
st.register_type_strategy(Metrics, METRICS)
STEP = st.builds(training_events.TrainStep, figures=objects(NUMBERS))
st.register_type_strategy(training_events.TrainStep, STEP)
st.register_type_strategy(Sampling, SAMPLING)
st.register_type_strategy(Limits, LIMITS)
st.register_type_strategy(ModelRef, MODEL)
st.register_type_strategy(Message, MESSAGE)
SPECIAL: dict[type, st.SearchStrategy[Any]] = {
    Generate: st.builds(Generate, messages=st.tuples(MESSAGE), settings=objects(JSON)),
    Count: st.builds(Count, messages=st.tuples(MESSAGE, MESSAGE)),
    Train: st.builds(Train, settings=objects(st.booleans() | st.integers() | NUMBERS | TEXT)),
}


def through(value: object) -> Any:
    return from_json(json.loads(json.dumps(to_json(value))))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_everything_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    value = data.draw(SPECIAL.get(kind, st.from_type(kind)))
    again = through(value)
    assert again == value
    assert type(again) is kind
    assert repr(again) == repr(value)  # numbers keep their types


def test_what_is_as_always_is_left_out() -> None:
    assert to_json(Token(5, "x")) == {"type": "Token", "id": 5, "text": "x"}
    assert to_json(Done("stop", "", Metrics())) == {
        "type": "Done",
        "reason": "stop",
        "text": "",
        "metrics": {},
    }


def test_a_lone_surrogate_and_a_line_break_stay_in_their_line() -> None:
    token = Token(1, "\ud83d\n\u2028é")
    assert "\n" not in json.dumps(to_json(token))
    assert through(token) == token


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (5, "int"),
        (None, "NoneType"),
        ({}, "None"),
        ({"type": "Tokn"}, "'Tokn'"),
        ({"type": ["Token"]}, r"\['Token'\]"),
        ({"type": "Token", "id": 5}, "Token: .*text"),
        ({"type": "Token", "id": "five", "text": ""}, "Token.id: 'five' is not of type int"),
        ({"type": "Token", "id": True, "text": ""}, "Token.id: True"),
        ({"type": "Token", "id": 5, "text": None}, "Token.text: None"),
        ({"type": "Token", "id": 5, "text": "", "colour": 1}, "no field 'colour'"),
        ({"type": "Token", "id": 5, "text": "", "top": {}}, "Token.top: {} is not a list"),
        ({"type": "Token", "id": 5, "text": "", "top": [[]]}, r"Token.top\[0\]: \[\] is not an object"),
        ({"type": "Token", "id": 5, "text": "", "logprob": "x"}, "Token.logprob: 'x'"),
        (
            {"type": "Done", "reason": "tired", "text": "", "metrics": {}},
            "Done.reason: 'tired' .* stop, length",
        ),
        ({"type": "Load", "model": "llama"}, "Load.model: 'llama' is not an object"),
        ({"type": "Generate", "model": {"name": "m", "path": "p"}, "messages": [{"role": 5}]}, "role: 5"),
        (
            {
                "type": "Generate",
                "model": {"name": "m", "path": "p"},
                "messages": [],
                "sampling": {"temperature": -1},
            },
            "temperature=-1",
        ),
    ],
)
def test_what_is_no_request_or_event_is_refused_by_name(raw: object, named: str) -> None:
    with pytest.raises(InputError, match=named):
        from_json(raw)
