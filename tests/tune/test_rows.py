"""Training data is read strictly: each bad line is named with file, line and reason; good data is described."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm.errors import Cancelled, InputError
from macllm.tune.rows import LONGEST_LINE, Problem, check
from macllm.tune.schema import RowError, read_row

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
PAIR = {"prompt": "2+2", "completion": "4"}
TEXT = {"text": "Once upon a time"}
CHOICE = {"prompt": "2+2", "chosen": "4", "rejected": "5"}
ASKED = {"answer": "4", "prompt": "2+2"}
JUDGED = {"prompt": "2+2", "completion": "5", "label": False}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def reason(row: Any) -> str:
    with pytest.raises(RowError) as error:
        read_row(row if isinstance(row, str) else json.dumps(row))
    return str(error.value)


@pytest.mark.parametrize(
    ("row", "schema"),
    [
        (CHAT, "messages"),
        (PAIR, "completion"),
        (TEXT, "text"),
        (CHOICE, "preference"),
        (JUDGED, "labelled"),
        (ASKED, "prompt"),
    ],
)
def test_each_schema_is_known_counted_and_shown(row: dict[str, Any], schema: str, tmp_path: Path) -> None:
    report = check(write(tmp_path / "data.jsonl", row, row, row))
    assert (report.rows, report.supervised, dict(report.schemas)) == (3, 3, {schema: 3})
    assert report.good and report.schema == schema and not report.problems
    last = row["messages"][-1]["content"] if schema == "messages" else list(row.values())[-1]
    assert str(last).lower() in report.example.lower()


def test_the_figures_are_those_of_the_text(tmp_path: Path) -> None:
    report = check(write(tmp_path / "data.jsonl", {"text": "abc"}, {"text": "a" * 9}))
    assert (report.longest, report.longest_at, report.mean) == (9, "data.jsonl:2", 6.0)


def test_a_conversation_reads_as_one(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Bern"}'}}],
            },
            {"role": "tool", "content": "rain", "tool_call_id": "1"},
            {"role": "assistant", "content": "Rain.", "reasoning_content": "easy"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    }
    assert check(write(tmp_path / "data.jsonl", row)).example.splitlines() == [
        "tools: weather",
        "system: Be brief.",
        "user: Weather?",
        'assistant: weather({"city": "Bern"})',
        "tool: rain",
        "assistant: (easy) Rain.",
    ]


def test_prompts_and_answers_may_be_messages() -> None:
    row = {
        "prompt": CHAT["messages"][:1],
        "chosen": CHAT["messages"][1:],
        "rejected": [{"role": "assistant", "content": "No"}],
    }
    read = read_row(json.dumps(row))
    assert (read.schema, read.answer[0].text, read.rejected[0].text) == ("preference", "Hello", "No")
    whole = {
        "chosen": CHAT["messages"],
        "rejected": [CHAT["messages"][0], {"role": "assistant", "content": ""}],
    }
    assert "'rejected' has no assistant text" in reason(whole)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"text": "a"', "not valid JSON"),
        ("[1, 2]", "a JSON array, not an object"),
        ("3", "a number, not a JSON object"),
        ("null", "null, not a JSON object"),
        ("{}", "the object is empty"),
        ("[" * 100_000, "nested"),
        ({"text": "a", "messages": []}, "could be 'messages' or 'text'"),
        ({"conversations": []}, "name it with keys=conversations=messages"),
        ({"instruction": "a", "output": "b"}, "name them with keys=instruction=prompt,"),
        ({"prompt": ""}, "'prompt' is empty"),
        ({"prompt": "a", "chosen": "b"}, "add what was 'rejected'"),
        ({"a": 1}, "its keys are 'a'"),
        ({"text": ""}, "'text' is empty"),
        ({"text": 3}, "'text' is a number"),
        ({"prompt": "a", "completion": ""}, "'completion' is empty"),
        ({"prompt": 1, "completion": "a"}, "'prompt' is a number"),
        ({"messages": "a"}, "'messages' is a string, not a list"),
        ({"messages": []}, "'messages' is an empty list"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no assistant message"),
        ({"messages": [{"role": "human", "content": "a"}]}, "messages[0]: role 'human' is not known"),
        ({"messages": [{"content": "a"}]}, "messages[0]: role=None"),
        ({"messages": ["a"]}, "messages[0]: str is not a message"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same"),
        ({"chosen": "a", "rejected": "b"}, "'prompt' is missing"),
        ({**JUDGED, "label": 1}, "'label' is a number, not true"),
        ({**JUDGED, "label": None}, "'label' is null, not true"),
        ({**JUDGED, "completion": ""}, "'completion' is empty"),
        ({**CHAT, "tools": {}}, "'tools' is an object"),
        ({**CHAT, "tools": [{"type": "function"}]}, "tools[0]"),
        ({**CHAT, "images": ["a.png"]}, "'images' holds images"),
        ('{"text": "\\ud83d"}', "\\ud83d is half a character"),
        ({"prompt": [{"role": 1}], "completion": "a"}, "prompt[0]: role=1"),
    ],
)
def test_what_cannot_be_taught_is_refused_in_one_sentence(row: Any, words: str) -> None:
    told = reason(row)
    assert words in told and "\n" not in told


def test_an_image_is_refused_by_name_and_place() -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "a.png"}}]
    told = reason({"messages": [{"role": "user", "content": content}, *CHAT["messages"][1:]]})
    assert told.startswith("messages[0]: it holds an image ('image_url')")


def test_problems_come_with_file_and_line_and_all_are_counted(tmp_path: Path) -> None:
    report = check(write(tmp_path / "data.jsonl", TEXT, *["nope"] * 30, TEXT), keep=5)
    assert report.problem_count == 30 and len(report.problems) == 5 and report.supervised == 2
    assert str(report.problems[0]).startswith("data.jsonl:2: this is not valid JSON (")
    assert not report.good


def test_a_blank_line_is_skipped_and_told(tmp_path: Path) -> None:
    """It ends mlx-lm with a bare JSONDecodeError; here lines keep their numbers and rows are counted without it."""
    report = check(write(tmp_path / "data.jsonl", TEXT, "", "  \t", TEXT, "nope"))
    file = report.files[0]
    assert (file.rows, file.blank, file.first_blank) == (3, 2, 2)
    assert report.problems[0].line == 5


def test_mixed_schemas_are_named_across_files(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", TEXT, TEXT)
    write(tmp_path / "valid.jsonl", TEXT, CHAT)
    report = check(tmp_path)
    assert report.schema is None and dict(report.schemas) == {"text": 3, "messages": 1}
    (problem,) = report.problems
    assert (problem.file, problem.line) == ("valid.jsonl", 2) and "'messages'" in problem.reason


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"text": "good"}\n{"text": "caf\xe9"}\n{"text": "good"}\n')
    report = check(path)
    assert report.problems == (
        Problem("data.jsonl", 2, "byte 14 of the line is not UTF-8; save the file as UTF-8"),
    )
    assert report.supervised == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"text": "a"}'.encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PAR1\x00", "Parquet"),
        (b'[\n  {"text": "a"},\n  {"text": "b"}\n]\n', "one object a line"),
        (b'{\n  "text": "a"\n}\n', "one object a line"),
    ],
)
def test_a_file_that_is_no_jsonl_is_one_problem(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    (problem,) = check(path).problems
    assert words in problem.reason


def test_what_windows_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    assert check(path).good


def test_an_empty_file_and_an_endless_line_are_problems(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert "no row" in check(empty).problems[0].reason
    endless = tmp_path / "endless.jsonl"
    endless.write_bytes(b'{"text": "' + b"a" * (2 * LONGEST_LINE) + b'"}\n{"text": "b"}\n')
    report = check(endless)
    assert report.problems[0].line == 1 and "longer than 16 MB" in report.problems[0].reason
    assert report.supervised == 1


def test_a_folder_says_what_it_lacks_and_what_it_does_not_use(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no train.jsonl in this folder; name a .jsonl file"):
        check(tmp_path)
    write(tmp_path / "validation.jsonl", TEXT)
    with pytest.raises(InputError, match=r"it has validation.jsonl"):
        check(tmp_path)
    write(tmp_path / "train.jsonl", TEXT, TEXT)
    write(tmp_path / "test.jsonl", TEXT)
    report = check(tmp_path)
    assert [file.name for file in report.files] == ["train.jsonl", "test.jsonl"] and report.train_rows == 2
    assert any("validation.jsonl is not used" in note for note in report.notes)
    assert any("Without a valid.jsonl" in note for note in report.notes)
    with pytest.raises(InputError, match="no such file or folder"):
        check(tmp_path / "nowhere")


def test_progress_reaches_the_end_and_a_check_can_be_cancelled(tmp_path: Path) -> None:
    row = json.dumps({"text": "a" * 1000})
    path = write(tmp_path / "data.jsonl", *[row] * 3000)
    seen: list[tuple[int, int]] = []
    check(path, progress=lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    assert seen[0] == (0, size) and seen[-1] == (size, size) and len(seen) >= 3
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    calls = iter([False, True])
    with pytest.raises(Cancelled):
        check(path, cancelled=lambda: next(calls))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    row = json.dumps({"text": "a" * 20_000})
    path = write(tmp_path / "data.jsonl", *[row] * 1000)
    check(path)  # what is loaded once is loaded now
    tracemalloc.start()
    report = check(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.rows == 1000 and peak < path.stat().st_size / 10


@given(st.binary(max_size=200))
def test_any_line_is_a_row_or_a_reason(content: bytes) -> None:
    text = content.decode("utf-8", errors="replace").strip()
    try:
        read_row(text)
    except RowError as error:
        assert "\n" not in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "name", "tool_calls"]), inner)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["messages", "prompt", "completion", "text", "chosen", "rejected", "tools"]), JSON
    )
)
def test_any_object_is_a_row_or_a_reason(row: dict[str, Any]) -> None:
    try:
        read = read_row(json.dumps(row))
    except RowError:
        return
    assert read.characters >= 0 and isinstance(read.render(), str)


def test_it_needs_neither_mlx_nor_numpy(run_python: Any) -> None:
    code = (
        "import sys, macllm.tune.rows, macllm.tune.settings, macllm.tune.memory, macllm.adapters.kept;"
        "print([name for name in ('mlx', 'numpy', 'huggingface_hub') if name in sys.modules])"
    )
    assert run_python(code).strip() == "[]"
