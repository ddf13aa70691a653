"""One reply being written: takes the engine's events, keeps what came and saves it as it comes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from macllm.chats.async_store import AsyncStore
from macllm.chats.records import State, StoredMessage
from macllm.engine.events import Done, Failed, FinishReason, Notice, Ready, Token, Trimmed
from macllm.engine.metrics import Metrics
from macllm.engine.stream import Batch, Stream
from macllm.errors import InputError, MacllmError

SAVE_EVERY_S = 1.0  # what a crash of the app itself may lose
_STATES: Mapping[FinishReason, State] = {"stop": "complete", "length": "length", "cancelled": "stopped"}


@dataclass(frozen=True)
class Update:
    """What a batch of events added to a reply; ``drafted`` are spans of ``text`` that were drafted and accepted."""

    events: Batch
    text: str = ""
    thought: str = ""
    drafted: tuple[tuple[int, int], ...] = ()


class Reply:
    """A reply under way. ``message`` is what there is of it, ``listener`` takes each batch; both may change hands.

    ``unsaved`` says why the store could not keep all of it, and ``deleted`` that its chat is gone, so nobody waits
    for it any more.
    """

    def __init__(self, store: AsyncStore, message: StoredMessage, stream: Stream) -> None:
        self.message = message
        self.listener: Callable[[Update], None] | None = None
        self.failure: Failed | None = None
        self.trimmed = 0
        self.notices: tuple[str, ...] = ()
        self.unsaved = ""
        self.deleted = False
        self._store = store
        self._stream = stream

    def stop(self) -> None:
        """Ends it within a step; what came stays."""
        self._stream.cancel()

    async def run(self) -> StoredMessage:
        """Takes the stream to its end, whatever the store says; returns the finished message, which is saved."""
        saved = time.monotonic()
        try:
            async for batch in self._stream:
                self._take(batch)
                if time.monotonic() - saved >= SAVE_EVERY_S:
                    saved = time.monotonic()
                    await self._save()
        finally:  # also where the app is closed in the middle
            if self.message.state == "partial":
                self.message = replace(self.message, state="stopped")
            await self._save()
        return self.message

    async def _save(self) -> None:
        if self.deleted:
            return
        try:
            await self._store.save(self.message)
            self.unsaved = ""
        except InputError:
            self.deleted = True
            self.stop()
        except MacllmError as error:  # the next save may come through
            self.unsaved = str(error)

    def _take(self, batch: Batch) -> None:
        text: list[str] = []
        thought: list[str] = []
        drafted: list[tuple[int, int]] = []
        length = 0
        for event in batch:
            if isinstance(event, Token | Done):
                if isinstance(event, Token) and event.drafted and event.text:
                    drafted.append((length, length + len(event.text)))
                length += len(event.text)
                text.append(event.text)
                thought.append(event.thought)
            self._note(event)
        update = Update(batch, "".join(text), "".join(thought), tuple(drafted))
        self.message = replace(
            self.message,
            text=self.message.text + update.text,
            thought=self.message.thought + update.thought,
        )
        if self.listener is not None:
            self.listener(update)

    def _note(self, event: object) -> None:
        """What an event says of the whole reply."""
        if isinstance(event, Ready):
            self.message = replace(self.message, model=event.model, model_hash=event.hash)
        elif isinstance(event, Trimmed):
            self.trimmed = event.messages
        elif isinstance(event, Notice):
            self.notices += (event.message,)
        elif isinstance(event, Done):
            self._end(_STATES[event.reason], event.metrics)
        elif isinstance(event, Failed):
            self.failure = event
            self._end("failed", self.message.metrics, event.message)

    def _end(self, state: State, metrics: Metrics | None, error: str = "") -> None:
        thought_s = metrics.thinking_s if metrics is not None else 0.0
        self.message = replace(
            self.message,
            state=state,
            metrics=metrics,
            error=error,
            thought_s=self.message.thought_s + thought_s,
        )
