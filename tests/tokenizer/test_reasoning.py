"""Thoughts and answers come apart however the reply is cut, for every format and every kind of mark."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import template_samples
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library

from macllm.tokenizer.base import Profile
from macllm.tokenizer.fast import FastTokenizer
from macllm.tokenizer.reasoning import Markers, Reasoning, Splitter, find_markers, reasoning_of

TAGS = Markers("<think>", "</think>")
HIDDEN = Markers("\ud800", "\ud801", {7: "\ud800", 8: "\ud801"})
GEMMA = Markers("\ud800thought", "\ud801", {7: "\ud800", 8: "\ud801"})
HARMONY = Markers("\ud801analysis\ud802", "\ud803", {n: chr(0xD800 + n) for n in range(4)},
                  ("\ud800", "\ud801", "\ud802", "\ud803"))  # fmt: skip
SPELLED_HARMONY = Markers("<|channel|>analysis<|message|>", "<|end|>", {},
                          ("<|start|>", "<|channel|>", "<|message|>", "<|end|>"))  # fmt: skip
FORMATS = {"tags": TAGS, "hidden": HIDDEN, "gemma": GEMMA, "harmony": HARMONY, "spelled": SPELLED_HARMONY}


def feed(splitter: Splitter, pieces: Sequence[str]) -> tuple[str, str]:
    """All of a reply: (text, thought)."""
    parts = [splitter.feed(piece) for piece in pieces]
    parts.append(splitter.finish())
    return "".join(text for text, _ in parts), "".join(thought for _, thought in parts)


def split(markers: Markers, reply: str, *, thinking: bool = False) -> tuple[str, str]:
    return feed(Reasoning(markers, thinking).splitter(), [reply])


def pieces_of(markers: Markers) -> list[str]:
    """What replies are made of: marks, beginnings of marks, names of channels, text."""
    marks = [markers.opening, markers.closing, *markers.channels]
    halves = [mark[: len(mark) // 2] for mark in marks if len(mark) > 1]
    return [*marks, *halves, "a", "é", " ", "\n", "<", "final", "analysis", "thought"]


@st.composite
def cut_replies(draw: st.DrawFn) -> tuple[Markers, bool, str, list[str]]:
    markers = draw(st.sampled_from(list(FORMATS.values())))
    reply = "".join(draw(st.lists(st.sampled_from(pieces_of(markers)), max_size=14)))
    cuts = sorted(draw(st.lists(st.integers(0, len(reply)), max_size=12)))
    edges = [0, *cuts, len(reply)]
    return markers, draw(st.booleans()), reply, [reply[a:b] for a, b in itertools.pairwise(edges)]


@given(cut_replies())
@settings(max_examples=600)
def test_any_cutting_gives_the_same(case: tuple[Markers, bool, str, list[str]]) -> None:
    markers, thinking, reply, pieces = case
    whole = split(markers, reply, thinking=thinking)
    assert feed(Reasoning(markers, thinking).splitter(), pieces) == whole
    assert feed(Reasoning(markers, thinking).splitter(), list(reply)) == whole


@given(cut_replies())
@settings(max_examples=300)
def test_special_tokens_never_reach_the_reader(case: tuple[Markers, bool, str, list[str]]) -> None:
    markers, thinking, _, pieces = case
    text, thought = feed(Reasoning(markers, thinking).splitter(), pieces)
    assert not any("\ud800" <= character <= "\udfff" for character in text + thought)


@given(cut_replies())
@settings(max_examples=300)
def test_only_what_may_begin_a_mark_waits(case: tuple[Markers, bool, str, list[str]]) -> None:
    markers, thinking, _, pieces = case
    splitter = Reasoning(markers, thinking).splitter()
    for piece in pieces:
        splitter.feed(piece)
        waiting = "".join(copy.deepcopy(splitter).finish()).lstrip()
        marks = markers.channels or ((markers.closing if splitter.thinking else markers.opening),)
        assert any(markers.shown(mark).startswith(waiting) for mark in marks)


@pytest.mark.parametrize(
    ("reply", "text", "thought"),
    [
        ("<think>\nhm\n</think>\n\nyes", "yes", "hm\n"),
        ("\n <think>hm</think>yes", "yes", "hm"),
        ("<think>\n\n</think>\n\nyes", "yes", ""),
        ("<think>\n\n  indented", "", "  indented"),  # cut while thinking
        ("plain </think> text", "plain </think> text", ""),
        ("\n\nplain", "\n\nplain", ""),
        ("A <think> is a mark", "A <think> is a mark", ""),  # an answer about marks
        ("<think>a</think>\n<think>b</think>c", "c", "ab"),
        ("<thin", "<thin", ""),
        ("<think>a</thin", "", "a</thin"),
        ("<think>a</think>\n\n\nb\n\nc\n", "b\n\nc\n", "a"),
        ("", "", ""),
    ],
)
def test_marks_in_text(reply: str, text: str, thought: str) -> None:
    assert split(TAGS, reply) == (text, thought)


def test_a_thought_that_the_prompt_opened() -> None:
    assert split(TAGS, "\nhm</think>\n\nyes", thinking=True) == ("yes", "hm")
    assert split(TAGS, "hm", thinking=True) == ("", "hm")
    assert split(TAGS, "<think> again</think>yes", thinking=True) == ("yes", "<think> again")


def test_special_tokens_open_a_thought_anywhere_and_their_spelling_does_not() -> None:
    assert split(HIDDEN, "so\ud800\nhm\ud801\nyes") == ("soyes", "hm")
    assert split(HIDDEN, "[THINK] spelled") == ("[THINK] spelled", "")
    assert split(GEMMA, "\ud800thought\nhm\n\ud801yes") == ("yes", "hm\n")
    assert split(GEMMA, "\ud800other\nyes") == ("other\nyes", "")


@pytest.mark.parametrize("markers", [HARMONY, SPELLED_HARMONY])
def test_channels(markers: Markers) -> None:
    start, channel, message, end = markers.channels
    thought = f"{channel}analysis{message}hm{end}{start}assistant"
    assert split(markers, f"{thought}{channel}final{message}yes") == ("yes", "hm")
    preamble = f"{start}assistant{channel}commentary{message}I look it up{end}{start}assistant"
    assert split(markers, f"{thought}{preamble}{channel}final{message}yes") == (
        "I look it up\n\nyes",
        "hm",
    )
    assert split(markers, f"{thought}{channel}analysis{message}hmm{end}") == ("", "hm\n\nhmm")
    assert split(markers, f"hm{end}{start}assistant{channel}final{message}yes", thinking=True) == (
        "yes",
        "hm",
    )
    assert split(markers, "no channel at all") == ("no channel at all", "")


def tokenizer_of(library: Library, template: str = "", **tokens: bool) -> FastTokenizer:
    """The tiny tokenizer with more tokens, each special or not, and a template."""
    library = Library.from_str(library.to_str())
    for text, special in tokens.items():
        library.add_tokens([AddedToken(text, normalized=False, special=special)])
    special = {token for token, added in library.get_added_tokens_decoder().items() if added.special}
    templates = {"default": template} if template else {}
    return FastTokenizer(library, Profile(special_ids=frozenset(special), templates=templates))


PAIRS = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>", "<channel|>"),
    ("<reasoning>", "</reasoning>"),
]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("pair", PAIRS)
def test_marks_are_found_in_the_vocabulary(
    byte_level_library: Library, pair: tuple[str, str], special: bool
) -> None:
    tokenizer = tokenizer_of(byte_level_library, **dict.fromkeys(pair, special))
    markers = find_markers(tokenizer)
    assert markers is not None
    opening, closing = (tokenizer.token_to_id(text) for text in pair)
    assert set(markers.tokens) == ({opening, closing} if special else set())
    name = "thought" if pair[0] == "<|channel>" else ""
    shown = [*pair] if not special else [markers.tokens[opening or 0], markers.tokens[closing or 0]]
    assert (markers.opening, markers.closing) == (shown[0] + name, shown[1])


@pytest.mark.parametrize("pair", PAIRS)
def test_marks_of_several_tokens_are_found_in_the_template(
    byte_level_library: Library, pair: tuple[str, str]
) -> None:
    tokenizer = tokenizer_of(byte_level_library, "{{ messages }}" + f"{pair[0]}thought {pair[1]}")
    markers = find_markers(tokenizer)
    assert markers is not None
    assert markers.closing == pair[1]
    assert not markers.tokens


def test_a_template_says_more_than_a_vocabulary(byte_level_library: Library) -> None:
    tokens = {"<think>": False, "</think>": False, "[THINK]": True, "[/THINK]": True}
    tokenizer = tokenizer_of(byte_level_library, "{{ '[THINK]' ~ '[/THINK]' }}", **tokens)
    markers = find_markers(tokenizer)
    assert markers is not None
    assert set(markers.tokens) == {tokenizer.token_to_id("[THINK]"), tokenizer.token_to_id("[/THINK]")}


def test_a_model_without_marks_has_none(byte_level_library: Library) -> None:
    for template in ("", template_samples.CHATML, template_samples.LLAMA3, template_samples.GEMMA):
        tokenizer = tokenizer_of(byte_level_library, template)
        assert find_markers(tokenizer) is None
        assert reasoning_of(tokenizer, [5, 6]) is None


def test_harmony_is_found(byte_level_library: Library) -> None:
    names = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")
    tokenizer = tokenizer_of(byte_level_library, **dict.fromkeys(names, True))
    markers = find_markers(tokenizer)
    assert markers is not None
    assert len(markers.tokens) == len(set(markers.channels)) == 4
    prompt = tokenizer.encode("<|start|>user<|message|>Hi<|end|><|start|>assistant")
    assert reasoning_of(tokenizer, prompt) == Reasoning(markers, open=False)
    prompt += tokenizer.encode("<|channel|>analysis<|message|>hm")
    assert reasoning_of(tokenizer, prompt) == Reasoning(markers, open=True)
    prompt += tokenizer.encode("<|end|><|start|>assistant<|channel|>final<|message|>yes")
    assert reasoning_of(tokenizer, prompt) == Reasoning(markers, open=False)


def opens(tokenizer: FastTokenizer, prompt: str) -> bool:
    found = reasoning_of(tokenizer, tokenizer.encode(prompt))
    assert found is not None
    return found.open


@pytest.mark.parametrize(
    "tokens", [{}, {"<think>": False, "</think>": False}, {"<think>": True, "</think>": True}]
)
def test_whether_the_prompt_opened_a_thought(byte_level_library: Library, tokens: dict[str, Any]) -> None:
    tokenizer = tokenizer_of(byte_level_library, "{# <think></think> #}", **tokens)
    turn = "<|im_start|>user\nwhat is <think>?<|im_end|>\n<|im_start|>assistant\n"
    assert not opens(tokenizer, turn)
    assert opens(tokenizer, turn + "<think>\n")
    assert opens(tokenizer, turn + "<think>\nOkay, so")  # a reply that is continued
    assert not opens(tokenizer, turn + "<think>\n\n</think>\n\n")
    assert not opens(tokenizer, turn + "<think>\nhm\n</think>\n\nYes, and")
    assert not opens(tokenizer, "User: what is <think> for?\nAssistant:")  # no turns to tell apart
    assert opens(tokenizer, "User: Hi\nAssistant: <think>\n")


@pytest.mark.parametrize("enable", [True, False])
def test_the_rendered_prompt_of_a_thinking_model(byte_level_library: Library, enable: bool) -> None:
    tokenizer = tokenizer_of(
        byte_level_library, template_samples.QWEN3, **{"<think>": False, "</think>": False}
    )
    assert not opens(tokenizer, tokenizer.render("Hi", enable_thinking=enable))
