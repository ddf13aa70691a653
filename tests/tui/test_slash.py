"""What begins with a slash: commands, text, mistakes named; settings as people write them."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm.engine import settings_text
from macllm.engine.request import Limits, Sampling
from macllm.engine.settings_text import SETTINGS, text_of, value_from
from macllm.errors import InputError, OptionError
from macllm_tui import slash
from macllm_tui.actions import ACTIONS, slash_commands


@pytest.mark.parametrize("name", slash_commands())
def test_every_command_of_the_table_is_known_and_offered(name: str) -> None:
    found = slash.parse(f"/{name}")
    assert found is not None and found.action is slash_commands()[name]
    assert slash.parse(f"/{name.upper()}  ") == found
    assert f"/{name}" in [each.text.strip() for each in slash.completions("/")]
    assert slash.completions(f"/{name}")[0].text.strip() == f"/{name}"


def test_what_follows_is_the_argument() -> None:
    assert slash.parse("/set temp=0.7 ") == slash.Slash("set", "temp=0.7")
    assert slash.parse("/system You are\nbrief.") == slash.Slash("system", "You are\nbrief.")


@pytest.mark.parametrize(
    "text",
    [
        "/usr/bin/x does what?",
        "// a comment",
        "/",
        "/ help",
        " /help",
        "\n/help",
        "/help! please",
        "/v1/chat is what?",
        "a /help",
        "",
        "/etc/hosts",
        "/*",
        "/ü",
    ],
)
def test_everything_else_is_text(text: str) -> None:
    assert slash.parse(text) is None


def test_a_mistyped_command_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no command /hlep \(did you mean /help\?.*space"):
        slash.parse("/hlep")
    with pytest.raises(InputError, match=r"no command /qqqq \(/help shows them"):
        slash.parse("/qqqq what")


def test_a_command_without_argument_does_not_swallow_a_sentence() -> None:
    for action in ACTIONS:
        if action.slash and " " not in action.slash:
            with pytest.raises(InputError, match="stands alone"):
                slash.parse(f"{action.slash} that does something else")


def test_a_setting_is_completed_by_both_its_names() -> None:
    assert [each.text for each in slash.completions("/set te")] == ["/set temp="]
    assert [each.text for each in slash.completions("/set temperat")] == ["/set temp="]
    assert [each.text for each in slash.completions("/set top_")] == ["/set top-k=", "/set top-p="]
    assert slash.completions("/set temp=0") == []
    assert slash.completions("/help\n") == slash.completions("help") == []


def test_paths_belong_to_the_commands_that_take_a_file() -> None:
    assert slash.path_of("/attach ~/no") == "~/no"
    assert slash.path_of("/import my chats.js") == "my chats.js"
    assert slash.path_of("/system x") is slash.path_of("/attach") is slash.path_of("attach x") is None


def test_values_are_offered_by_their_beginning() -> None:
    found = slash.offered("/theme P", "theme", ("paper", "ember", "pine"))
    assert [each.text for each in found] == ["/theme paper", "/theme pine"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("temp=0.7", ("temperature", 0.7)),
        ("temperature = 0.7", ("temperature", 0.7)),
        ("temp 0.7", ("temperature", 0.7)),
        ("--top-p=0.9", ("top_p", 0.9)),
        ("top_p=1", ("top_p", 1.0)),
        ("TOP-K=40", ("top_k", 40)),
        ("seed=none", ("seed", None)),
        ("seed=18446744073709551615", ("seed", 2**64 - 1)),
        ("max-tokens=None", ("max_tokens", None)),
        ("stop=END", ("stop", ("END",))),
        (r"stop=\n\n|a\|b", ("stop", ("\n\n", "a|b"))),
        ("stop=none", ("stop", ())),
    ],
)
def test_a_setting_is_read_as_people_write_it(text: str, expected: tuple[str, Any]) -> None:
    assert settings_text.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("temp=warm", "temp=warm: 'warm' is not a number"),
        ("top-k=1.5", "top-k=1.5: '1.5' is not a whole number"),
        ("seed=x", "whole number or none"),
        ("temp=none", "'none' is not a number"),
        ("temp=-1", "temperature=-1.0 is out of range"),
        ("temp=nan", "out of range"),
        ("top_p=0", "top_p=0.0 is out of range"),
        ("max-tokens=-1", "max_tokens=-1 is out of range"),
        ("tmep=1", "no setting 'tmep' (did you mean temp?)"),
        ("zzzz=1", "there are temp, top-k"),
        ("", "write NAME=VALUE"),
        ("temp", "write NAME=VALUE"),
        ("logit_bias=1", "no setting 'logit_bias'"),
    ],
)
def test_a_bad_setting_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        settings_text.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_setting_is_a_field_with_help() -> None:
    assert len({setting.field for setting in SETTINGS}) == len(SETTINGS)
    for setting in SETTINGS:
        assert hasattr(setting.of(), setting.field)
        assert settings_text.find(setting.name) is settings_text.find(setting.field) is setting
        assert setting.help and not setting.help.endswith(".")
    numbers = {
        name for name, value in vars(Sampling()).items() if value is None or isinstance(value, int | float)
    }
    assert numbers <= {setting.field for setting in SETTINGS}  # a new number is not forgotten


_TEXTS = st.lists(st.text(min_size=1, max_size=6), max_size=3).map(tuple)


@given(_TEXTS)
def test_stop_texts_come_back_as_they_were_written(stop: tuple[str, ...]) -> None:
    setting = settings_text.BY_FIELD["stop"]
    assert value_from(setting, text_of(setting, stop)) == stop == Limits(stop=stop).stop


@given(st.floats(0, 100), st.none() | st.integers(0, 2**64 - 1))
def test_numbers_come_back_as_they_were_written(temperature: float, seed: int | None) -> None:
    for name, value in (("temperature", temperature), ("seed", seed)):
        setting = settings_text.BY_FIELD[name]
        back = value_from(setting, text_of(setting, value))
        assert back == value and math.copysign(1, back or 0) == math.copysign(1, value or 0)
