"""Records as rows of the database and back, and the queries that give such rows."""

import json
import os
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from macllm.chats.records import Chat, StoredMessage
from macllm.engine.metrics import Metrics

_PROCESS = secrets.token_hex(4)  # tells this process from an earlier one that had its number
_WRITER_GONE = timedelta(minutes=10)  # since the last save: its number belongs to another process by now

CHAT = """SELECT c.id, c.title, c.created, c.updated, c.model, c.system, c.sampling, c.head, c.overflow, c.summary,
    c.summary_until, coalesce(m.depth, 0) AS messages FROM chats c LEFT JOIN messages m ON m.id = c.head"""
COLUMNS = tuple(field.name for field in fields(StoredMessage))
CHANGING = tuple(name for name in COLUMNS if name not in ("id", "chat", "parent", "role", "created"))
MESSAGE = ", ".join(f"m.{column}" for column in COLUMNS)
_UP = """WITH RECURSIVE up(id, parent) AS (
        SELECT id, parent FROM messages WHERE id = ?
        UNION ALL SELECT m.id, m.parent FROM up JOIN messages m ON m.id = up.parent
    )"""
BRANCH = f"{_UP} SELECT {MESSAGE} FROM up JOIN messages m ON m.id = up.id ORDER BY m.depth"
_BESIDE = "SELECT count(*) FROM messages s WHERE s.chat = m.chat AND s.parent IS m.parent AND s.role = m.role"
PLACES = f"""{_UP} SELECT {MESSAGE}, ({_BESIDE} AND s.number <= m.number) AS position, ({_BESIDE}) AS siblings
    FROM up JOIN messages m ON m.id = up.id ORDER BY m.depth"""
# the newest that match: the index gives rows from its end, so a common word costs no more than a rare one
MESSAGES = f"""SELECT chat_of.*, m.id AS message, m.role, m.text, m.created AS at FROM (
        SELECT rowid AS number FROM message_search WHERE message_search MATCH ? ORDER BY rowid DESC LIMIT ?
    ) found JOIN messages m ON m.number = found.number JOIN ({CHAT}) chat_of ON chat_of.id = m.chat"""
TITLES = f"""SELECT chat_of.*, chat_of.head AS message, 'title' AS role,
    chat_of.title AS text, chat_of.updated AS at FROM (
        SELECT rowid AS number FROM title_search WHERE title_search MATCH ? ORDER BY rowid DESC LIMIT ?
    ) found JOIN chats one ON one.number = found.number JOIN ({CHAT}) chat_of ON chat_of.id = one.id"""
USERS_FOUND = """SELECT m.text FROM message_search JOIN messages m ON m.number = message_search.rowid
    WHERE message_search MATCH ? AND m.role = 'user' ORDER BY message_search.rowid DESC"""


def chat(row: sqlite3.Row) -> Chat:
    values = {field.name: row[field.name] for field in fields(Chat)}
    return Chat(**{**values, "sampling": json.loads(row["sampling"])})


def message(row: sqlite3.Row) -> StoredMessage:
    values = {name: row[name] for name in COLUMNS}
    values["sampling"] = json.loads(values["sampling"])
    values["seed"] = None if values["seed"] is None else int(values["seed"])
    if values["metrics"] is not None:
        known = {field.name for field in fields(Metrics)}  # a newer macllm may have kept others
        figures = json.loads(values["metrics"])
        values["metrics"] = Metrics(**{name: figure for name, figure in figures.items() if name in known})
    return StoredMessage(**values)


def values(message: StoredMessage) -> dict[str, Any]:
    values = {name: getattr(message, name) for name in COLUMNS}
    values["sampling"] = encoded(message.sampling)
    values["seed"] = None if message.seed is None else str(message.seed)
    values["metrics"] = None if message.metrics is None else encoded(message.metrics.as_dict())
    return {name: clean(value) if isinstance(value, str) else value for name, value in values.items()}


def encoded(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False)


def clean(text: str) -> str:
    """``text`` without the halves of characters that a terminal or a file name may bring in."""
    return text.encode("utf-8", "replace").decode("utf-8")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def writer(state: str) -> str:
    return f"{os.getpid()} {_PROCESS}" if state == "partial" else ""


def writes_still(writer: str, saved: str) -> bool:
    number, _, process = writer.partition(" ")
    if process == _PROCESS:
        return True
    if not number.isdigit() or int(number) == os.getpid():
        return False  # an earlier process had this one's number
    if datetime.now(UTC) - datetime.fromisoformat(saved) > _WRITER_GONE:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's process
    return True
