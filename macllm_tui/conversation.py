"""The open conversation: what is said, edited and branched goes to the store, what is asked goes to the engine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from macllm.chats.async_store import AsyncStore
from macllm.chats.records import Chat, StoredMessage
from macllm.engine.events import Ready
from macllm.engine.protocol import Count, Generate, ModelRef
from macllm.engine.request import Limits, new_seed
from macllm.engine.stream import Engine, Stream
from macllm.errors import InputError
from macllm.tokenizer.messages import Message
from macllm_tui.prompting import SUMMARISE, messages_of, split_settings
from macllm_tui.reply import Reply
from macllm_tui.widgets.transcript import Entry

if TYPE_CHECKING:
    from macllm_tui.comparison import Kept

_SUMMARY_TOKENS = 400


class Conversation:
    """One chat on the screen. It enters the store with its first message.

    Whatever changes it is done whole before the next begins, however fast the keys come.
    """

    def __init__(self, engine: Engine, store: Callable[[], AsyncStore]) -> None:
        self._engine = engine
        self._open_store = store  # it is opened while the screen is already there
        self.model: ModelRef | None = None
        self.ready: Ready | None = None  # what the engine said of the model it holds
        self.system = ""
        self.settings: Mapping[str, Any] = {}
        self.chat: Chat | None = None
        self.entries: list[Entry] = []
        self.replies: dict[str, Reply] = {}  # under way, by chat: they go on while another chat is looked at
        self._changing = asyncio.Lock()

    @property
    def _store(self) -> AsyncStore:
        return self._open_store()

    @property
    def branch(self) -> list[StoredMessage]:
        """The messages shown, from the first to the last."""
        return [entry.message for entry in self.entries]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as the model reads it."""
        return self._messages(self.branch)

    @property
    def reply(self) -> Reply | None:
        """The reply being written in this chat."""
        return self.replies.get(self.chat.id) if self.chat is not None else None

    def require_model(self) -> ModelRef:
        """The model in use. Raises InputError where there is none."""
        if self.model is None:
            raise InputError("no model is chosen; /model chooses one")
        return self.model

    async def clear(self) -> None:
        """A new, empty chat with the same model, system prompt and settings."""
        async with self._changing:
            self.chat, self.entries = None, []

    async def open(self, chat: str, message: str | None = None) -> None:
        """Shows a stored chat, on the branch of ``message`` where that is given. Raises InputError."""
        async with self._changing:
            opened = await (self._store.select(message) if message is not None else self._store.chat(chat))
            self.system, self.settings = opened.system, opened.sampling
            await self._reload(opened)

    async def say(self, text: str, parent: str | None = None, *, branch: bool = False) -> Reply:
        """Adds a user's message and has it answered: at the end, or with ``branch`` after ``parent``."""
        async with self._at_rest():
            chat = await self._stored(self.require_model())
            if not branch:
                parent = self.entries[-1].message.id if self.entries else None
            asked = await self._store.add(chat.id, "user", text, parent=parent)
            return await self._answer(asked.id)

    async def answer(self, asked: str | None) -> Reply:
        """Has the message ``asked`` answered, in a new reply beside those that are there."""
        async with self._at_rest():
            return await self._answer(asked)

    async def _answer(self, asked: str | None) -> Reply:
        model, chat = self.require_model(), self._require_chat()
        used = self._used_settings()
        message = await self._store.add(
            chat.id, "assistant", "", parent=asked, sampling=used, state="partial", **self._written_by(model)
        )
        await self._reload(await self._store.chat(chat.id))
        return self._start(message, self.branch[:-1], used)

    async def resume(self, reply: str, text: str) -> Reply:
        """Continues a reply from ``text``, which may be an edited start of it, as a reply beside it."""
        async with self._at_rest():
            model, chat = self.require_model(), self._require_chat()
            old = await self._store.message(reply)
            used = self._used_settings()
            message = await self._store.add(
                chat.id,
                "assistant",
                text,
                parent=old.parent,
                thought=old.thought,
                thought_s=old.thought_s,
                sampling=used,
                state="partial",
                **self._written_by(model),
            )
            await self._reload(await self._store.chat(chat.id))
            return self._start(message, self.branch, used, continue_final=bool(text))

    async def retry(self, message: StoredMessage) -> Reply:
        """Has a reply that failed before its first word written again, in its place."""
        async with self._at_rest():
            used = self._used_settings()
            fresh = replace(message, state="partial", error="", sampling=used)
            await self._store.save(fresh)
            await self._reload(await self._store.chat(message.chat))
            place = next(index for index, one in enumerate(self.branch) if one.id == message.id)
            return self._start(fresh, self.branch[:place], used)

    async def keep(self, kept: "Kept") -> None:
        """Puts one side of a comparison at the end of the chat: what was asked, and its reply."""
        async with self._at_rest():
            chat = await self._stored(kept.side.model)
            parent = self.entries[-1].message.id if self.entries else None
            asked = await self._store.add(chat.id, "user", kept.prompt, parent=parent)
            await self._store.add(
                chat.id,
                "assistant",
                kept.text,
                parent=asked.id,
                thought=kept.thought,
                model=kept.side.model.name,
                sampling=dict(kept.side.settings),
                metrics=kept.metrics,
            )
            await self._reload(await self._store.chat(chat.id))

    async def finished(self, reply: Reply) -> None:
        """To be called when a reply has run: the chat's own view of it is refreshed."""
        self.replies.pop(reply.message.chat, None)
        async with self._changing:
            if self.chat is not None and self.chat.id == reply.message.chat and not reply.deleted:
                await self._reload(await self._store.chat(self.chat.id))
                if all(one.id != reply.message.id for one in self.branch):
                    # another app went on in this chat too: what is on this screen goes on from here
                    await self._reload(await self._store.select(reply.message.id))

    async def step_sibling(self, message: str, step: int) -> None:
        """Shows the branch before or after this one, as far as there is one."""
        async with self._changing:
            siblings = await self._store.siblings(message)
            place = min(max(siblings.index(message) + step, 0), len(siblings) - 1)
            await self._reload(await self._store.select(siblings[place]))

    async def fork(self, message: str) -> None:
        """Opens a new chat that starts with everything up to ``message``."""
        async with self._changing:
            await self._reload(await self._store.fork(message))

    async def change(self, **fields: Any) -> None:
        """Changes the chat's own fields: ``system``, ``sampling``, ``overflow``, ``title``, ``model``."""
        async with self._changing:
            self.system = fields.get("system", self.system)
            self.settings = fields.get("sampling", self.settings)
            if self.chat is not None:
                self.chat = await self._store.update(self.chat.id, **fields)

    def count(self, draft: str) -> Stream | None:
        """Asks how many tokens the draft has, and the prompt with it. None without a model."""
        if self.model is None:
            return None
        return self._engine.submit(Count(self.model, self._messages(self.branch), draft))

    def summarise(self) -> tuple[Stream, str] | None:
        """Asks for a summary of all but the last two turns: the stream, and the last message it covers."""
        branch = self.branch
        turns = [place for place, one in enumerate(branch) if one.role == "user"]
        if len(turns) < 3 or turns[-2] == 0:
            return None
        covered = branch[: turns[-2]]
        messages = (*messages_of(self._require_chat(), covered), Message.of("user", SUMMARISE))
        limits = Limits(max_tokens=_SUMMARY_TOKENS)
        request = Generate(
            self.require_model(), messages, settings={"temperature": 0.0}, limits=limits, overflow="drop"
        )
        return self._engine.submit(request), covered[-1].id

    @asynccontextmanager
    async def _at_rest(self) -> AsyncIterator[None]:
        """For what begins a reply: the second of two at once finds the first under way. Raises InputError."""
        async with self._changing:
            if self.reply is not None:
                raise InputError("the reply is still being written; stop it first")
            yield

    async def _stored(self, model: ModelRef) -> Chat:
        """The chat, which enters the store with its first message."""
        if self.chat is None:
            self.chat = await self._store.create(
                model=model.name, system=self.system, sampling=dict(self.settings)
            )
        return self.chat

    def _start(
        self,
        message: StoredMessage,
        before: Sequence[StoredMessage],
        used: Mapping[str, Any],
        *,
        continue_final: bool = False,
    ) -> Reply:
        chat = self._require_chat()
        settings, limits = split_settings(used)
        request = Generate(
            self.require_model(),
            self._messages(before),
            session=chat.id,
            settings=settings,
            limits=limits,
            continue_final=continue_final,
            overflow="drop" if chat.overflow == "drop" else "fail",
        )
        reply = Reply(self._store, replace(message, seed=used.get("seed")), self._engine.submit(request))
        self.replies[chat.id] = reply
        return reply

    def _messages(self, branch: Sequence[StoredMessage]) -> tuple[Message, ...]:
        chat = self.chat or Chat(id="", system=self.system)
        return messages_of(chat, branch)

    def _written_by(self, model: ModelRef) -> dict[str, str]:
        known = self.ready is not None and self.ready.model == model.name
        return {
            "model": model.name,
            "model_hash": self.ready.hash if known and self.ready is not None else "",
        }

    def _used_settings(self) -> dict[str, Any]:
        """The chat's settings with a seed drawn here, so that a reply can be had again."""
        used = dict(self.settings)
        if used.get("seed") is None:
            used["seed"] = new_seed()
        return used

    async def _reload(self, chat: Chat) -> None:
        self.chat = chat
        self.entries = [Entry(*place) for place in await self._store.places(chat.id)]

    def _require_chat(self) -> Chat:
        if self.chat is None:
            raise InputError("this chat is empty; say something first")
        return self.chat
