"""A text ends before its stop string however it is cut, and nothing is shown that has to be taken back."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_sampling import stopped

from macllm.engine.stop import StopStrings

letters = st.text("abé\n", max_size=30)
stop_lists = st.lists(st.text("abé\n", min_size=1, max_size=5), max_size=3)


def run(stops, pieces):
    filter_ = StopStrings(stops)
    shown = [filter_.feed(piece) for piece in pieces]
    return filter_, shown, filter_.flush()


@given(stops=stop_lists, text=letters, cuts=st.lists(st.integers(0, 30)))
@settings(max_examples=500, deadline=None)
def test_any_cutting_of_any_text_gives_what_searching_the_whole_text_gives(stops, text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    filter_, shown, rest = run(stops, pieces)
    assert ("".join(shown) + rest, filter_.found) == stopped(text, stops)


@given(stops=stop_lists, text=letters)
@settings(max_examples=200, deadline=None)
def test_only_what_may_begin_a_stop_string_is_held_back(stops, text):
    filter_ = StopStrings(stops)
    shown = ""
    for end in range(1, len(text) + 1):
        shown += filter_.feed(text[end - 1])
        if filter_.found is not None:
            return
        held = text[:end].removeprefix(shown)
        begins = [n for stop in stops for n in range(len(stop)) if text[:end].endswith(stop[:n])]
        assert len(held) == max(begins, default=0)


def test_one_stop_string_is_what_find_says():
    text = "one two </tool> three </tool>"
    filter_, shown, rest = run(["</tool>"], list(text))
    assert "".join(shown) + rest == text[: text.find("</tool>")]
    assert filter_.found == "</tool>"


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["bc", "abc"], "xabc", ("x", "abc")),  # completed by one character: the longest
        (["abc", "bc"], "xabc", ("x", "abc")),
        (["abcX", "bc"], "abcX", ("a", "bc")),  # completed first, though the other began before it
        (["aab"], "aaab", ("a", "aab")),  # a false start of the stop string inside itself
        (["\n\nUser:"], "Hi\n\nUse", ("Hi\n\nUse", None)),
        ([], "text", ("text", None)),
        (["é🙂"], "aé🙂b", ("a", "é🙂")),
    ],
)
def test_by_hand(stops, text, expected):
    for pieces in ([text], list(text)):
        filter_, shown, rest = run(stops, pieces)
        assert ("".join(shown) + rest, filter_.found) == expected


def test_nothing_comes_after_the_end():
    filter_ = StopStrings(["."])
    assert filter_.feed("a. b") == "a"
    assert (filter_.feed("more."), filter_.flush(), filter_.found) == ("", "", ".")


def test_the_work_is_linear_in_the_text_however_long_the_stop_string():
    steps = 0

    class Counted(str):
        def __getitem__(self, index):
            nonlocal steps
            steps += 1
            return str.__getitem__(self, index)

    filter_ = StopStrings([Counted("a" * 500 + "b")])
    steps = 0
    for _ in range(5000):
        filter_.feed("a")
    assert steps < 6 * 5000  # a search of what is held back would compare 500 characters each time
