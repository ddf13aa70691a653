"""The file of the chats: private, upgraded, refused when newer, set aside when damaged, shared by two apps."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from version_1 import SCHEMA_AND_ROWS

from macllm.chats.migrations import MIGRATIONS
from macllm.chats.store import Store, damage_sentence
from macllm.engine.metrics import Metrics
from macllm.errors import MacllmError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def path(macllm_home):
    return macllm_home / "chats.db"


@contextmanager
def opened(path=None):
    with closing(Store.open(path)) as store:
        yield store


def fill(path, chats=1, words="some words"):
    """A database with as many chats of two messages."""
    with opened(path) as store, store.together():
        for number in range(chats):
            chat = store.create(model="m")
            asked = store.add(chat.id, "user", f"{words} {number}", parent=None)
            store.add(chat.id, "assistant", f"reply {number} " + words * 20, parent=asked.id)


def written_at_version_1(path):
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA_AND_ROWS)


def schema(connection):
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"
    )
    return [(kind, name, " ".join((sql or "").split())) for kind, name, sql in rows]


def test_a_database_of_version_1_is_upgraded(path):
    written_at_version_1(path)
    with opened(path) as store:
        assert [chat.id for chat in store.chats()] == ["bbbb", "aaaa"]
        chat = store.chat("aaaa")
        assert (chat.title, chat.system, chat.sampling, chat.messages) == (
            "讨论注意力",
            "be brief",
            {"temperature": 0.7},
            2,
        )
        reply = store.message("m2")
        assert (reply.thought, reply.thought_s, reply.seed) == ("hm", 4.5, 2**64 - 1)
        assert reply.metrics == Metrics(decode_tps=71.3)
        assert store.siblings("m3") == ["m2", "m3"]
        assert store.message("m3").state == "stopped"
        assert [hit.message for hit in store.search("机制")] == ["m2"]
        assert [hit.role for hit in store.search("讨论")] == ["title"]
        assert [hit.message for hit in store.search("begun")] == ["m3"]
        assert [hit.role for hit in store.search("hello")] == ["user"]
        store.delete("aaaa")
        assert store.search("latent") == []
        steps = store._connection.execute("SELECT name FROM migrations").fetchall()
        assert [step["name"] for step in steps] == [migration.name for migration in MIGRATIONS]


def test_an_upgraded_database_is_as_a_new_one(path, tmp_path):
    written_at_version_1(path)
    with opened(path) as upgraded, opened(tmp_path / "new.db") as new:
        names = [(kind, name) for kind, name, _ in schema(upgraded._connection)]
        assert names == [(kind, name) for kind, name, _ in schema(new._connection)]
        for table in ("chats", "messages", "presets", "migrations"):
            columns = [
                [tuple(row) for row in store._connection.execute(f"PRAGMA table_info ({table})")]
                for store in (upgraded, new)
            ]
            assert columns[0] == columns[1]


def test_a_step_that_fails_leaves_the_database_as_it_was(path, monkeypatch):
    from macllm.chats import migrations

    written_at_version_1(path)
    before = path.read_bytes()
    broken = replace(MIGRATIONS[1], statements=(*MIGRATIONS[1].statements, "CREATE TABLE chats (x)"))
    monkeypatch.setattr(migrations, "MIGRATIONS", (MIGRATIONS[0], broken))
    with pytest.raises(MacllmError, match=r"chats\.db: table chats already exists"):
        Store.open(path)
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(":memory:")) as first:
        first.executescript(SCHEMA_AND_ROWS)
        assert schema(connection) == schema(first)
    assert len(path.read_bytes()) == len(before)


def test_a_newer_database_is_refused_and_left_alone(path):
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO migrations VALUES ('9 holograms', 'later')")
        connection.commit()
    with pytest.raises(MacllmError, match=r"newer macllm .*9 holograms.*update macllm"):
        Store.open(path)
    assert [file.name for file in path.parent.glob("*.db")] == ["chats.db"]


def test_only_the_owner_may_read_it(path):
    before = os.umask(0)
    try:
        with opened() as store:
            store.create()
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["chats.db", "chats.db-shm", "chats.db-wal"]
            assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    with opened():
        assert path.stat().st_mode & 0o777 == 0o600


def test_deleted_words_are_in_no_file(path):
    with opened(path) as store:
        chat = store.create(title="Zebrafinch")
        store.add(chat.id, "user", "xylophonist quetzalcoatl", parent=None)
        kept = store.create()
        store.add(kept.id, "user", "ordinary", parent=None)
        store.delete(chat.id)
        everything = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for word in (b"ebrafinch", b"ylophonist", b"uetzalcoatl"):
        assert word not in everything
    assert b"ordinary" in everything


@pytest.mark.parametrize(
    "content", [b"not a database at all, but rather long" * 200, b"SQLite format 3\x00" + b"\xff" * 4000]
)
def test_what_is_no_database_is_set_aside(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    path.with_name("chats.db-wal").write_bytes(b"log")
    with opened() as store:
        assert store.chats() == []
        aside = store.set_aside
        assert aside is not None and store.salvaged == 0
        assert aside.name == f"chats-damaged-{datetime.now().date()}.db"
        assert aside.read_bytes() == content
        assert str(aside) in damage_sentence(store) and "nothing of it could be read" in damage_sentence(
            store
        )
        store.create()
    with opened() as store:
        assert store.set_aside is None, "said once"
        assert len(store.chats()) == 1
    path.write_bytes(content)
    for beside in path.parent.glob("chats.db-*"):
        beside.unlink()
    with opened() as store:
        assert store.set_aside != aside, "an earlier one is never overwritten"
    assert aside.read_bytes() == content


def test_a_truncated_database_gives_what_can_be_read(path):
    fill(path, chats=300)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
    with opened() as store:
        assert store.set_aside is not None
        assert len(store.chats(limit=-1)) == store.salvaged
        usable(store)


def test_one_damaged_page_costs_the_rows_on_it(path):
    fill(path, chats=300)
    page = _a_page_of_messages(path)
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 4096)
    with opened() as store:
        assert store.set_aside is not None
        assert store.salvaged == 300 and len(store.chats(limit=-1)) == 300
        replies = store.search("reply", limit=1000)
        assert 200 < len(replies) < 300
        assert "300 chats could be read" in damage_sentence(store)
        usable(store)


def usable(store):
    """Nothing dangles in what was taken over, and it can be gone on with."""
    assert store._connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert store._connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    for chat in store.chats(limit=-1):
        branch = store.branch(chat.id)
        assert (chat.head is None) == (branch == [])
    chat = store.create()
    store.add(chat.id, "user", "goes on", parent=None)
    assert store.search("goes on")


def _a_page_of_messages(path):
    """A page, counted from 0, that holds rows from the middle of the table: where one's text stands."""
    return path.read_bytes().index(b"reply 150 ") // 4096


def test_damage_met_while_running_is_said_and_found_at_the_next_start(path):
    fill(path, chats=300)
    page = _a_page_of_messages(path)
    store = Store.open()
    store._connection.execute("PRAGMA shrink_memory")  # what it has read stays with it otherwise
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(MacllmError, match="damaged; start macllm again"):
        for chat in store.chats(limit=-1):
            store.branch(chat.id)
    store.close()
    assert path.with_name("chats.db-damaged").exists()
    with opened() as again:
        assert again.set_aside is not None and again.salvaged == 300
    assert not path.with_name("chats.db-damaged").exists()


def test_a_full_disk_is_one_sentence_and_nothing_is_half_written(path):
    with opened() as store:
        chat = store.create()
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(MacllmError, match=r"disk is full.*free some space") as caught:
            store.add(chat.id, "user", "x y " * 50_000, parent=None)
        assert caught.value.exit_code == 1
        assert store.branch(chat.id) == [] and store.chat(chat.id).title == ""
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2000}")
        store.add(chat.id, "user", "short", parent=None)
    with opened() as store:
        assert store.set_aside is None
        assert [message.text for message in store.branch(chat.id)] == ["short"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "chats.db", tmp_path):
        with pytest.raises(MacllmError, match=f"{place}.*MACLLM_HOME") as caught:
            Store.open(place)
        assert "\n" not in str(caught.value)


def test_a_read_only_database_is_one_sentence(path):
    with opened() as store:
        chat = store.create()
        store._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(MacllmError, match=r"cannot be written; change its permissions"):
            store.add(chat.id, "user", "x", parent=None)


def test_another_app_that_writes_is_waited_for_and_then_named(path):
    with opened() as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert store.chats() == [], "reading goes on"
        store._connection.execute("PRAGMA busy_timeout = 10")
        with pytest.raises(MacllmError, match="another macllm is writing"):
            store.create()
        other.execute("ROLLBACK")
        store.create()


def test_two_apps_see_what_each_other_says(path):
    with opened() as one, opened() as two:
        chat = one.create()
        asked = two.add(chat.id, "user", "from two", parent=None)
        one.add(chat.id, "assistant", "from one", parent=asked.id)
        assert [message.text for message in two.branch(chat.id)] == ["from two", "from one"]
        assert len(one.search("from")) == 2


def partial(store):
    chat = store.create()
    return store.add(chat.id, "assistant", "half a rep", parent=None, state="partial")


def in_another_process(code):
    """Runs code that has a store; gives the process, which waits on its stdin before it ends."""
    program = (
        f"import sys; from macllm.chats.store import Store; store = Store.open(); {code};"
        " print('ready', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_reply_whose_writer_was_killed_is_stopped(path):
    code = "store.add(store.create().id, 'assistant', 'half', parent=None, state='partial')"
    process = in_another_process(code)
    try:
        with opened() as store:
            (message,) = store.branch(store.chats()[0].id)
            assert message.state == "partial", "it is still being written"
        process.kill()
        process.wait()
        with opened() as store:
            (message,) = store.branch(store.chats()[0].id)
            assert (message.state, message.text) == ("stopped", "half")
            assert [hit.message for hit in store.search("half")] == [message.id]
    finally:
        process.kill()
        process.wait()


def test_a_reply_being_written_here_stays_so(path):
    with opened() as store:
        message = partial(store)
        with opened() as second:
            assert second.message(message.id).state == "partial"
        store.save(replace(message, text="whole", state="complete"))
        assert store.message(message.id).state == "complete"


@pytest.mark.parametrize(
    ("writer", "age", "state"),
    [
        (f"{os.getpid()} other", timedelta(), "stopped"),  # an earlier process had this one's number
        (f"{os.getppid()} other", timedelta(), "partial"),  # a process that is there
        (f"{os.getppid()} other", timedelta(hours=1), "stopped"),  # its number came round again
        ("", timedelta(), "stopped"),
    ],
    ids=["our number", "there", "there an hour ago", "nobody"],  # numbers differ from worker to worker
)
def test_who_may_still_be_writing(path, writer, age, state):
    with opened() as store:
        message = partial(store)
        saved = (datetime.now(UTC) - age).isoformat(timespec="microseconds")
        store._run("UPDATE messages SET writer = ?, saved = ?", writer, saved)
    with opened() as store:
        assert store.message(message.id).state == state
        store.save(replace(message, text="it went on", state="complete"))
        assert store.message(message.id).state == "complete", "where that was wrong it is put right"


def test_the_store_starts_without_mlx(run_python):
    code = """import macllm.chats.async_store, macllm.chats.files, sys
print([name for name in sys.modules if name.startswith(("mlx", "numpy", "tokenizers", "textual"))])"""
    assert run_python(code) == "[]\n"


@pytest.mark.parametrize("content", [None, b"garbage " * 500])
def test_apps_that_start_at_once_make_one_database(path, content):
    """Six processes meet a file that is not there, or is damaged: one makes it, one sets it aside."""
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    gate = path.with_name("gate")
    code = f"""
import pathlib, time
from macllm.chats.store import Store
while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.001)
store = Store.open()
store.create()
print(store.set_aside is not None)"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    gate.touch()
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(said) == sorted(["False\n"] * 5 + ["False\n" if content is None else "True\n"])
    with opened() as store:
        assert len(store.chats()) == 6
    assert len(list(path.parent.glob("chats-damaged-*.db"))) == (content is not None)
