"""The database's schema as named steps. What was released is never changed, only followed by another step."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from macllm.chats.search import spaced
from macllm.errors import MacllmError


@dataclass(frozen=True)
class Migration:
    """Statements that take the schema one step on, and what has to be done to the rows that are there."""

    name: str
    statements: tuple[str, ...]
    fill: Callable[[sqlite3.Connection], None] | None = None


# `number` is the order of writing and the row number that the search index knows a row by. A parent is not
# deleted with a cascade: a long chat would be a recursion of that depth, which SQLite refuses.
_CHATS = (
    """CREATE TABLE chats (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        named INTEGER NOT NULL,          -- whether a person gave the title
        created TEXT NOT NULL,
        updated TEXT NOT NULL,
        model TEXT NOT NULL,
        system TEXT NOT NULL,
        sampling TEXT NOT NULL,          -- JSON
        head TEXT,
        overflow TEXT NOT NULL,
        summary TEXT NOT NULL,
        summary_until TEXT
    )""",
    "CREATE INDEX chats_by_update ON chats (updated, number)",
    """CREATE TABLE messages (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        chat TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
        parent TEXT REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
        depth INTEGER NOT NULL,          -- 1 for the first of a branch
        role TEXT NOT NULL,
        text TEXT NOT NULL,
        thought TEXT NOT NULL,
        thought_s REAL NOT NULL,
        created TEXT NOT NULL,
        model TEXT NOT NULL,
        model_hash TEXT NOT NULL,
        sampling TEXT NOT NULL,          -- JSON
        seed TEXT,                       -- up to 2**64 - 1, more than SQLite's integers
        metrics TEXT,                    -- JSON
        state TEXT NOT NULL,
        error TEXT NOT NULL,
        writer TEXT NOT NULL,            -- the process that writes a partial one
        saved TEXT NOT NULL
    )""",
    "CREATE INDEX messages_by_place ON messages (chat, parent, number)",
    "CREATE INDEX messages_by_parent ON messages (parent)",
    "CREATE INDEX messages_partial ON messages (number) WHERE state = 'partial'",
    "CREATE INDEX messages_of_user ON messages (number) WHERE role = 'user'",
    "CREATE TABLE presets (name TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL)",
)

# An index over words, not over trigrams: two-letter words and two-character Chinese ones are found, and it
# takes a third of the space. What writes no spaces is indexed by the character (see `spaced`). A reply is
# indexed when it is done, not each time its beginning is saved. Titles that macllm made are a message's text.
_SEARCH = (
    "ALTER TABLE messages ADD COLUMN spaced TEXT",  # NULL where it would be the text itself
    "ALTER TABLE chats ADD COLUMN spaced TEXT",
    "CREATE VIEW message_words AS SELECT number, coalesce(spaced, text) AS text FROM messages",
    "CREATE VIEW title_words AS SELECT number, coalesce(spaced, title) AS title FROM chats",
    """CREATE VIRTUAL TABLE message_search USING fts5(
        text, content='message_words', content_rowid='number', tokenize='unicode61 remove_diacritics 2', prefix='1 2'
    )""",
    """CREATE VIRTUAL TABLE title_search USING fts5(
        title, content='title_words', content_rowid='number', tokenize='unicode61 remove_diacritics 2', prefix='1 2'
    )""",
    """CREATE TRIGGER message_added AFTER INSERT ON messages WHEN new.state <> 'partial' BEGIN
        INSERT INTO message_search (rowid, text) VALUES (new.number, coalesce(new.spaced, new.text));
    END""",
    """CREATE TRIGGER message_deleted AFTER DELETE ON messages WHEN old.state <> 'partial' BEGIN
        INSERT INTO message_search (message_search, rowid, text)
        VALUES ('delete', old.number, coalesce(old.spaced, old.text));
    END""",
    # one trigger for both halves: the order of two would be SQLite's to choose
    """CREATE TRIGGER message_changed AFTER UPDATE OF text, state ON messages
    WHEN old.text <> new.text OR (old.state = 'partial') <> (new.state = 'partial') BEGIN
        INSERT INTO message_search (message_search, rowid, text)
        SELECT 'delete', old.number, coalesce(old.spaced, old.text) WHERE old.state <> 'partial';
        INSERT INTO message_search (rowid, text)
        SELECT new.number, coalesce(new.spaced, new.text) WHERE new.state <> 'partial';
    END""",
    """CREATE TRIGGER title_added AFTER INSERT ON chats WHEN new.named BEGIN
        INSERT INTO title_search (rowid, title) VALUES (new.number, coalesce(new.spaced, new.title));
    END""",
    """CREATE TRIGGER title_deleted AFTER DELETE ON chats WHEN old.named BEGIN
        INSERT INTO title_search (title_search, rowid, title)
        VALUES ('delete', old.number, coalesce(old.spaced, old.title));
    END""",
    """CREATE TRIGGER title_changed AFTER UPDATE OF title, named ON chats
    WHEN old.title <> new.title OR old.named <> new.named BEGIN
        INSERT INTO title_search (title_search, rowid, title)
        SELECT 'delete', old.number, coalesce(old.spaced, old.title) WHERE old.named;
        INSERT INTO title_search (rowid, title)
        SELECT new.number, coalesce(new.spaced, new.title) WHERE new.named;
    END""",
)


def _fill_search(connection: sqlite3.Connection) -> None:
    for table, column in (("messages", "text"), ("chats", "title")):
        rows = connection.execute(f"SELECT number, {column} FROM {table}")
        wider = [(words, number) for number, text in rows if (words := spaced(text)) is not None]
        connection.executemany(f"UPDATE {table} SET spaced = ? WHERE number = ?", wider)
    connection.execute(
        "INSERT INTO message_search (rowid, text) SELECT m.number, w.text FROM messages m"
        " JOIN message_words w ON w.number = m.number WHERE m.state <> 'partial'"
    )
    connection.execute(
        "INSERT INTO title_search (rowid, title) SELECT c.number, w.title FROM chats c"
        " JOIN title_words w ON w.number = c.number WHERE c.named"
    )


MIGRATIONS: Sequence[Migration] = (
    Migration("1 chats", _CHATS),
    Migration("2 search", _SEARCH, _fill_search),
)


def migrate(connection: sqlite3.Connection, place: str) -> None:
    """Takes the database at ``place`` to the newest schema, each step whole or not at all.

    Raises MacllmError where a newer macllm has taken it further.
    """
    known = [migration.name for migration in MIGRATIONS]
    applied = _applied(connection)
    newer = next((name for name in applied if name not in known), None)
    if newer is not None:
        raise MacllmError(
            f"{place} was written by a newer macllm (it has the step '{newer}'); update macllm, or set MACLLM_HOME"
            " to another folder"
        )
    if applied == known:
        return  # the usual start takes no lock
    for migration in MIGRATIONS:
        # another app that starts now waits here, and then finds it done
        connection.execute("BEGIN IMMEDIATE")
        try:
            _apply(connection, migration)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied TEXT NOT NULL)")
    if migration.name in _applied(connection):
        return
    for statement in migration.statements:
        connection.execute(statement)
    if migration.fill is not None:
        migration.fill(connection)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute("INSERT INTO migrations VALUES (?, ?)", (migration.name, now))


def _applied(connection: sqlite3.Connection) -> list[str]:
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'migrations'")
    if there.fetchone() is None:
        return []
    return [str(name) for (name,) in connection.execute("SELECT name FROM migrations ORDER BY rowid")]
