"""What the screen costs: the same reply with the app around the engine and without it, in alternation."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from macllm.engine.client import EngineClient
from macllm.engine.events import Done, Failed
from macllm.engine.protocol import Generate, Load, ModelRef
from macllm.engine.request import Limits
from macllm.engine.stream import Engine, EngineAround, Stream
from macllm.errors import MacllmError
from macllm.tokenizer.messages import Message
from macllm_tui.app import MacllmApp, Start
from macllm_tui.home import RecordedHome
from macllm_tui.settings import Settings

PROMPT = "Write a long story about a lighthouse keeper who learns to program, with some Python code in it."
SIZE = (120, 40)
_TICK_S = 0.02  # often enough to see a stall, seldom enough to be none of the load


@dataclass(frozen=True)
class ScreenCost:
    """Medians over the rounds: decode tokens a second without and with the app, and how late the event loop was."""

    engine_tps: float
    app_tps: float
    ratio: float
    loop_lag_ms_p50: float
    loop_lag_ms_p99: float
    tokens: int
    engine_runs: tuple[float, ...]
    app_runs: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def measure(model: ModelRef, *, tokens: int = 128, rounds: int = 5) -> ScreenCost:
    """Measures; the app draws to no terminal. Raises MacllmError where the model cannot be used."""
    return asyncio.run(_measure(model, tokens, rounds))


async def _measure(model: ModelRef, tokens: int, rounds: int) -> ScreenCost:
    engine = EngineClient()
    await engine.start()
    alone: list[float] = []
    inside: list[float] = []
    lags: list[float] = []
    try:
        await _finish(engine.submit(Load(model)))
        await _alone(engine, model, tokens)  # the first after a load is slower
        for _ in range(rounds):
            alone.append(await _alone(engine, model, tokens))
            inside.append(await _with_app(engine, model, tokens, lags))
    finally:
        await engine.close()
    ordered = sorted(lags)
    engine_tps, app_tps = statistics.median(alone), statistics.median(inside)
    return ScreenCost(
        engine_tps,
        app_tps,
        app_tps / engine_tps,
        rank(ordered, 0.50),
        rank(ordered, 0.99),
        tokens,
        tuple(alone),
        tuple(inside),
    )


def rank(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _settings(tokens: int) -> dict[str, Any]:
    return {"temperature": 0.0, "seed": 0, "max_tokens": tokens, "ignore_eos": True}


async def _alone(engine: Engine, model: ModelRef, tokens: int) -> float:
    limits = Limits(max_tokens=tokens, ignore_eos=True)
    settings = {"temperature": 0.0, "seed": 0}
    done = await _finish(
        engine.submit(Generate(model, (Message.of("user", PROMPT),), settings=settings, limits=limits))
    )
    assert done is not None
    return done.metrics.decode_tps


async def _finish(stream: Stream) -> Done | None:
    found: Done | None = None
    async for batch in stream:
        for event in batch:
            if isinstance(event, Failed):
                raise MacllmError(event.message)
            if isinstance(event, Done):
                found = event
    return found


async def _with_app(engine: Engine, model: ModelRef, tokens: int, lags: list[float]) -> float:
    found: list[float] = []
    with tempfile.TemporaryDirectory(prefix="macllm-bench-") as folder:
        app = MacllmApp(
            _Kept(engine),
            Settings(),
            Start(sampling=_settings(tokens)),
            chats=Path(folder) / "chats.db",
            home=RecordedHome(model),
        )

        async def drive(pilot: Pilot[object]) -> None:
            await app.begun.wait()
            with loop_lag(lags):
                reply = await app.conversation.say(PROMPT)
                await app.chat_screen.start(reply, appended=True)
                while app.conversation.replies:
                    await asyncio.sleep(0.05)
            metrics = reply.message.metrics
            if metrics is not None:
                found.append(metrics.decode_tps)
            await app.leave()

        await app.run_async(headless=True, size=SIZE, auto_pilot=drive)
    if not found:
        raise MacllmError("the app gave no reply to measure; run `macllm chat` to see why")
    return found[0]


@contextmanager
def loop_lag(lags: list[float]) -> Iterator[None]:
    """Collects how many milliseconds later than asked the event loop comes back."""

    async def watch() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(_TICK_S)
            lags.append((time.perf_counter() - start - _TICK_S) * 1e3)

    task = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    finally:
        task.cancel()


class _Kept(EngineAround):
    """An engine that outlives the app: both ways are measured on one process with one loaded model."""

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return
