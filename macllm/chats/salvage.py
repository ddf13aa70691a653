"""What can still be read of a damaged database, taken over into a new one."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from macllm.chats.search import spaced

_TABLES = {"chats": "title", "messages": "text", "presets": None}  # with the column that is searched


def salvage(damaged: Path, connection: sqlite3.Connection) -> int:
    """Copies the rows of ``damaged`` that can be read, and returns how many chats came.

    Each table is read from both ends up to the damage. What lost its chat is left out, what lost the message
    before it becomes the first of its branch.
    """
    old = sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("PRAGMA defer_foreign_keys = ON")
        for table, searched in _TABLES.items():
            _copy(old, connection, table, searched)
        _mend(connection)
        connection.execute("COMMIT")
        return int(connection.execute("SELECT count(*) FROM chats").fetchone()[0])
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    finally:
        old.close()


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str, searched: str | None) -> None:
    known = {row[1] for row in new.execute(f"PRAGMA table_info ({table})")}
    for row in _readable(old, table):
        values = {name: value for name, value in row.items() if name in known}
        if searched is not None and isinstance(values.get(searched), str):
            values["spaced"] = spaced(values[searched])  # an older schema has none
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with contextlib.suppress(sqlite3.IntegrityError):  # a row that is half there
            new.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", list(values.values()))


def _readable(old: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    """The rows before the first that cannot be read, and those after the last; some may come twice."""
    for order in ("ASC", "DESC"):
        try:
            cursor = old.execute(f"SELECT * FROM {table} NOT INDEXED ORDER BY rowid {order}")
            names = [column[0] for column in cursor.description]
            for row in cursor:
                yield dict(zip(names, row, strict=True))
        except sqlite3.Error:
            continue
        return  # all of them


def _mend(new: sqlite3.Connection) -> None:
    new.execute("DELETE FROM messages WHERE chat NOT IN (SELECT id FROM chats)")
    new.execute("UPDATE messages SET parent = NULL WHERE parent NOT IN (SELECT id FROM messages)")
    new.execute(
        "UPDATE chats SET head = (SELECT id FROM messages WHERE chat = chats.id ORDER BY number DESC LIMIT 1)"
        " WHERE head NOT IN (SELECT id FROM messages)"
    )
