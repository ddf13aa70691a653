"""Chats as files: Markdown to read, JSONL that fine-tuning and other tools read and that comes back in."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from macllm.chats.records import Chat, StoredMessage
from macllm.chats.store import Store
from macllm.engine.figures import figures
from macllm.errors import InputError, MacllmError

_HEADINGS = {"user": "You", "assistant": "Assistant", "system": "System", "tool": "Tool"}
_ENDS = {"stopped": "stopped", "length": "cut at the token limit", "partial": "being written"}
_ROLES = ("system", "user", "assistant")
_ROW_KEYS = ("messages", "macllm")
_ABOUT_KEYS = ("title", "created", "model")
# JSON leaves these as they are, and readers that split text at every kind of line end would cut a row there
_LINE_ENDS = {"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Imported:
    """What an import brought: the new chats' ids, and the rows left out because their chat is there already."""

    chats: tuple[str, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """One chat of a file. ``messages`` are (role, text, thought)."""

    place: str
    messages: tuple[tuple[str, str, str], ...]
    system: str = ""
    title: str = ""
    created: str = ""
    model: str = ""


def to_markdown(store: Store, chat: str) -> str:
    """The branch that is shown, to be read: title, system prompt, messages, thoughts folded, figures."""
    found = store.chat(chat)
    facts = " · ".join(fact for fact in (found.model, found.created[:10]) if fact)
    parts = [f"# {found.title or 'Empty chat'}", f"*{facts}*"]
    if found.system:
        parts += ["## System", found.system]
    for message in store.branch(chat):
        parts += _section(message)
    return "\n\n".join(parts) + "\n"


def to_jsonl(store: Store, chats: Sequence[str]) -> str:
    """One row a chat with something said: ``{"messages": [...], "macllm": {title, created, model}}``.

    Of a tree the branch that is shown; a reply without any text is left out.
    """
    rows = (_row_of(store, store.chat(chat)) for chat in chats)
    return "".join(_line(row) for row in rows if row["messages"])


def import_jsonl(store: Store, path: Path) -> Imported:
    """Adds the chats of a JSONL file, all of them or, where a row is wrong, none.

    Rows are ``{"messages": [{"role", "content"[, "reasoning_content"]}, ...]}``, as :func:`to_jsonl` and
    OpenAI-style tools write them. Raises InputError naming the file and line of the first wrong row.
    """
    found = _read(path)
    there = {(chat.title, chat.created): chat.id for chat in store.chats(limit=-1)}
    chats, skipped = [], []
    with store.together():
        for row in found:
            known = there.get((row.title, row.created)) if row.created else None
            if known is not None and _same(store, known, row):
                skipped.append(f"{row.place}: this chat is there already")
                continue
            chats.append(_add(store, row))
    return Imported(tuple(chats), tuple(skipped))


def export(store: Store, chat: str, path: Path) -> None:
    """Writes one chat to a new file, in the form that its ending names: .md or .jsonl."""
    if path.suffix.lower() not in (".md", ".jsonl"):
        raise InputError(f"{path}: a chat is written as .md or .jsonl; give the file one of these endings")
    if path.exists():
        raise InputError(f"{path} is there already; name another file")
    markdown = path.suffix.lower() == ".md"
    write(path, to_markdown(store, chat) if markdown else to_jsonl(store, [chat]))


def write(path: Path, text: str) -> None:
    """Writes a file beside its place and renames it: it is there whole, or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(path)
    except OSError as error:
        raise MacllmError(
            f"{path}: {error.strerror}; nothing was written, choose another place or free some space"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _section(message: StoredMessage) -> Iterator[str]:
    yield f"## {_HEADINGS.get(message.role, message.role)}"
    if message.thought:
        time = f" for {message.thought_s:.1f} s" if message.thought_s else ""
        # the empty lines let what is inside be read as Markdown
        yield f"<details>\n<summary>Thought{time}</summary>\n\n{_inside(message.thought)}\n\n</details>"
    if message.text:
        yield message.text.strip()
    facts = [message.model, figures(message.metrics) if message.metrics is not None else ""]
    facts.append(f"failed: {message.error}" if message.state == "failed" else _ENDS.get(message.state, ""))
    line = " · ".join(fact for fact in facts if fact)
    if line:
        yield f"*{line}*"


def _inside(thought: str) -> str:
    """A thought that cannot end the fold it stands in."""
    return thought.strip().replace("</details>", "&lt;/details&gt;")


def _row_of(store: Store, chat: Chat) -> dict[str, Any]:
    messages: list[dict[str, str]] = []
    for one in store.branch(chat.id):
        if one.text:
            messages.append({"role": one.role, "content": one.text})
            if one.thought:
                messages[-1]["reasoning_content"] = one.thought
    if messages and chat.system:
        messages.insert(0, {"role": "system", "content": chat.system})
    about = {"title": chat.title, "created": chat.created, "model": chat.model}
    return {"messages": messages, "macllm": about}


def _line(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False)
    for character, escape in _LINE_ENDS.items():
        text = text.replace(character, escape)
    return text + "\n"


def _read(path: Path) -> list[_Row]:
    """The rows of a file, or an InputError that names the first wrong one and says how many there are."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name a .jsonl file") from None
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_parsed(line, f"{path}:{number}"))
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        others = f" ({len(wrong)} of {len(wrong) + len(found)} rows are wrong)" if len(wrong) > 1 else ""
        raise InputError(f"{wrong[0]}{others}; nothing was imported")
    if not found:
        raise InputError(f"{path} holds no chats; each line should be a JSON object with messages")
    return found


def _parsed(line: bytes, place: str) -> _Row:
    try:
        raw = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{place}: this is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{place}: this is not JSON ({reason})") from None
    if not isinstance(raw, dict):
        raise InputError(f"{place}: a row is an object with messages, not {_kind(raw)}")
    unknown = next((key for key, value in raw.items() if key not in _ROW_KEYS and value), None)
    if not isinstance(raw.get("messages"), list):
        hint = f", found {', '.join(raw)}" if raw else ""
        raise InputError(f'{place}: a chat is {{"messages": [...]}}{hint}')
    if unknown is not None:
        raise InputError(f"{place}: '{unknown}' cannot be kept with a chat (expected messages and macllm)")
    messages = tuple(_parsed_message(one, f"{place}: messages[{i}]") for i, one in enumerate(raw["messages"]))
    system = messages[0][1] if messages and messages[0][0] == "system" else ""
    said = messages[1:] if system else messages
    if not said:
        raise InputError(f"{place}: there is no message in this chat")
    return _Row(place, said, system, **_about(raw.get("macllm"), place))


def _parsed_message(raw: Any, place: str) -> tuple[str, str, str]:
    from macllm.tokenizer.messages import to_messages  # here: the package brings the tokenizers

    try:
        (message,) = to_messages([raw])
    except InputError as error:
        raise InputError(f"{place}{str(error).removeprefix('messages[0]')}") from None
    if message.role not in _ROLES:
        raise InputError(f"{place}: role '{message.role}' cannot be kept (expected {', '.join(_ROLES)})")
    if message.tool_calls or message.tool_call_id:
        raise InputError(f"{place}: tool calls cannot be kept")
    if not message.text:
        raise InputError(f"{place}: content is empty")
    return message.role, message.text, message.reasoning or ""


def _about(raw: Any, place: str) -> dict[str, str]:
    from datetime import UTC, datetime

    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InputError(f"{place}: macllm is {_kind(raw)}, expected an object")
    about = {key: value for key, value in raw.items() if value}
    for key, value in about.items():
        if key not in _ABOUT_KEYS:
            raise InputError(f"{place}: macllm.{key} is not known (expected {', '.join(_ABOUT_KEYS)})")
        if not isinstance(value, str):
            raise InputError(f"{place}: macllm.{key} is {_kind(value)}, expected text")
    if "created" in about:
        try:
            when = datetime.fromisoformat(about["created"])
        except ValueError:
            raise InputError(
                f"{place}: macllm.created='{about['created']}' is not an ISO 8601 date"
            ) from None
        # the form that sorts: chats are ordered by this text
        about["created"] = when.astimezone(UTC).isoformat(timespec="microseconds")
    return about


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _same(store: Store, chat: str, row: _Row) -> bool:
    said = tuple((one.role, one.text, one.thought) for one in store.branch(chat) if one.text)
    return said == row.messages and store.chat(chat).system == row.system


def _add(store: Store, row: _Row) -> str:
    chat = store.create(model=row.model, system=row.system, title=row.title, created=row.created)
    parent = None
    for role, text, thought in row.messages:
        model = row.model if role == "assistant" else ""
        more = {"thought": thought, "created": chat.created, "model": model}
        parent = store.add(chat.id, role, text, parent=parent, **more).id
    return chat.id
