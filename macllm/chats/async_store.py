"""The store for an event loop: the same calls, awaitable, all on one thread of its own."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from macllm.chats.records import Chat, Hit, Preset, StoredMessage
from macllm.chats.store import Store

_P = ParamSpec("_P")
_T = TypeVar("_T")


class AsyncStore:
    """A :class:`Store` whose calls never block the event loop; they run one after the other, in order.

    A call that is cancelled while it waits still runs: what was to be saved is saved.
    """

    def __init__(self, store: Store, thread: ThreadPoolExecutor) -> None:
        self._store = store
        self._thread = thread
        self.path = store.path
        self.set_aside = store.set_aside
        self.salvaged = store.salvaged

    @classmethod
    async def open(cls, path: Path | None = None) -> "AsyncStore":
        """As :meth:`Store.open`, on the thread."""
        return await cls._opened(lambda: Store.open(path))

    @classmethod
    async def in_memory(cls) -> "AsyncStore":
        """As :meth:`Store.in_memory`: for where chats cannot be kept."""
        return await cls._opened(Store.in_memory)

    @classmethod
    async def _opened(cls, opening: Callable[[], Store]) -> "AsyncStore":
        thread = ThreadPoolExecutor(1, thread_name_prefix="macllm-chats")
        try:
            store = await asyncio.get_running_loop().run_in_executor(thread, opening)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(store, thread)

    async def close(self) -> None:
        """Closes the store after the calls that are waiting."""
        await self.call(Store.close)
        self._thread.shutdown(wait=False)

    async def call(
        self, function: Callable[Concatenate[Store, _P], _T], *args: _P.args, **more: _P.kwargs
    ) -> _T:
        """Runs ``function(store, ...)`` on the thread: several calls without a way back between them."""
        future = self._thread.submit(function, self._store, *args, **more)
        # the shield keeps a call that is still in the queue from being dropped with its caller
        return await asyncio.shield(asyncio.wrap_future(future))

    async def chats(self, limit: int = 200, offset: int = 0) -> list[Chat]:
        return await self.call(Store.chats, limit, offset)

    async def chat(self, id: str) -> Chat:  # noqa: A002 (the field's name)
        return await self.call(Store.chat, id)

    async def find(self, prefix: str) -> Chat:
        return await self.call(Store.find, prefix)

    async def create(
        self,
        *,
        model: str = "",
        system: str = "",
        title: str = "",
        sampling: Mapping[str, Any] | None = None,
    ) -> Chat:
        return await self.call(Store.create, model=model, system=system, title=title, sampling=sampling)

    async def update(self, id: str, **changes: Any) -> Chat:  # noqa: A002
        return await self.call(Store.update, id, **changes)

    async def delete(self, id: str) -> None:  # noqa: A002
        await self.call(Store.delete, id)

    async def add(self, chat: str, role: str, text: str, *, parent: str | None, **more: Any) -> StoredMessage:
        return await self.call(Store.add, chat, role, text, parent=parent, **more)

    async def save(self, message: StoredMessage) -> None:
        await self.call(Store.save, message)

    async def message(self, id: str) -> StoredMessage:  # noqa: A002
        return await self.call(Store.message, id)

    async def branch(self, chat: str) -> list[StoredMessage]:
        return await self.call(Store.branch, chat)

    async def siblings(self, message: str) -> list[str]:
        return await self.call(Store.siblings, message)

    async def places(self, chat: str) -> list[tuple[StoredMessage, int, int]]:
        return await self.call(Store.places, chat)

    async def select(self, message: str) -> Chat:
        return await self.call(Store.select, message)

    async def fork(self, message: str) -> Chat:
        return await self.call(Store.fork, message)

    async def search(self, words: str, limit: int = 50) -> list[Hit]:
        return await self.call(Store.search, words, limit)

    async def prompts(self, words: str = "", limit: int = 100) -> list[str]:
        return await self.call(Store.prompts, words, limit)

    async def presets(self) -> list[Preset]:
        return await self.call(Store.presets)

    async def save_preset(self, name: str, text: str) -> None:
        await self.call(Store.save_preset, name, text)

    async def delete_preset(self, name: str) -> None:
        await self.call(Store.delete_preset, name)
