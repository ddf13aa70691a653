"""Text files for a prompt: what is taken, how it is fenced, and what is refused."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm.errors import InputError
from macllm_tui.attachments import LIMIT, attach, fenced, path_from


def test_a_file_is_a_block_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("one\ntwo\n")
    assert attach(path) == "```file:notes.txt\none\ntwo\n```"
    path.write_text("no line end")
    assert attach(path) == "```file:notes.txt\nno line end\n```"
    path.write_text("")
    assert attach(path) == "```file:notes.txt\n```"


@given(st.text(alphabet="`~ab\n", max_size=40))
def test_no_line_inside_ends_the_block(text: str) -> None:
    block = fenced("a.md", text)
    first, *inside, last = block.split("\n")
    fence = first.removesuffix("file:a.md")
    assert last == fence and set(fence) == {"`"}
    assert not any(re.match(rf" {{0,3}}{fence}", line) for line in inside)
    assert "\n".join(inside) + "\n" * bool(inside) == (
        text if text.endswith("\n") or not text else text + "\n"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_a_mark_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße, 世界\r\nzwei\r\n".encode(encoding))
    assert attach(path) == "```file:a.txt\nGrüße, 世界\nzwei\n```"


def test_colours_of_a_log_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("\x1b[1;31merror\x1b[0m: it\n")
    assert attach(path) == "```file:a.log\nerror: it\n```"


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF\x02\x01\x00\x00",
        b"\x89PNG\r\n\x1a\n",
        "Grüße".encode("latin-1"),
        "no mark".encode("utf-16-le"),
        b"text\x01\x02",
        b"x" * 9000 + b"\x00",
    ],
)
def test_what_is_not_text_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.bin is not text"):
        attach(path)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*nothing"):
        attach(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a folder"):
        attach(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a file"):
        attach(tmp_path / "pipe")  # opening it would wait for ever
    with pytest.raises(InputError, match=r"cannot be read|no file"):
        attach(tmp_path / ("x" * 300))


def test_the_limit_is_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x" * LIMIT)
    assert len(attach(path)) > LIMIT
    path.write_text("x" * (LIMIT + 1))
    with pytest.raises(InputError, match=r"has 1\.0 MB, more than the 1\.0 MB that fit"):
        attach(path)


def test_a_path_may_be_as_a_terminal_drops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_from("~/a b.txt") == tmp_path / "a b.txt"
    assert path_from(r"/tmp/a\ b.txt ") == Path("/tmp/a b.txt")
    assert path_from("'/tmp/a b.txt'") == Path("/tmp/a b.txt")
    assert path_from("/tmp/it's") == Path("/tmp/it's")
    odd = tmp_path / "a\\ b"
    odd.write_text("")
    assert path_from(str(odd)) == odd  # there is such a file
