"""``macllm chats``: what it lists, finds, writes, reads and deletes, and one sentence for each wrong use."""

import io
import json
import sys

import pytest

from macllm.chats.store import Store
from macllm.cli.main import main


@pytest.fixture
def chats():
    """Two chats; their ids, oldest first."""
    store = Store.open()
    made = []
    for title, said in (("", "What is latent attention?"), ("Lamas 羊驼", "Tell me of lamas")):
        chat = store.create(model="starter", title=title)
        asked = store.add(chat.id, "user", said, parent=None)
        store.add(chat.id, "assistant", f"reply to: {said}", parent=asked.id)
        made.append(chat.id)
    store.close()
    return made


class Terminal(io.StringIO):
    """Input that a person types."""

    def isatty(self):
        return True


def run(capsys, *words):
    assert main(["chats", *words]) == 0
    return capsys.readouterr().out


def refused(capsys, *words, code=2):
    assert main(["chats", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("macllm: ") and err.count("\n") == 1
    return err


def test_the_list(chats, capsys):
    lines = run(capsys).splitlines()
    assert lines[0].split() == ["ID", "TITLE", "MODEL", "MESSAGES", "UPDATED"]
    assert lines[1].startswith(chats[1][:8]) and "Lamas 羊驼" in lines[1]
    assert lines[2].startswith(chats[0][:8]) and "What is latent attention?" in lines[2]
    assert len(run(capsys, "--limit", "1").splitlines()) == 2
    assert run(capsys, "list") == run(capsys)


def test_the_list_as_json(chats, capsys):
    rows = json.loads(run(capsys, "--json"))
    assert [row["id"] for row in rows] == chats[::-1]
    assert set(rows[0]) == {"id", "title", "model", "messages", "created", "updated"}
    assert (rows[0]["title"], rows[0]["model"], rows[0]["messages"]) == ("Lamas 羊驼", "starter", 2)


def test_without_chats(capsys):
    assert "no chats yet" in run(capsys)
    assert json.loads(run(capsys, "--json")) == []
    assert "nothing said here has all of: lamas" in run(capsys, "search", "lamas")
    assert run(capsys, "export", "--all") == ""


def test_search(chats, capsys):
    lines = run(capsys, "search", "latent", "att").splitlines()
    assert len(lines) == 3
    assert all(line.startswith(chats[0][:8]) for line in lines[1:])
    hits = json.loads(run(capsys, "search", "--json", "lamas", "tell"))  # words on both sides of an option
    assert [(hit["chat"], hit["role"]) for hit in hits] == [(chats[1], "assistant"), (chats[1], "user")]
    assert set(hits[0]) == {"chat", "title", "message", "role", "created", "text"}
    assert json.loads(run(capsys, "search", "羊驼", "--json"))[0]["role"] == "title"
    assert len(json.loads(run(capsys, "search", "reply", "--json", "--limit", "1"))) == 1
    assert "nothing said" in run(capsys, "search", "--", "--weird")


def test_export(chats, capsys, tmp_path):
    text = run(capsys, "export", chats[0][:15])
    assert text.startswith("# What is latent attention?\n") and "## You" in text
    row = json.loads(run(capsys, "export", chats[0], "--format", "jsonl"))
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert len(run(capsys, "export", "--all").splitlines()) == 2
    for file, start in (("a.md", "# What"), ("a.jsonl", '{"messages"'), ("a.txt", "# What")):
        assert run(capsys, "export", chats[0], "-o", str(tmp_path / file)) == ""
        assert (tmp_path / file).read_text().startswith(start)


def test_what_was_exported_is_imported(chats, capsys, tmp_path, monkeypatch):
    file = tmp_path / "all.jsonl"
    run(capsys, "export", "--all", "-o", str(file))
    assert run(capsys, "import", str(file)) == "0 chats imported, 2 there already\n"
    monkeypatch.setenv("MACLLM_HOME", str(tmp_path / "other"))
    assert run(capsys, "import", str(file)) == "2 chats imported\n"
    assert run(capsys, "export", "--all") == file.read_text()


@pytest.mark.parametrize(
    ("words", "typed", "code"),
    [((), "n\n", 1), ((), "", 1), ((), "y\n", 0), (("--yes",), "", 0)],
)
def test_rm_deletes_when_agreed(chats, capsys, monkeypatch, words, typed, code):
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert main(["chats", "rm", chats[1][:12], *words]) == code
    out, err = capsys.readouterr()
    assert ("“Lamas 羊驼”, 2 messages? [y/N]" in err) == (words == ())
    assert ("deleted" in out) == (code == 0)
    left = [row["id"] for row in json.loads(run(capsys, "--json"))]
    assert left == (chats[::-1] if code else chats[:1])


def test_rm_does_not_ask_a_pipe(chats, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["chats", "rm", chats[0]]) == 0
    assert "[y/N]" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["export", "zz"], "there is no chat 'zz'; `macllm chats` lists them"),
        (["rm", ""], "there is no chat ''"),
        (["export"], "needs an ID, which `macllm chats` shows"),
        (["search"], "needs words to look for"),
        (["import"], "needs a FILE"),
        (["exprt"], "did you mean export?"),
        (["frobnicate"], "there are list, search, export, import, rm"),
        (["export", "a", "b"], "'b' is one argument too many"),
        (["list", "x"], "'x' is one argument too many"),
        (["export", "--all", "x"], "'x' is one argument too many"),
        (["--yes"], "--yes does not go with `macllm chats list`"),
        (["rm", "x", "--json"], "--json does not go with `macllm chats rm`"),
        (["search", "x", "-o", "f"], "-o does not go with"),
        (["export", "--all", "--format", "md"], "--all writes JSONL"),
        (["export", "x", "--format", "pdf"], "invalid choice: 'pdf'"),
        (["--limit", "0"], "'0' is not a whole number of at least 1"),
        (["--jsn"], "did you mean --json?"),
        (["import", "/nowhere/chats.jsonl"], "/nowhere/chats.jsonl cannot be read"),
    ],
)
def test_a_wrong_use_is_one_sentence(capsys, words, reason):
    assert reason in refused(capsys, *words)


def test_a_beginning_that_several_chats_share(capsys):
    store = Store.open()
    ids = [store.create().id for _ in range(17)]  # two of them begin alike
    store.close()
    shared = next(each[0] for each in ids if sum(other[0] == each[0] for other in ids) > 1)
    assert "write more of the id" in refused(capsys, "export", shared)


def test_a_wrong_row_is_named(capsys, tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"messages": []}\n')
    assert f"{file}:1: there is no message in this chat; nothing was imported" in refused(
        capsys, "import", str(file)
    )


def test_a_damaged_database_is_said_and_listing_goes_on(capsys, macllm_home):
    macllm_home.mkdir()
    (macllm_home / "chats.db").write_text("no database " * 100)
    assert main(["chats", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == []
    assert "was damaged: nothing of it could be read" in err and err.count("\n") == 1


def test_a_home_that_cannot_be_written(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MACLLM_HOME", str(tmp_path / "file"))
    assert "MACLLM_HOME" in refused(capsys, code=1)


def test_it_starts_without_mlx(run_python, chats, macllm_home):
    code = """import sys; from macllm.cli.main import main
for words in (["--json"], ["search", "latent"], ["export", "--all"]): main(["chats", *words])
heavy = ("mlx", "numpy", "tokenizers", "jinja2", "textual", "huggingface_hub")
print([name for name in sys.modules if name.startswith(heavy)])"""
    assert run_python(code, MACLLM_HOME=str(macllm_home)).endswith("\n[]\n")
