"""The store for an event loop: every call of the store, in order, never on the loop's thread."""

import asyncio
import inspect
import threading
from dataclasses import replace

import pytest

from macllm.chats.async_store import AsyncStore
from macllm.chats.store import Store
from macllm.errors import InputError


@pytest.fixture
async def store():
    opened = await AsyncStore.open()
    yield opened
    await opened.close()


async def test_a_conversation_through_it(store, macllm_home):
    assert store.path == macllm_home / "chats.db" and store.set_aside is None
    chat = await store.create(model="m", system="s", title="", sampling={"top_k": 1})
    asked = await store.add(chat.id, "user", "one", parent=None)
    reply = await store.add(chat.id, "assistant", "", parent=asked.id, state="partial")
    done = replace(reply, text="two", state="complete")
    await store.save(done)
    assert await store.branch(chat.id) == [asked, done] == [await store.message(asked.id), done]
    assert await store.places(chat.id) == [(asked, 1, 1), (done, 1, 1)]
    assert await store.siblings(reply.id) == [reply.id]
    assert (await store.select(asked.id)).head == reply.id
    assert (await store.search("two"))[0].message == reply.id
    assert await store.prompts("on") == ["one"]
    assert (await store.update(chat.id, title="t")).title == "t"
    fork = await store.fork(asked.id)
    assert [each.id for each in await store.chats()] == [fork.id, chat.id]
    assert (await store.find(chat.id[:15])).id == (await store.chat(chat.id)).id
    await store.delete(fork.id)
    with pytest.raises(InputError):
        await store.chat(fork.id)
    await store.save_preset("a", "b")
    assert [preset.name for preset in await store.presets()] == ["a"]
    await store.delete_preset("a")
    assert await store.presets() == []


def test_it_has_every_call_of_the_store():
    own = {"in_memory", "together", "path", "set_aside", "salvaged"}
    for name, function in inspect.getmembers(Store, inspect.isfunction):
        if not name.startswith("_") and name not in own:
            twin = getattr(AsyncStore, name)
            assert inspect.iscoroutinefunction(twin), name
            expected = set(inspect.signature(function).parameters) - {"created"}  # an import's own
            assert set(inspect.signature(twin).parameters) == expected, name


async def test_nothing_runs_on_the_loops_thread(store):
    names = {await store.call(lambda _: threading.current_thread().name) for _ in range(5)}
    assert len(names) == 1 and threading.current_thread().name not in names


async def test_a_call_whose_caller_is_gone_still_runs(store):
    """Esc and closing a screen cancel tasks; what was to be saved is saved."""
    chat = await store.create()
    gate = threading.Event()
    blocked = asyncio.ensure_future(store.call(lambda _: gate.wait(30)))
    waiting = asyncio.ensure_future(store.add(chat.id, "user", "kept", parent=None))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await blocked
    assert [message.text for message in await store.branch(chat.id)] == ["kept"]


async def test_closing_waits_for_what_is_to_be_saved(store, macllm_home):
    other = await AsyncStore.open()
    chat = await other.create()
    adding = [asyncio.ensure_future(other.add(chat.id, "user", str(n), parent=None)) for n in range(20)]
    await asyncio.sleep(0)
    await other.close()
    await asyncio.gather(*adding)
    assert len(await store.siblings((await store.branch(chat.id))[0].id)) == 20
