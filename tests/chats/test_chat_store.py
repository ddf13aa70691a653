"""What the conversation store keeps: chats, trees of messages, presets; nothing is overwritten."""

import itertools
from dataclasses import replace

import pytest

from macllm.chats.records import StoredMessage
from macllm.chats.store import TITLE_LENGTH, Store
from macllm.engine.metrics import Metrics
from macllm.errors import InputError

FIGURES = Metrics(prompt_tokens=7, decode_tokens=3, decode_tps=71.3, ttft_s=0.41, dtype="float32")


@pytest.fixture
def store():
    opened = Store.open()
    yield opened
    opened.close()


def talk(store, *texts, **chat):
    """A chat with these messages, user and assistant in turn; their ids."""
    made = store.create(**chat)
    ids, parent = [], None
    for text, role in zip(texts, itertools.cycle(("user", "assistant")), strict=False):
        parent = store.add(made.id, role, text, parent=parent).id
        ids.append(parent)
    return made.id, ids


def texts(messages):
    return [message.text for message in messages]


def test_what_was_said_is_there_on_the_next_start(store):
    chat = store.create(model="m", system="be brief", sampling={"temperature": 0.7, "stop": ["x"]})
    asked = store.add(chat.id, "user", "why?", parent=None)
    reply = store.add(
        chat.id,
        "assistant",
        "because\n\nof it",
        parent=asked.id,
        thought="hm",
        thought_s=4.2,
        model="m",
        model_hash="abc",
        sampling={"top_k": 3},
        seed=2**64 - 1,
        metrics=FIGURES,
        state="length",
    )
    store.close()
    again = Store.open()
    assert again.branch(chat.id) == [asked, reply]
    assert again.message(reply.id) == reply
    found = again.chat(chat.id)
    assert (found.model, found.system, found.sampling) == (
        "m",
        "be brief",
        {"temperature": 0.7, "stop": ["x"]},
    )
    assert (found.head, found.messages, found.title) == (reply.id, 2, "why?")
    again.close()


@pytest.mark.parametrize(
    "text", ["", " \n", "a\x00b", "é🎉中文\u2028", "'; DROP TABLE chats; --", "x" * 1_000_000]
)
def test_any_text_comes_back_as_it_was(store, text):
    chat, (_asked, reply) = talk(store, text, text)
    store.save(replace(store.message(reply), thought=text, error=text))
    assert texts(store.branch(chat)) == [text, text]
    assert (store.message(reply).thought, store.message(reply).error) == (text, text)


def test_half_a_character_is_kept_as_a_question_mark(store):
    _chat, (asked,) = talk(store, "caf\udce9")  # what a terminal in another encoding brings in
    assert store.message(asked).text == "caf?"
    assert store.search("caf\udce9") == store.search("caf")


def test_an_edit_and_another_reply_stand_beside_the_first(store):
    chat, (first, reply) = talk(store, "one", "reply to one")
    again = store.add(chat, "assistant", "another reply", parent=first).id
    edited = store.add(chat, "user", "two", parent=None).id
    answer = store.add(chat, "assistant", "reply to two", parent=edited).id
    assert texts(store.branch(chat)) == ["two", "reply to two"]
    assert store.siblings(reply) == store.siblings(again) == [reply, again]
    assert store.siblings(first) == store.siblings(edited) == [first, edited]
    assert store.select(first).head == again, "down to the newest end of that branch"
    assert texts(store.branch(chat)) == ["one", "another reply"]
    assert store.select(answer).messages == 2
    assert store.select(reply).head == reply


def test_places_are_what_siblings_and_branch_say(store):
    chat, (first, reply, second) = talk(store, "one", "a", "two")
    store.add(chat, "assistant", "b", parent=first)
    store.add(chat, "user", "another two", parent=reply)
    store.select(second)
    expected = []
    for message in store.branch(chat):
        beside = store.siblings(message.id)
        expected.append((message, beside.index(message.id) + 1, len(beside)))
    assert store.places(chat) == expected
    assert [place for _, *place in expected] == [[1, 1], [1, 2], [1, 2]]
    assert store.places(store.create().id) == []


def test_save_replaces_what_changes_and_nothing_else(store):
    chat, (_asked, reply) = talk(store, "one", "")
    before = store.message(reply)
    changed = replace(
        before,
        text="new",
        thought="t",
        thought_s=1.5,
        metrics=FIGURES,
        state="failed",
        error="e",
        seed=5,
        model="n",
    )
    store.save(replace(changed, role="user", parent=None, created="never"))
    assert store.message(reply) == changed
    assert store.chat(chat).updated >= changed.created
    with pytest.raises(InputError, match="no message"):
        store.save(replace(before, id="gone"))


def test_a_fork_is_a_copy_up_to_the_message(store):
    chat, ids = talk(store, "one", "a", "two", "b", system="s", model="m", title="Talk")
    store.update(chat, summary="so far", summary_until=ids[1], overflow="summarise", sampling={"top_k": 2})
    store.save(replace(store.message(ids[1]), metrics=FIGURES, thought="hm", state="partial"))
    fork = store.fork(ids[1])
    copied = store.branch(fork.id)
    assert texts(copied) == ["one", "a"]
    assert copied[1].state == "stopped", "nobody writes the copy"
    assert (copied[1].metrics, copied[1].thought) == (FIGURES, "hm")
    assert (fork.title, fork.system, fork.model, fork.sampling) == ("Talk (fork)", "s", "m", {"top_k": 2})
    assert (fork.overflow, fork.summary, fork.summary_until) == ("summarise", "so far", copied[1].id)
    assert store.chats()[0].id == fork.id, "what is worked on now comes first"
    store.add(fork.id, "user", "elsewhere", parent=copied[1].id)
    assert texts(store.branch(chat)) == ["one", "a", "two", "b"]
    assert store.fork(ids[0]).summary == "", "what is summarised is not in this one"


def test_chats_come_last_used_first_in_pages(store):
    made = [talk(store, f"chat {number}")[0] for number in range(5)]
    assert [chat.id for chat in store.chats()] == made[::-1]
    assert [chat.id for chat in store.chats(2, 1)] == made[::-1][1:3]
    store.update(made[0], title="renamed", model="m")
    assert store.chats()[0].id == made[4], "a new name is nothing said"
    store.add(made[0], "assistant", "hello", parent=store.chat(made[0]).head)
    assert store.chats()[0].id == made[0]


def test_a_title_is_what_was_said_beside_an_attached_file(store):
    block = "```file:notes.txt\none\ntwo\n```"
    for said, title in (
        (f"{block}\nWhat is this?", "What is this?"),
        (f"Look:\n{block}", "Look:"),
        (block, "notes.txt"),
        (f"{block}\n{block}", "notes.txt notes.txt"),
        ("```file:notes.txt\none", "```file:notes.txt one"),
        ("```python\nx\n```", "```python x ```"),
    ):
        chat = store.create()
        store.add(chat.id, "user", said, parent=None)
        assert store.chat(chat.id).title == title


def test_a_title_is_the_first_thing_said_until_a_person_gives_one(store):
    long = (
        "Explain, in the words of a patient teacher, multi-head latent attention and why its cache is small"
    )
    chat, ids = talk(store, f"  {long}\nplease  ", "no")
    title = store.chat(chat).title
    assert title.endswith("…") and len(title) <= TITLE_LENGTH
    assert long.startswith(title.removesuffix("…")) and long[len(title) - 1] in " ,", "cut at a word"
    store.add(chat, "user", "other", parent=ids[1])
    assert store.chat(chat).title == title
    assert store.update(chat, title=" Mine ").title == "Mine"
    store.add(chat, "user", "edited first", parent=None)
    assert store.chat(chat).title == "Mine"
    assert store.update(chat, title="").title == title, "an empty one goes back"
    assert len(store.chat(talk(store, "x" * 200)[0]).title) == TITLE_LENGTH


def test_deleting_a_long_chat_leaves_the_others(store):
    """Parents reach far deeper than SQLite lets cascades go."""
    chat, ids = talk(store, *["word"] * 1500)
    other, (kept,) = talk(store, "another word")
    store.delete(chat)
    assert [each.id for each in store.chats()] == [other]
    assert [hit.message for hit in store.search("word")] == [kept]
    for call in (store.chat, store.branch, store.delete, store.update):
        with pytest.raises(InputError, match="macllm chats"):
            call(chat)
    for call in (store.message, store.siblings, store.select, store.fork):
        with pytest.raises(InputError, match=ids[0]):
            call(ids[0])


def test_a_message_goes_into_its_own_chat(store):
    _chat, (asked,) = talk(store, "one")
    other, _ = talk(store, "two")
    with pytest.raises(InputError, match="no message"):
        store.add(other, "user", "three", parent=asked)
    with pytest.raises(InputError, match="no chat"):
        store.add("gone", "user", "three", parent=None)
    assert store.chat(other).messages == 1


def test_only_what_a_chat_has_can_be_updated(store):
    chat = store.create().id
    with pytest.raises(TypeError, match="head"):
        store.update(chat, head="x")


def test_an_id_may_be_the_beginning_of_one(store):
    chats = {talk(store, str(number))[0] for number in range(40)}
    one = next(iter(chats))
    assert store.find(one).id == one
    unique = next(one[:n] for n in range(1, 17) if sum(each.startswith(one[:n]) for each in chats) == 1)
    assert store.find(unique).id == one
    shared = next(one[:n] for n in range(17) if sum(each.startswith(one[:n]) for each in chats) > 1)
    if shared:
        with pytest.raises(InputError, match="several chats"):
            store.find(shared)
    for nothing in ("", "zz", "%", "_"):
        with pytest.raises(InputError, match="no chat"):
            store.find(nothing)


def test_presets_are_kept_by_name(store):
    store.save_preset("coder", "You write Python.")
    store.save_preset("Brief", "Be brief.")
    store.save_preset("coder", "You write C.")
    assert [(preset.name, preset.text) for preset in store.presets()] == [
        ("Brief", "Be brief."),
        ("coder", "You write C."),
    ]
    store.delete_preset("Brief")
    assert [preset.name for preset in store.presets()] == ["coder"]
    with pytest.raises(InputError, match="'Brief'"):
        store.delete_preset("Brief")
    with pytest.raises(InputError, match="name"):
        store.save_preset("  ", "x")


def test_several_calls_together_are_kept_or_lost_together(store):
    def add_two():
        with store.together():
            talk(store, "one")
            raise ValueError

    with pytest.raises(ValueError):
        add_two()
    assert store.chats() == [] and store.search("one") == []
    with store.together():
        chat, _ = talk(store, "two")
    assert store.chat(chat).messages == 1


def test_a_500_message_branch_is_read_by_ids_only(store):
    from macllm.chats import rows

    for sql in (rows.BRANCH, rows.PLACES):
        plan = plan_of(store, sql, "x")
        assert not [step for step in plan if step.startswith("SCAN") and "up" not in step], plan


def test_lists_and_siblings_come_from_an_index(store):
    from macllm.chats import rows

    listed = plan_of(store, f"{rows.CHAT} ORDER BY c.updated DESC, c.number DESC LIMIT 200")
    assert "SCAN c USING INDEX chats_by_update" in listed
    assert not [step for step in listed if "TEMP B-TREE" in step]
    sql = "SELECT id FROM messages WHERE chat = ? AND parent IS ? AND role = ? ORDER BY number"
    assert plan_of(store, sql, "x", None, "user") == [
        "SEARCH messages USING INDEX messages_by_place (chat=? AND parent=?)"
    ]
    assert "messages_by_parent" in str(plan_of(store, "SELECT id FROM messages WHERE parent = ?", "x"))
    partial = plan_of(store, "SELECT id, writer, saved FROM messages WHERE state = 'partial'")
    assert partial == ["SCAN messages USING INDEX messages_partial"]


def plan_of(store, sql, *values):
    found = store._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
    return [row["detail"] for row in found]


def test_a_figure_that_a_newer_macllm_kept_is_passed_over(store):
    _chat, (asked,) = talk(store, "one")
    store._connection.execute("""UPDATE messages SET metrics = '{"decode_tps": 2.0, "joules": 3}'""")
    assert store.message(asked).metrics == Metrics(decode_tps=2.0)


def test_records_are_plain_and_complete(store):
    """Every field of a message is a column: none is lost on the way."""
    chat, (asked,) = talk(store, "one")
    message = StoredMessage(
        asked, chat, None, "user", "t", "th", 1.0, store.message(asked).created, "m", "h", {"a": 1}, 3, FIGURES,
        "stopped", "e",
    )  # fmt: skip
    store.save(message)
    assert store.message(asked) == message
