"""Chats as files: Markdown as it reads, JSONL that comes back as it went, wrong rows named by file and line."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from macllm.chats import files
from macllm.chats.store import Store
from macllm.engine.metrics import Metrics
from macllm.errors import InputError, MacllmError


@pytest.fixture
def store():
    opened = Store.in_memory()
    yield opened
    opened.close()


@pytest.fixture
def chat(store):
    """A chat with a thought, figures, a branch that is not shown, and a reply that failed."""
    made = store.create(model="Qwen3-8B", system="Be brief.\nBe kind.", title="Latent attention")
    asked = store.add(made.id, "user", "What is MLA?", parent=None)
    store.add(made.id, "assistant", "not shown", parent=asked.id)
    figures = Metrics(decode_tps=71.3, decode_tokens=412, ttft_s=0.41)
    reply = store.add(
        made.id,
        "assistant",
        "It caches a *latent*.\n\n```python\nq = 1\n```\n",
        parent=asked.id,
        thought="The user asks </details> MLA.",
        thought_s=4.2,
        model="Qwen3-8B",
        metrics=figures,
    )
    again = store.add(made.id, "user", "Why?\u2028Really", parent=reply.id)
    store.add(made.id, "assistant", "", parent=again.id, state="failed", error="memory ran out")
    return made.id


def test_markdown_reads_as_the_chat_does(store, chat):
    created = store.chat(chat).created[:10]
    assert (
        files.to_markdown(store, chat)
        == f"""# Latent attention

*Qwen3-8B · {created}*

## System

Be brief.
Be kind.

## You

What is MLA?

## Assistant

<details>
<summary>Thought for 4.2 s</summary>

The user asks &lt;/details&gt; MLA.

</details>

It caches a *latent*.

```python
q = 1
```

*Qwen3-8B · 71.3 tok/s · 412 tok · TTFT 0.41 s*

## You

Why?\u2028Really

## Assistant

*failed: memory ran out*
"""
    )


@pytest.mark.parametrize(
    ("state", "shown"), [("stopped", "*stopped*"), ("length", "*cut at the token limit*"), ("complete", None)]
)
def test_markdown_says_how_a_reply_ended(store, state, shown):
    chat = store.create().id
    store.add(chat, "assistant", "half", parent=None, state=state)
    assert files.to_markdown(store, chat).splitlines()[-1] == (shown or "half")


def test_jsonl_is_what_other_tools_read(store, chat):
    """One object a line with OpenAI's messages; no line end inside a row, whatever a reader takes for one."""
    empty = store.create().id
    text = files.to_jsonl(store, [chat, empty])
    (line,) = text.splitlines()
    row = json.loads(line)
    assert row["messages"] == [
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": "What is MLA?"},
        {
            "role": "assistant",
            "content": "It caches a *latent*.\n\n```python\nq = 1\n```\n",
            "reasoning_content": "The user asks </details> MLA.",
        },
        {"role": "user", "content": "Why?\u2028Really"},
    ]
    assert row["macllm"] == {
        "title": "Latent attention",
        "created": store.chat(chat).created,
        "model": "Qwen3-8B",
    }


def said(store, chat):
    return [(one.role, one.text, one.thought) for one in store.branch(chat) if one.text]


def test_what_was_exported_comes_back(store, chat, tmp_path):
    other = store.create().id
    store.add(other, "user", "中文 🎉 \u0085 \x00", parent=None)
    file = tmp_path / "chats.jsonl"
    files.write(file, files.to_jsonl(store, [chat, other]))
    elsewhere = Store.in_memory()
    done = files.import_jsonl(elsewhere, file)
    assert done.skipped == () and len(done.chats) == 2
    for before, after in zip((chat, other), done.chats, strict=True):
        assert said(elsewhere, after) == said(store, before)
        kept = ("title", "created", "model", "system")
        assert [getattr(elsewhere.chat(after), name) for name in kept] == [
            getattr(store.chat(before), name) for name in kept
        ]
    assert elsewhere.search("latent")[0].chat.id == done.chats[0]
    assert files.to_jsonl(elsewhere, done.chats) == files.to_jsonl(store, [chat, other])
    again = files.import_jsonl(elsewhere, file)
    assert again.chats == ()
    assert again.skipped == (f"{file}:1: this chat is there already", f"{file}:2: this chat is there already")
    elsewhere.close()


def test_rows_of_other_tools_are_read(store, tmp_path):
    file = tmp_path / "train.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "in parts"}]}], "tools": []},
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a", "reasoning": "r"},
            ]
        },
    ]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(json.dumps(row) for row in rows).encode())
    done = files.import_jsonl(store, file)
    assert [said(store, chat) for chat in done.chats] == [
        [("user", "hi", ""), ("assistant", "hello", "")],
        [("user", "in parts", "")],
        [("user", "q", ""), ("assistant", "a", "r")],
    ]
    assert store.chat(done.chats[0]).title == "hi"
    assert len(files.import_jsonl(store, file).chats) == 3, (
        "without a date nothing says that they are the same"
    )


GOOD = '{"messages": [{"role": "user", "content": "good"}]}'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        ("3", "not a number"),
        ("[]", "not a list"),
        ("{}", '{"messages": [...]}'),
        ('{"prompt": "a", "completion": "b"}', "found prompt, completion"),
        ('{"messages": []}', "no message"),
        ('{"messages": [{"role": "system", "content": "only"}]}', "no message"),
        ('{"messages": {"role": "user"}}', '{"messages": [...]}'),
        ('{"messages": ["hi"]}', "messages[0]: str is not a message"),
        ('{"messages": [{"role": "user", "content": ""}]}', "messages[0]: content is empty"),
        ('{"messages": [{"role": "user", "content": 3}]}', "messages[0].content: int"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "role 'tool'"),
        ('{"messages": [{"role": "user", "content": "x", "audio": 1}]}', "key 'audio'"),
        (
            '{"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}]}',
            "tool calls",
        ),
        ('{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}', "'tools'"),
        ('{"messages": [{"role": "user", "content": "x"}], "macllm": 3}', "macllm is a number"),
        (
            '{"messages": [{"role": "user", "content": "x"}], "macllm": {"title": 3}}',
            "macllm.title is a number",
        ),
        ('{"messages": [{"role": "user", "content": "x"}], "macllm": {"colour": "red"}}', "macllm.colour"),
        ('{"messages": [{"role": "user", "content": "x"}], "macllm": {"created": "soon"}}', "'soon'"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_imported(store, tmp_path, row, reason):
    file = tmp_path / "rows.jsonl"
    raw = row if isinstance(row, bytes) else row.encode()
    file.write_bytes(b"\n".join([GOOD.encode(), b"", raw, GOOD.encode()]))
    with pytest.raises(InputError) as caught:
        files.import_jsonl(store, file)
    sentence = str(caught.value)
    assert sentence.startswith(f"{file}:3: ") and sentence.endswith("; nothing was imported")
    assert reason in sentence and "\n" not in sentence and len(sentence) < 400
    assert store.chats() == []
    file.write_bytes(b"\n".join([raw, GOOD.encode(), raw]))
    with pytest.raises(InputError, match=r":1: .*2 of 3 rows are wrong"):
        files.import_jsonl(store, file)


def test_a_file_without_chats_is_said(store, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n \n")
    for file, reason in (
        ("empty.jsonl", "holds no chats"),
        ("gone.jsonl", "cannot be read"),
        ("", "cannot be read"),
    ):
        with pytest.raises(InputError, match=reason):
            files.import_jsonl(store, tmp_path / file)


def test_dates_of_any_zone_are_put_in_order(store, tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = []
    for when in ("2026-01-01T12:00:00+02:00", "2026-01-01T11:00:00+00:00"):
        rows.append(json.dumps({**json.loads(GOOD), "macllm": {"created": when, "title": when}}))
    file.write_text("\n".join(rows))
    files.import_jsonl(store, file)
    assert [chat.created for chat in store.chats()] == [
        "2026-01-01T11:00:00.000000+00:00",
        "2026-01-01T10:00:00.000000+00:00",
    ]


def test_export_goes_by_the_ending_and_overwrites_nothing(store, chat, tmp_path):
    files.export(store, chat, tmp_path / "a.MD")
    files.export(store, chat, tmp_path / "a.jsonl")
    assert (tmp_path / "a.MD").read_text() == files.to_markdown(store, chat)
    assert (tmp_path / "a.jsonl").read_text() == files.to_jsonl(store, [chat])
    for name, reason in (
        ("a.txt", ".md or .jsonl"),
        ("a.jsonl", "there already"),
        ("no/a.md", "No such file"),
    ):
        with pytest.raises(MacllmError, match=reason):
            files.export(store, chat, tmp_path / name)
    assert sorted(file.name for file in tmp_path.glob("a*")) == ["a.MD", "a.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "chat.md"
    target.write_text("before")
    (tmp_path / f"chat.md.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(MacllmError, match=r"No space left.*nothing was written"):
        files.write(target, "after")
    assert [file.name for file in tmp_path.glob("chat*")] == ["chat.md"]
    assert target.read_text() == "before"


def test_a_reply_under_way_is_exported_as_far_as_it_is(store):
    chat = store.create().id
    reply = store.add(chat, "assistant", "", parent=None, state="partial")
    assert files.to_jsonl(store, [chat]) == ""
    store.save(replace(reply, text="half"))
    assert json.loads(files.to_jsonl(store, [chat]))["messages"] == [{"role": "assistant", "content": "half"}]
