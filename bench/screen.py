"""What the app costs: beside its engine, on its event loop, at its start, and with many chats in its store."""

import asyncio
import fcntl
import os
import pty
import select
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from textual.pilot import Pilot

from bench.processes import macllm_command
from bench.rows import Row, Target
from bench.settings import Settings
from bench.worker import ROOT, environment_with
from macllm.chats.store import Store
from macllm.engine.events import Done, Event, Machine, Prefill, Ready, Stats, Token
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Generate, Load, ModelRef, Request
from macllm.engine.recording import Exchange, Recording, ReplayEngine
from macllm.engine.request import Sampling
from macllm.engine.stream import Batch
from macllm.tokenizer.messages import Message
from macllm_tui.app import MacllmApp
from macllm_tui.bench import SIZE, loop_lag, measure, rank
from macllm_tui.home import RecordedHome
from macllm_tui.model_refs import resolve
from macllm_tui.settings import Settings as AppSettings

TOKENS, RATE = 8000, 200  # of the simulated engine: tokens, tokens a second
LONG_CHAT, MANY_CHATS = 500, 10_000
_MODEL = ModelRef("simulated", "simulated")
_WORDS = "The keeper counted waves and wrote **each** of them into `log.py`, one line a wave. ".split(" ")
_PATIENCE_S = 60.0


def measure_app(settings: Settings, say: Callable[[str], None]) -> Iterator[Row]:
    """All rows of the app."""
    say("the app beside its engine")
    model = resolve(str(settings.model))
    cost = measure(model, tokens=settings.decode_tokens * 4, rounds=settings.repeats + 2)
    yield Row(
        "app",
        "decode with the app",
        "tok/s",
        cost.app_runs,
        "engine alone",
        cost.engine_runs,
        Target("ratio", at_least=0.97),
    )
    tokens = 400 if settings.quick else TOKENS
    for kind in ("prose", "code"):
        say(f"event loop, {tokens} tokens of {kind}")
        figure = f"event loop late, p99, {tokens} tokens of {kind} at {RATE} tok/s"
        lag = lag_ms(tokens, kind)
        yield Row("app", figure, "ms", (lag,), target=Target("value", at_most=50))
    say("chats")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chats.db"
        fill(path, 500 if settings.quick else MANY_CHATS)
        samples = tuple(opening_ms(path) for _ in range(settings.repeats))
        yield Row(
            "app", f"a chat of {LONG_CHAT} messages opens", "ms", samples, target=Target("value", at_most=500)
        )
        figure = f"search in {MANY_CHATS:,} chats"
        yield Row("app", figure, "ms", searching_ms(path), target=Target("value", at_most=50))
    say("start to the prompt")
    samples = tuple(start_s(settings.model) for _ in range(settings.process_repeats + 1))[1:]
    yield Row("app", "start to a key shown in the prompt", "s", samples, target=Target("value", at_most=0.6))


def lag_ms(tokens: int, kind: str) -> float:
    """The 99th percentile of the event loop's lateness while a simulated engine writes ``tokens``."""
    return asyncio.run(_lag(tokens, kind))


async def _lag(tokens: int, kind: str) -> float:
    request = Generate(_MODEL, (Message.of("user", "Write."),))
    engine = ReplayEngine(Recording(_machine(), _exchanges(request, tokens, kind)), pace="recorded")
    lags: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        app = _app(engine, Path(folder) / "chats.db")

        async def drive(pilot: Pilot[object]) -> None:
            await app.begun.wait()
            with loop_lag(lags):
                await app.chat_screen.start(await app.conversation.say("Write."), appended=True)
                while app.conversation.replies:
                    await asyncio.sleep(0.1)
            await app.leave()

        await app.run_async(headless=True, size=SIZE, auto_pilot=drive)
    return rank(sorted(lags), 0.99)


def _exchanges(request: Request, tokens: int, kind: str) -> tuple[Exchange, ...]:
    """A load and a reply, in batches as the engine's process sends them."""
    words = ["```python\n", *("x = 1\n" if n % 4 == 3 else "value " for n in range(tokens - 2)), "```\n"]
    if kind == "prose":
        words = [f"{_WORDS[n % len(_WORDS)]} " + ("\n\n" if n % 90 == 89 else "") for n in range(tokens)]
    batches: list[tuple[float, Batch]] = [(0.0, (Prefill(12, 12, 0),))]
    each = RATE // 30  # tokens of 33 ms
    for first in range(0, tokens, each):
        events: list[Event] = [Token(number, word) for number, word in enumerate(words[first : first + each])]
        if first % (each * 4) == 0:  # about 8 times a second
            events.append(Stats(_metrics(first), (1000 / RATE,) * each * 4))
        batches.append((first / RATE, tuple(events)))
    batches.append((tokens / RATE, (Done("length", "", _metrics(tokens)),)))
    ready = Ready("simulated", 32768, Sampling(), True, "model", False, "0", 0.0, 0)
    return (Exchange(Load(_MODEL), ((0.0, (ready,)),)), Exchange(request, tuple(batches)))


def _metrics(tokens: int) -> Metrics:
    return Metrics(decode_tokens=tokens, decode_tps=float(RATE), recent_tps=float(RATE))


def _machine() -> Machine:
    return Machine("cpu", "simulated", 16 * 2**30, 12 * 2**30, "float32")


def _app(engine: ReplayEngine, chats: Path) -> MacllmApp:
    return MacllmApp(engine, AppSettings(), chats=chats, home=RecordedHome(_MODEL))


def fill(path: Path, chats: int) -> None:
    """A store of many chats, the last of them long."""
    store = Store.open(path)
    with store.together():
        for number in range(chats):
            chat = store.create(model="simulated")
            parent = None
            size = LONG_CHAT if number == chats - 1 else 2
            for turn in range(size):
                text = f"Message {turn} of chat {number} about wave {number % 997}. " + " ".join(_WORDS)
                role = "assistant" if turn % 2 else "user"
                parent = store.add(chat.id, role, text, parent=parent).id
    store.close()


def opening_ms(path: Path) -> float:
    """From asking for the longest chat to the screen that shows it."""
    return asyncio.run(_opening(path))


async def _opening(path: Path) -> float:
    engine = ReplayEngine(Recording(_machine(), ()), pace="instant")
    app = MacllmApp(engine, AppSettings(), chats=path, home=RecordedHome(None))
    found: list[float] = []

    async def drive(pilot: Pilot[object]) -> None:
        await app.begun.wait()
        chat = max(await app.store.chats(), key=lambda one: one.messages)
        start = time.perf_counter()
        await app.chat_screen.open_chat(chat.id)
        await pilot.pause()
        found.append((time.perf_counter() - start) * 1e3)
        await app.leave()

    await app.run_async(headless=True, size=SIZE, auto_pilot=drive)
    return found[0]


def searching_ms(path: Path) -> tuple[float, ...]:
    """Searches of several kinds in the store."""
    store = Store.open(path)
    samples = []
    for words in ("wave 41", "keeper", "log.py", "message 499", "nothing-like-this"):
        start = time.perf_counter()
        store.search(words)
        samples.append((time.perf_counter() - start) * 1e3)
    store.close()
    return tuple(samples)


def start_s(model: Path) -> float:
    """From starting the process to a typed character on its screen, in a pseudo-terminal."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
    with tempfile.TemporaryDirectory() as home:
        environment = environment_with({"TERM": "xterm-256color", "MACLLM_HOME": home})
        start = time.perf_counter()
        process = subprocess.Popen(
            [*macllm_command(), "chat", str(model)],
            stdin=child,
            stdout=child,
            stderr=child,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        os.close(child)
        try:
            _read_until(parent, b"sk something")  # of an empty prompt; the cursor covers the first letter
            os.write(parent, "ŵ".encode())
            _read_until(parent, "ŵ".encode())
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
            os.close(parent)


def _read_until(terminal: int, wanted: bytes) -> None:
    seen, end = b"", time.monotonic() + _PATIENCE_S
    while wanted not in seen:
        if time.monotonic() > end:
            raise TimeoutError(f"the terminal never showed {wanted!r}; at last: {seen[-200:]!r}")
        ready, _, _ = select.select([terminal], [], [], 0.1)
        if ready:
            seen += os.read(terminal, 65536)
