"""Engines that say what a test wants, as recordings, and the app around them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from macllm.engine.events import Counted, Done, Failed, Machine, Prefill, Ready, Stats, Token
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Count, Generate, Load, ModelRef
from macllm.engine.recording import Exchange, Recording, ReplayEngine
from macllm.engine.request import Sampling
from macllm.engine.stream import Batch
from macllm_tui.app import MacllmApp, Start
from macllm_tui.home import RecordedHome
from macllm_tui.settings import Settings

MODEL = ModelRef("tiny", "/models/tiny")
MACHINE = Machine("cpu", "test", 16_000_000_000, 12_000_000_000, "float32")
READY = Ready("tiny", 1000, Sampling(temperature=0.5), True, "model", False, "0123", 0.1, 1_000_000)
NOON = datetime(2026, 1, 15, 12, 0)


def metrics(tokens: int, **more: Any) -> Metrics:
    """Figures of a reply of so many tokens."""
    values: dict[str, Any] = {
        "prompt_tokens": 20,
        "prefill_s": 0.1,
        "ttft_s": 0.12,
        "decode_tokens": tokens,
        "decode_tps": 50.0,
        "recent_tps": 51.0,
        "context_tokens": 20 + tokens,
        "max_context": 1000,
        "memory_limit_bytes": 12_000_000_000,
    }
    return Metrics(**{**values, **more})


def words(text: str) -> list[Token]:
    """A text as tokens, a word each."""
    parts = text.replace(" ", " \0").split("\0")
    return [Token(number, part) for number, part in enumerate(parts)]


def reply(text: str, *, thought: str = "", reason: Any = "stop", **figures: Any) -> tuple[Batch, ...]:
    """The events of a whole reply, a batch for each word."""
    said = words(text)
    thoughts = [Token(0, "", thought=token.text) for token in words(thought)] if thought else []
    done = metrics(len(said), **figures)
    return (
        (Prefill(0, 20, 0),),
        (Prefill(20, 20, 0),),
        *((token,) for token in (*thoughts, *said)),
        (Stats(done, (20.0,) * len(said)),),
        (Done(reason, "", done),),
    )


def failure(message: str, kind: str, after: str = "") -> tuple[Batch, ...]:
    """The events of a reply that fails, after some words."""
    return (*((token,) for token in (words(after) if after else ())), (Failed(message, 1, kind),))


def recording(*replies: tuple[Batch, ...], counts: int = 60) -> Recording:
    """A load, these replies, and answers to counts."""

    def exchange(request: Any, batches: Sequence[Batch]) -> Exchange:
        return Exchange(request, tuple((0.01 * number, batch) for number, batch in enumerate(batches)))

    count = exchange(Count(MODEL, (), ""), ((Counted(3, 23),),))
    return Recording(
        MACHINE,
        (
            *(exchange(Load(MODEL), ((READY,),)) for _ in range(4)),
            *(exchange(Generate(MODEL, ()), batches) for batches in replies),
            *(count for _ in range(counts)),
        ),
    )


class Gate:
    """A clock that a test drives: the engine goes on as far as it is let."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self.held = False

    async def sleep(self, seconds: float) -> None:
        """Waits while the gate is held, whatever the seconds."""
        if self.held and seconds > 0:
            await self._open.wait()
        await asyncio.sleep(0)

    def hold(self) -> None:
        """From here on nothing more comes."""
        self.held = True
        self._open.clear()

    def release(self) -> None:
        """Everything that was held comes."""
        self.held = False
        self._open.set()


@asynccontextmanager
async def opened(
    chats: Path,
    *replies: tuple[Batch, ...],
    engine: Any = None,
    size: tuple[int, int] = (120, 40),
    settings: Settings | None = None,
    start: Start | None = None,
    model: ModelRef | None = MODEL,
    app_type: Callable[..., MacllmApp] = MacllmApp,
) -> AsyncIterator[tuple[MacllmApp, Pilot[None]]]:
    """The app on a chat file, its engine saying ``replies``; the model is loaded."""
    engine = engine or ReplayEngine(recording(*replies), pace="instant")
    app = app_type(
        engine, settings or Settings(), start, chats=chats, home=RecordedHome(model), clock=lambda: NOON
    )
    async with app.run_test(size=size) as pilot:
        await app.begun.wait()
        await pilot.pause()
        yield app, pilot
        for running in list(app.conversation.replies.values()):
            running.stop()
        if app._store is not None:
            await app._store.close()


async def say(app: MacllmApp, pilot: Pilot[None], text: str) -> None:
    """Types a message, sends it and waits for the whole reply."""
    app.chat_screen.prompt.text = text
    await pilot.press("enter")
    await until(pilot, lambda: not app.chat_screen.prompt.text)
    await until(pilot, lambda: not app.conversation.replies)


async def until(pilot: Pilot[None], holds: Callable[[], object], patience_s: float = 20.0) -> None:
    """Waits for a condition; fails when it does not come."""
    async with asyncio.timeout(patience_s):
        while not holds():
            await pilot.pause()
            await asyncio.sleep(0.01)
    await pilot.pause()


def texts(app: MacllmApp) -> list[str]:
    """The messages of the branch shown."""
    return [message.text for message in app.conversation.branch]


def shown(app: MacllmApp) -> str:
    """The screen as text."""
    from macllm_tui.replay import screen_text

    return screen_text(app)
