"""Search over all chats: any words of a person, found in any script, newest first, shown in their place."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm.chats import rows, search
from macllm.chats.store import Store


@pytest.fixture
def store():
    opened = Store.in_memory()
    yield opened
    opened.close()


def say(store, *texts):
    """One chat a text; the ids of the messages."""
    return [store.add(store.create().id, "user", text, parent=None).id for text in texts]


def found(store, words, **limit):
    return [hit.message for hit in store.search(words, **limit)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Multi-head latent attention", "latent"),
        ("Multi-head latent attention", "LATENT multi"),  # any order, any case
        ("Multi-head latent attention", "lat att"),  # beginnings of words
        ("Multi-head latent attention", "multi-head"),
        ("def get_logits(tokens):", "logits"),
        ("def get_logits(tokens):", "get_logits("),
        ("Ein Café in Zürich", "cafe zurich"),
        ("Ein Cafe", "café"),
        ("le cafe\u0301 noir", "café"),
        ("我们讨论了注意力机制的实现", "注意"),  # two characters, inside
        ("我们讨论了注意力机制的实现", "机制 讨论"),
        ("東京タワーに行きました", "タワー"),
        ("ภาษาไทยไม่มีช่องว่าง", "ไทย"),
        ("한국어로 말해요", "한국"),
        ("Привет, мир", "прив"),
        ("नमस्ते दुनिया", "दुनिया"),
        ("Great 🎉 party", "🎉"),
        ("Great🎉party", "party 🎉"),
        ("costs 20€", "20€"),
        ("C++ and C#", "c++"),
        ('she said "stop" at once', '"stop"'),
        ("x AND y OR z NOT w NEAR v", "AND OR NOT NEAR"),
        ("q*b", "q*"),
        ("text:column", "text:column"),
        ("line one\nline two", "one two"),
    ],
)
def test_words_find_their_text(store, text, words):
    wanted, _ = say(store, text, "something else altogether")
    assert found(store, words) == [wanted]
    (hit,) = store.search(words)
    assert any(span.bold for span in hit.snippet), "the words are shown bold"
    assert store.prompts(words) == [text]


@pytest.mark.parametrize("words", ["", "  ", '"', "*", '"*" ""', "-> ( ) ^ : { }", "\x00", "\u200d", "…"])
def test_what_has_no_word_finds_nothing(store, words):
    say(store, "some text", '" * -> …')
    assert found(store, words) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [("attention", "tension"), ("attention", "attention mask"), ("注意力", "力注"), ("a party", "🎉")],
)
def test_words_that_are_not_all_there_do_not_find(store, text, words):
    say(store, text)
    assert found(store, words) == []


@given(st.text())
def test_no_words_are_syntax(words):
    """Whatever is typed is looked for, and never an error."""
    for whole in (True, False):
        query = search.query(words, whole=whole)
        if query:
            _index().execute(
                "SELECT * FROM t WHERE t MATCH ?", (query.encode("utf-8", "replace").decode(),)
            ).fetchall()


@given(st.text(min_size=1), st.text())
def test_a_snippet_is_a_part_of_the_text(text, words):
    shown = "".join(span.text for span in search.snippet(text, words)).strip("…")
    assert " ".join(shown.split()) in " ".join(text.split()) or not shown.strip()


@given(st.text(alphabet=st.characters(categories=["L", "N", "So"]), min_size=1, max_size=8))
def test_a_text_is_found_by_itself(word):
    """Index and query cut text the same way, whatever the script."""
    query = search.query(word, whole=True)
    if query:
        connection = _index()
        connection.execute("INSERT INTO t VALUES (?)", (search.spaced(word) or word,))
        assert connection.execute("SELECT count(*) FROM t WHERE t MATCH ?", (query,)).fetchone()[0] == 1


def _index():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(text, tokenize='unicode61 remove_diacritics 2')")
    return connection


def test_whole_words_come_before_beginnings_and_newest_first(store):
    old, longer, new = say(store, "the art of it", "an article", "modern art")
    assert found(store, "art") == [new, old, longer]
    assert found(store, "art", limit=2) == [new, old]
    assert found(store, "arti") == [longer]


def test_the_newest_of_many_are_found(store):
    """A common word costs no more than a rare one, and what is left out is the oldest."""
    ids = say(store, *["the same words"] * 30)
    assert found(store, "words", limit=10) == ids[::-1][:10]


def test_titles_that_a_person_gave_are_found_first(store):
    (message,) = say(store, "tell me of llamas")
    chat = store.message(message).chat
    assert [hit.role for hit in store.search("llamas")] == ["user"], "its own title is the message"
    store.update(chat, title="Ungulates 羊驼")
    (hit,) = store.search("ungul")
    assert (hit.role, hit.message, hit.chat.id) == ("title", message, chat)
    assert "".join(span.text for span in hit.snippet) == "Ungulates 羊驼"
    assert [hit.role for hit in store.search("驼")] == ["title"]
    other = store.add(chat, "assistant", "ungulates have hooves", parent=message).id
    assert [(hit.role, hit.message) for hit in store.search("ungulates")] == [
        ("title", other),
        ("assistant", other),
    ]
    store.update(chat, title="Camelids")
    assert [hit.role for hit in store.search("ungulates")] == ["assistant"]
    store.update(chat, title="")
    assert store.search("camelids") == []
    assert store.create(title="Empty").id == store.search("empty")[0].chat.id
    assert store.search("empty")[0].message == ""


def test_the_index_follows_what_is_written(store):
    (asked,) = say(store, "question")
    chat = store.message(asked).chat
    reply = store.add(chat, "assistant", "half an ans", parent=asked, state="partial")
    assert found(store, "half") == [], "a reply is found when it is done"
    from dataclasses import replace

    store.save(replace(reply, text="half an answer 注意"))
    store.save(replace(reply, text="a whole answer 注意力", state="complete"))
    assert found(store, "answer") == found(store, "意力") == [reply.id]
    assert found(store, "half") == []
    store.save(replace(reply, text="a better one", state="complete"))
    assert found(store, "answer") == [] and found(store, "better") == [reply.id]
    store.save(replace(reply, text="a better one", state="complete", thought="answer"))
    assert found(store, "better") == [reply.id]
    store.delete(chat)
    assert found(store, "better") == found(store, "question") == []
    for index in ("message_search", "title_search"):
        store._connection.execute(f"INSERT INTO {index} ({index}, rank) VALUES ('integrity-check', 1)")


def test_prompts_are_the_users_words_newest_first_each_once(store):
    chat = store.message(say(store, "one", "two", "one")[0]).chat
    store.add(chat, "assistant", "never a prompt", parent=store.chat(chat).head)
    assert store.prompts() == ["one", "two"]
    assert store.prompts(limit=1) == ["one"]
    assert store.prompts("tw") == ["two"]
    assert store.prompts("prompt") == store.prompts("***") == []


@pytest.mark.parametrize("query", [rows.MESSAGES, rows.TITLES])
def test_a_search_reads_the_index_from_its_new_end(store, query):
    plan = [row["detail"] for row in store._connection.execute(f"EXPLAIN QUERY PLAN {query}", ("x", 50))]
    scanned = [step for step in plan if step.startswith("SCAN")]
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    assert all("VIRTUAL TABLE INDEX" in step or "found" in step for step in scanned), plan


def test_a_snippet_shows_the_first_place_on_one_line():
    text = "word " * 100 + "here\n  is Métal code " + "and " * 100
    spans = search.snippet(text, "metal")
    line = "".join(span.text for span in spans)
    assert [span.text for span in spans if span.bold] == ["Métal"]
    assert line.startswith("…word") and line.endswith("and…") and "here is Métal code" in line
    assert len(line) < 200
    assert search.snippet("short", "nothing") == (("short", False),)
    assert search.snippet("", "x") == ()
    assert [span.text for span in search.snippet("İstanbul ve ANKARA", "ankara") if span.bold] == ["ANKARA"]
    assert not [span for span in search.snippet("capital", "api") if span.bold], "only where words begin"
