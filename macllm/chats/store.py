"""The conversations of this machine: chats whose messages form trees, in which nothing is overwritten."""

import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from macllm import paths
from macllm.chats import rows, search
from macllm.chats.database import SetAside, open_database, open_in_memory, told
from macllm.chats.records import Chat, Hit, Preset, StoredMessage
from macllm.errors import InputError

TITLE_LENGTH = 60
_ATTACHED = re.compile(r"^(`{3,})file:([^\n`]*)\n.*?^\1$", re.DOTALL | re.MULTILINE)  # a file in a prompt
_SETTINGS = ("title", "model", "system", "sampling", "overflow", "summary", "summary_until")


class Store:
    """The conversation store. Every call is a transaction of its own; safe from any one thread at a time.

    Raises InputError for an id that is not there and MacllmError where the file cannot be read or written.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, damage: SetAside | None) -> None:
        self.path = path
        self.set_aside = damage.path if damage is not None else None  # where a damaged database was moved
        self.salvaged = damage.chats if damage is not None else 0  # chats taken over from it
        self._connection = connection

    @classmethod
    def open(cls, path: Path | None = None) -> "Store":
        """The store at ``path`` (``chats.db`` in the data folder), made where there is none."""
        path = paths.data_dir() / "chats.db" if path is None else path
        connection, damage = open_database(path)
        store = cls(connection, path, damage)
        store._stop_abandoned()
        return store

    @classmethod
    def in_memory(cls) -> "Store":
        """A store that is forgotten when it is closed."""
        return cls(open_in_memory(), Path(":memory:"), None)

    def close(self) -> None:
        """Closes the file; nothing has to be saved first."""
        self._connection.close()

    # chats

    def chats(self, limit: int = 200, offset: int = 0) -> list[Chat]:
        """The chats, last used first; a limit of -1 gives all."""
        found = self._all(
            f"{rows.CHAT} ORDER BY c.updated DESC, c.number DESC LIMIT ? OFFSET ?", limit, offset
        )
        return [rows.chat(row) for row in found]

    def chat(self, id: str) -> Chat:  # noqa: A002 (the field's name)
        """The chat with this id."""
        row = self._one(f"{rows.CHAT} WHERE c.id = ?", id)
        if row is None:
            raise InputError(f"there is no chat '{id}'; `macllm chats` lists them")
        return rows.chat(row)

    def find(self, prefix: str) -> Chat:
        """The one chat whose id is, or starts with, ``prefix``."""
        # a range, which the index of the ids serves; \U0010ffff is above every character of an id
        sql = f"{rows.CHAT} WHERE c.id >= ? AND c.id < ? ORDER BY c.updated DESC LIMIT 4"
        prefix = rows.clean(prefix.strip())
        found = [rows.chat(row) for row in self._all(sql, prefix, prefix + "\U0010ffff")] if prefix else []
        if len(found) > 1 and prefix not in (chat.id for chat in found):
            some = ", ".join(chat.id for chat in found[:3])
            raise InputError(f"several chats begin with '{prefix}' ({some}); write more of the id")
        return found[0] if len(found) == 1 else self.chat(prefix)

    def create(
        self,
        *,
        model: str = "",
        system: str = "",
        title: str = "",
        sampling: Mapping[str, Any] | None = None,
        created: str = "",
    ) -> Chat:
        """A new chat without messages. Without a title it takes the first thing that is said."""
        with self._writing():
            id_ = self._insert_chat(model, system, title, sampling or {}, created)
        return self.chat(id_)

    def update(self, /, id: str, **changes: Any) -> Chat:  # noqa: A002
        """Changes a chat's title, model, system, sampling, overflow, summary or summary_until.

        An empty title goes back to the first thing that was said.
        """
        unknown = next((name for name in changes if name not in _SETTINGS), None)
        if unknown is not None:
            raise TypeError(f"a chat's {unknown} cannot be updated (only {', '.join(_SETTINGS)})")
        if "sampling" in changes:
            changes["sampling"] = rows.encoded(changes["sampling"])
        with self._writing():
            self.chat(id)
            if "title" in changes:
                title = rows.clean(changes["title"]).strip()
                changes["named"] = int(bool(title))
                changes["title"] = title or self._first_words(id)
                changes["spaced"] = search.spaced(changes["title"])
            if changes:
                names = ", ".join(f"{name} = ?" for name in changes)
                values = (
                    rows.clean(value) if isinstance(value, str) else value for value in changes.values()
                )
                self._run(f"UPDATE chats SET {names} WHERE id = ?", *values, id)
        return self.chat(id)

    def delete(self, id: str) -> None:  # noqa: A002
        """Deletes a chat, its messages and what the search index holds of them: its words leave the file."""
        with self._writing():
            self.chat(id)
            self._run("DELETE FROM messages WHERE chat = ?", id)
            self._run("DELETE FROM chats WHERE id = ?", id)
            for index in ("message_search", "title_search"):
                # a deleted word stays in it until it is rewritten
                self._run(f"INSERT INTO {index} ({index}) VALUES ('optimize')")
        self._run("PRAGMA wal_checkpoint(TRUNCATE)")

    # messages

    def add(self, /, chat: str, role: str, text: str, *, parent: str | None, **more: Any) -> StoredMessage:
        """Adds a message under ``parent`` (None: the first one) and shows it: it becomes the chat's head."""
        with self._writing():
            return self._insert(chat, role, text, parent, more)

    def save(self, message: StoredMessage) -> None:
        """Replaces what changes of a message as a reply is written: text, thought, figures, state and so on.

        The message's place in the chat, its role and its date stay.
        """
        values = rows.values(message)
        names = ", ".join(f"{name} = ?" for name in (*rows.CHANGING, "spaced", "writer", "saved"))
        now = rows.now()
        with self._writing():
            done = self._run(
                f"UPDATE messages SET {names} WHERE id = ?",
                *(values[name] for name in rows.CHANGING),
                *(search.spaced(values["text"]), rows.writer(message.state), now, message.id),
            )
            if done.rowcount == 0:
                raise InputError(f"there is no message {message.id}; its chat may have been deleted")
            self._run("UPDATE chats SET updated = ? WHERE id = ?", now, message.chat)

    def message(self, id: str) -> StoredMessage:  # noqa: A002
        """The message with this id."""
        row = self._one(f"SELECT {rows.MESSAGE} FROM messages m WHERE m.id = ?", id)
        if row is None:
            raise InputError(f"there is no message {id}; its chat may have been deleted")
        return rows.message(row)

    def branch(self, chat: str) -> list[StoredMessage]:
        """The messages from the first to the chat's head."""
        head = self.chat(chat).head
        return [] if head is None else self._up_to(head)

    def siblings(self, message: str) -> list[str]:
        """The ids of what stands at the same place (same parent and role), oldest first, itself included."""
        at = self.message(message)
        found = self._all(
            "SELECT id FROM messages WHERE chat = ? AND parent IS ? AND role = ? ORDER BY number",
            *(at.chat, at.parent, at.role),
        )
        return [str(row["id"]) for row in found]

    def places(self, chat: str) -> list[tuple[StoredMessage, int, int]]:
        """The branch that is shown, each message with its place among its siblings and how many they are."""
        found = self._all(rows.PLACES, self.chat(chat).head)
        return [(rows.message(row), row["position"], row["siblings"]) for row in found]

    def select(self, message: str) -> Chat:
        """Shows the branch through ``message``, down to the newest end under it."""
        at = self.message(message)
        newest = self._one(
            """WITH RECURSIVE under(id, number) AS (
                SELECT id, number FROM messages WHERE id = ?
                UNION ALL SELECT m.id, m.number FROM messages m JOIN under ON m.parent = under.id
            ) SELECT id FROM under ORDER BY number DESC LIMIT 1""",  # a child is newer than its parent
            message,
        )
        assert newest is not None
        with self._writing():
            self._run("UPDATE chats SET head = ? WHERE id = ?", newest["id"], at.chat)
        return self.chat(at.chat)

    def fork(self, message: str) -> Chat:
        """A new chat with a copy of everything up to ``message``."""
        source = self.chat(self.message(message).chat)
        with self._writing():
            title = f"{source.title} (fork)"
            id_ = self._insert_chat(source.model, source.system, title, source.sampling, "")
            copies: dict[str | None, str | None] = {None: None}
            for one in self._up_to(message):
                state = "stopped" if one.state == "partial" else one.state  # its writer writes the other one
                more = {name: getattr(one, name) for name in rows.CHANGING if name not in ("text", "state")}
                more |= {"state": state, "created": one.created}
                copies[one.id] = self._insert(id_, one.role, one.text, copies[one.parent], more).id
            if source.summary_until in copies:
                self._run(
                    "UPDATE chats SET summary = ?, summary_until = ? WHERE id = ?",
                    *(source.summary, copies[source.summary_until], id_),
                )
            # it is what is worked on now, whatever the dates of its messages
            self._run("UPDATE chats SET overflow = ?, updated = created WHERE id = ?", source.overflow, id_)
        return self.chat(id_)

    # search

    def search(self, words: str, limit: int = 50) -> list[Hit]:
        """Where all of ``words`` stand: in titles, then in messages as whole words, then as beginnings of words.

        Newest first in each. No word of it is syntax.
        """
        words = rows.clean(words)
        hits: dict[tuple[str, str], Hit] = {}
        for sql, whole in ((rows.TITLES, False), (rows.MESSAGES, True), (rows.MESSAGES, False)):
            query = search.query(words, whole=whole)
            if not query or len(hits) >= limit:
                break
            for row in sorted(self._all(sql, query, limit), key=lambda row: str(row["at"]), reverse=True):
                chat = rows.chat(row)
                key = (chat.id, row["message"]) if row["role"] != "title" else (chat.id, "title")
                around = search.snippet(row["text"], words)
                hits.setdefault(key, Hit(chat, row["message"] or "", row["role"], around, row["at"]))
        return list(hits.values())[:limit]

    def prompts(self, words: str = "", limit: int = 100) -> list[str]:
        """What the user wrote, newest first, each text once; with ``words``, what has them all."""
        query = search.query(words, whole=False)
        if words.strip() and not query:
            return []
        with told(self.path):
            if query:
                found = self._connection.execute(rows.USERS_FOUND, (query,))
            else:
                found = self._connection.execute(
                    "SELECT text FROM messages WHERE role = 'user' ORDER BY number DESC"
                )
            texts: dict[str, None] = {}
            for row in found:
                texts.setdefault(row["text"])
                if len(texts) >= limit:
                    break
            found.close()
        return list(texts)

    # presets

    def presets(self) -> list[Preset]:
        """The named system prompts, by name."""
        found = self._all("SELECT name, text FROM presets ORDER BY name COLLATE NOCASE")
        return [Preset(row["name"], row["text"]) for row in found]

    def save_preset(self, name: str, text: str) -> None:
        """Keeps a system prompt under a name, in place of one that had it."""
        name = rows.clean(name).strip()
        if not name:
            raise InputError("a preset needs a name")
        with self._writing():
            self._run("INSERT OR REPLACE INTO presets VALUES (?, ?)", name, rows.clean(text))

    def delete_preset(self, name: str) -> None:
        """Deletes a named system prompt."""
        with self._writing():
            if self._run("DELETE FROM presets WHERE name = ?", name).rowcount == 0:
                raise InputError(f"there is no preset '{name}'")

    # inside

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction around several calls: all of them are kept, or none."""
        with self._writing():
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._connection.in_transaction:  # inside of one already
            yield
            return
        with told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")  # waits for another app here, not half way
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.OperationalError):  # a full disk has rolled back already
                    self._connection.execute("ROLLBACK")
                raise

    def _run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        with told(self.path):
            return self._connection.execute(sql, values)

    def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with told(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        found = self._all(sql, *values)
        return found[0] if found else None

    def _insert_chat(
        self, model: str, system: str, title: str, sampling: Mapping[str, Any], created: str
    ) -> str:
        id_, now, title = secrets.token_hex(8), rows.now(), rows.clean(title).strip()
        self._run(
            "INSERT INTO chats (id, title, named, spaced, created, updated, model, system, sampling, overflow, summary)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'ask', '')",
            *(id_, title, int(bool(title)), search.spaced(title), created or now, created or now),
            *(rows.clean(model), rows.clean(system), rows.encoded(sampling)),
        )
        return id_

    def _insert(
        self, chat: str, role: str, text: str, parent: str | None, more: Mapping[str, Any]
    ) -> StoredMessage:
        into, depth, now = self.chat(chat), 1, rows.now()
        if parent is not None:
            above = self._one("SELECT chat, depth FROM messages WHERE id = ?", parent)
            if above is None or above["chat"] != chat:
                raise InputError(f"there is no message {parent} in chat {chat}")
            depth = above["depth"] + 1
        message = StoredMessage(secrets.token_hex(8), chat, parent, role, rows.clean(text), **more)
        message = replace(message, created=message.created or now)
        values = rows.values(message)
        values |= {
            "depth": depth,
            "spaced": search.spaced(message.text),
            "writer": rows.writer(message.state),
            "saved": now,
        }
        self._run(
            f"INSERT INTO messages ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            *values.values(),
        )
        self._run("UPDATE chats SET head = ?, updated = ? WHERE id = ?", message.id, message.created, chat)
        if role == "user" and not into.title:
            title = shortened(message.text)
            self._run(
                "UPDATE chats SET title = ?, spaced = ? WHERE id = ?", title, search.spaced(title), chat
            )
        return message

    def _first_words(self, chat: str) -> str:
        row = self._one(
            "SELECT text FROM messages WHERE chat = ? AND role = 'user' ORDER BY number LIMIT 1", chat
        )
        return "" if row is None else shortened(row["text"])

    def _up_to(self, message: str) -> list[StoredMessage]:
        return [rows.message(row) for row in self._all(rows.BRANCH, message)]

    def _stop_abandoned(self) -> None:
        """Shows a reply as stopped whose writer is gone. Where that is wrong its writer's next save puts it right."""
        found = self._all("SELECT id, writer, saved FROM messages WHERE state = 'partial'")
        gone = [row["id"] for row in found if not rows.writes_still(row["writer"], row["saved"])]
        if gone:
            with self._writing():
                for id_ in gone:
                    self._run("UPDATE messages SET state = 'stopped' WHERE id = ? AND state = 'partial'", id_)


def shortened(text: str) -> str:
    """The beginning of a text as a title: one line, cut at a word; attached files are named where nothing else is."""
    said = _ATTACHED.sub(" ", text)
    line = " ".join((said if said.strip() else _ATTACHED.sub(r"\2 ", text)).split())
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line.rfind(" ", TITLE_LENGTH // 2, TITLE_LENGTH)
    return line[: cut if cut > 0 else TITLE_LENGTH - 1].rstrip(" ,;:.-") + "…"


def damage_sentence(store: Store) -> str:
    """What the user is told of a database that was set aside."""
    came = {0: "nothing of it could be read", 1: "one chat could be read"}
    saved = came.get(store.salvaged, f"{store.salvaged} chats could be read")
    return f"{store.path} was damaged: {saved}, and the file is kept as {store.set_aside}"
