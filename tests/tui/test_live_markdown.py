"""A reply that arrives in pieces shows the same as one that is there at once, and never less than what came."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.content import Content

from macllm_tui.widgets.blocks import rows_of
from macllm_tui.widgets.code import Code
from macllm_tui.widgets.fences import File, code_of, with_files
from macllm_tui.widgets.live import LIMIT, LiveMarkdown
from macllm_tui.widgets.live_rows import Drafted, LiveRows
from macllm_tui.widgets.markdown import blocks_of
from macllm_tui.widgets.rows import Layout, Row, breaks
from macllm_tui.widgets.visible import visible, with_newlines

DOCUMENTS = {
    "plain": (
        "One line\nand another,\nlazy.\n\n"
        "A second paragraph with **bold *both* words**, `code` and ~~struck~~."
    ),
    "fences": (
        "Before\n```python\nx = 1\n\n\nprint(x)\n```\nafter\n~~~~ sh extra\n```\nls ~~~\n~~~\n"
        "~~~~\nend\n```\n```\n"
    ),
    "open fence": "Text\n\n  ```py\n  a = 1\n      b = 2\n c\n\n",
    "open fence, tabs": "Text\n\n  ```py\n\td\n \te\n   \tf\n\t\tg\n",
    "open fence, no line": "Text\n\n```",
    "open fence, half a line": "```\nfirst\n  sec",
    "fence that is none": "``` a ` b\ntext\n\n    ```\n    indented\n\n``\nx\n``",
    "lists": (
        "- a\n- b\n  - c\n\n    more of c\n  - d\nlazy\n- e\n\n\n- f\n1. one\n2) two\n3) three\n* x\n+ y\n"
    ),
    "code in lists": (
        "1. First:\n   ```bash\n   ls\n     -la\n   ```\n2. Second\n\n       indented code\n"
        "\n   > quote\n3.\n4. x"
    ),
    "quotes": "> a\nlazy\n> - b\n> - c\n>\n> > d\n\n> e\n```\nx\n```\n> f\n    not code",
    "tables": (
        "Head\n\n| a | b |\n|:--|--:|\n| 1 | `x` |\n| 2<br>3 | **y** | z |\nend\n\na | b\n"
        "--- | -\n1 | 2\n\nno | table\n--- | x"
    ),
    "headings": "Title\n=====\nSub\n---\n# One #\n####### none\ntext\n## Two\n- a\n***\nb\n---\n",
    "references": (
        "See [one][1] and [two].\n\n[1]: http://one.example 'T'\n[two]:\n"
        "  http://two.example\n\nAgain [one][1]."
    ),
    "links": "[a](http://b.c/(d)) <http://e.f> www.g.h ![alt *x*](i.png) me@n.o [broken](http://",
    "html": "<div>\n**inside**\n\n<!-- note -->\n\n<b>x</b> &amp; &nope; <br> y",
    "indented": "    a\n\n    b\n\n\ntext\n    c\n\td\n",
    "crlf": "One\r\n\r\n- a\r\n- b\r\n\r\n```\r\nx\r\n\r\ny\r\n```\r\nlone\rreturn\r\n",
    "scripts": "日本語の**太字**です。\n\n- 项目👍🏽\n- é̂ \u200d👩\u200d💻\n\n```\n中文 code\n```\n\nعربي text",
    "escapes": "\\*not\\* \\`x\\` \x1b[31mred\x1b[0m \u202eturned\u202c \x00 \x9b2J a\u2028b\x85c\x0cd",
    "spaces": "\n\n  \n text  \nbroken line\\\nnext\n\n\n   \n- \n-\n\n  x\n",
    "mixed": (
        "# Steps\n1. Do:\n\n   - x\n   - y\n\n     ```\n     z\n     ```\n\n2. Then\n\n---\n\n"
        "> **Note**\n> `end`\n"
    ),
}
# What one knows only later: a definition that stands below its use makes a link of what is settled.
LATE = ("references",)


def shown(blocks: list[object]) -> list[str]:
    return [describe(row) for row in rows_of(blocks, 60)]  # type: ignore[arg-type]


def describe(row: Row) -> str:
    text = row.source.line(row.index) if row.source is not None else row.text
    return f"{row.first.markup}|{row.rest.markup}|{text.markup}|{row.fill}"


def streamed(text: str, cuts: list[int]) -> LiveMarkdown:
    live = LiveMarkdown()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        live.update(text[start:end])
    live.close()
    return live


@st.composite
def cut_documents(draw: st.DrawFn) -> tuple[str, list[int]]:
    names = draw(
        st.lists(st.sampled_from([name for name in DOCUMENTS if name not in LATE]), min_size=1, max_size=3)
    )
    text = draw(st.sampled_from(["\n\n", "\n", ""])).join(DOCUMENTS[name] for name in names)
    return text, sorted(draw(st.lists(st.integers(0, len(text)), max_size=30)))


@given(cut_documents())
@settings(max_examples=150)
def test_any_chunking_ends_as_the_one_shot_render(document: tuple[str, list[int]]) -> None:
    text, cuts = document
    assert shown(streamed(text, cuts).settled) == shown(blocks_of(visible(with_newlines(text))))


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in LATE])
def test_a_character_at_a_time_too(name: str) -> None:
    text = DOCUMENTS[name]
    live = streamed(text, list(range(1, len(text))))
    assert shown(live.settled) == shown(blocks_of(visible(with_newlines(text))))


@given(st.text(alphabet="ab *`#->|~[]()\n:1.\t\r_=", max_size=120), st.data())
@settings(max_examples=300)
def test_also_of_text_that_is_all_marks(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    settled = streamed(text, cuts).settled
    if "]:" not in text:
        assert shown(settled) == shown(blocks_of(visible(with_newlines(text))))


def letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text)


@given(cut_documents())
@settings(max_examples=60)
def test_at_each_moment_all_that_came_is_shown(document: tuple[str, list[int]]) -> None:
    text, cuts = document
    live, layout = LiveMarkdown(), Layout(60)
    rows = LiveRows(layout, live)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        live.update(text[start:end])
        rows.grow(Drafted())
        on_screen = "".join(row.first.plain + row.text.plain for row in layout.rows)
        came = re.sub(r"^ {0,3}(```|~~~).*", "", visible(text[:end]), flags=re.M).replace("nope", "")
        words = re.findall(r"[a-z]{4,}", came)
        # what the opening line of a fence says and half-written marks aside, each word that came stands there
        missing = [word for word in words if word not in on_screen]
        assert not missing or missing == words[-1:]


@given(cut_documents())
@settings(max_examples=60)
def test_the_growing_layout_is_the_layout_of_the_whole(document: tuple[str, list[int]]) -> None:
    text, cuts = document
    live, layout = LiveMarkdown(), Layout(50)
    rows = LiveRows(layout, live)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        live.update(text[start:end])
        rows.grow(Drafted())
    live.close()
    rows.grow(Drafted())
    whole = Layout(50)
    whole.extend(rows_of(blocks_of(visible(with_newlines(text))), 50))
    assert layout.pieces == whole.pieces
    assert layout.text() == whole.text()


def test_a_definition_that_comes_late_is_used_by_what_follows() -> None:
    text = "First [one][1].\n\n[1]: http://one.example\n\nThen\n\nlast [one][1]."
    live = streamed(text, list(range(1, len(text))))
    rows = [row.text.plain for row in rows_of(live.settled, 80)]
    assert rows[-1] == "last one (http://one.example)."


def test_a_paragraph_without_end_is_cut_between_words_and_loses_none() -> None:
    words = [f"w{number} **b{number}** `c{number}`" for number in range(400)]
    live = streamed(" ".join(words), list(range(30, len(" ".join(words)), 30)))
    assert len(live.settled) > 3
    plain = " ".join(row.text.plain for row in rows_of(live.settled, 80))
    assert plain == " ".join(f"w{number} b{number} c{number}" for number in range(400))


def test_what_cannot_be_cut_shows_its_newest_lines_as_they_came() -> None:
    live = LiveMarkdown()
    line = "> a quoted line\n"
    for number in range(400):
        live.update(line.replace("quoted", f"quoted{number}"))
        shown_now = " ".join(row.text.plain for row in rows_of([*live.settled, *live.live], 80))
        assert f"quoted{number}" in shown_now
    assert live.parsed < 100 * LIMIT


def test_the_line_that_closes_a_fence_does_not_flash() -> None:
    live = LiveMarkdown()
    live.update("```py\nx = 1\n``")
    assert live.fence is not None
    assert live.partial == ""
    live.update("`\n")
    assert live.fence is None
    assert live.settled == [Code("py", ["x = 1"])]


@given(st.text(max_size=200), st.integers(2, 40), st.booleans())
@settings(max_examples=200)
def test_pieces_of_a_line_fit_and_leave_out_only_spaces(text: str, width: int, fold: bool) -> None:
    line = visible(with_newlines(text)).replace("\n", " ").expandtabs(4)
    pieces = list(breaks(line, width, fold))
    assert "".join(line[start:end] for start, end in pieces).replace(" ", "") == line.replace(" ", "")
    assert all(Content(line[start:end].rstrip(" ")).cell_length <= width for start, end in pieces)
    assert pieces == sorted(pieces)


@given(st.text())
def test_no_character_steers_the_terminal(text: str) -> None:
    safe = visible(text + "\x1b]8;;x\x07 \x9b \u202e \ud800")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", safe)
    assert len(visible(text)) == len(text)


def test_links_show_where_they_lead_and_carry_no_controls() -> None:
    (paragraph,) = blocks_of("[the paper](http://x.example/a) and http://y.example")
    (row,) = paragraph.rows(80)
    assert row.text.plain == "the paper (http://x.example/a) and http://y.example"
    assert {span.style.link for span in row.text.spans if not isinstance(span.style, str)} == {
        "http://x.example/a",
        "http://y.example",
    }
    (unsafe,) = blocks_of("[x](javascript:alert(1))")
    assert all(isinstance(span.style, str) for span in unsafe.rows(80)[0].text.spans)


def test_a_table_without_room_becomes_a_list_of_its_cells() -> None:
    table = "| one | two | three |\n|---|---|---|\n" + "| some long words | more of them | and more |\n"
    (block,) = blocks_of(table)
    assert all(row.text.cell_length <= 60 for row in block.rows(60))
    assert [row.text.plain for row in block.rows(20)] == [
        "one: some long words",
        "two: more of them",
        "three: and more",
    ]


def test_the_code_of_a_message_is_what_its_fences_hold() -> None:
    text = "a\n```py\nx = 1\n\n```\n1. b\n   ```\n   y\n   ```\n> ~~~\n> z\n> ~~~\n"
    assert code_of(text) == ["x = 1\n\n", "y\n", "z\n"]
    assert code_of("none") == []


def test_attached_files_are_told_from_what_was_typed() -> None:
    text = "Look:\n```file:notes.txt\none\ntwo\n```\nand\n````file:b.md\n```\nx\n```\n````\n```py\nkept\n```"
    assert with_files(text) == [
        "Look:",
        File("notes.txt", "one\ntwo\n"),
        "and",
        File("b.md", "```\nx\n```\n"),
        "```py\nkept\n```",
    ]
    assert File("notes.txt", "x" * 3_100).title == "file notes.txt (3.1 kB)"
    assert with_files("") == [""]


def test_drafted_words_are_tinted_where_they_show() -> None:
    drafted = Drafted()
    drafted.add("Some **bold** text", [(5, 13)])
    (row,) = drafted.tint([row for block in blocks_of("Some **bold** text") for row in block.rows(80)])
    tinted = {n for span in row.text.spans if "on " in str(span.style) for n in range(span.start, span.end)}
    assert tinted == set(range(5, 9))


def test_code_has_colours_by_its_language_and_text_that_is_none_has_not() -> None:
    code = Code("python", ["def f():", '    """Two', '    lines."""'])
    assert code.line(0).spans and code.line(2).spans
    assert Code("", ["def f():"]).line(0).spans == []
    assert Code("no such language", ["def f():"]).line(0).plain == "def f():"
    opened = Code("python", ["def f():"], closed=False)
    assert opened.line(0).spans
