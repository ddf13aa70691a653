"""Moments of an engine's life as the events that lead to them, for the tests of what shows figures."""

from dataclasses import replace

from textual.app import App, ComposeResult
from textual.widget import Widget

from macllm.engine.events import Done, Event, Failed, Loading, Machine, Prefill, Ready, Stats, Token
from macllm.engine.metrics import Metrics
from macllm.engine.request import Sampling
from macllm_tui import themes
from macllm_tui.settings import Settings

WRITING = Metrics(
    load_s=1.2,
    prompt_tokens=2048,
    reused_tokens=1812,
    prefill_s=0.32,
    prefill_tps=512.3,
    ttft_s=0.41,
    decode_tokens=412,
    decode_s=5.8,
    decode_tps=70.94,
    recent_tps=71.32,
    step_ms_p50=14.0,
    step_ms_p99=19.2,
    thinking_tokens=88,
    thinking_s=4.21,
    draft_tested=100,
    draft_accepted=78,
    draft_rounds=34,
    context_tokens=2460,
    max_context=32768,
    memory_bytes=7_100_000_000,
    peak_memory_bytes=9_900_000_000,
    memory_limit_bytes=18_000_000_000,
    memory_pressure="normal",
    kv_bytes=212_000_000,
    kv_by_kind={"full": 180_000_000, "sliding": 32_000_000},
    dtype="bfloat16",
    backend="metal",
)
PLAIN = replace(  # no cache, no drafts, no thinking, and a system that says nothing of its memory
    WRITING,
    reused_tokens=0,
    ttft_s=0.32,
    thinking_tokens=0,
    thinking_s=0.0,
    draft_tested=0,
    draft_accepted=0,
    draft_rounds=0,
    memory_pressure="",
    kv_by_kind={"full": 212_000_000},
)
MACHINE = Machine("metal", "Apple M2", 24_000_000_000, 18_000_000_000, "bfloat16")
READY = Ready("qwen3-8b", 32768, Sampling(), True, "model", True, "ab", 1.2, 4_400_000_000)
STEPS = (14.0,) * 9 + (28.0,)

NOTHING: tuple[Event, ...] = (MACHINE,)
LOADING: tuple[Event, ...] = (*NOTHING, Loading("qwen3-8b", 1_200_000_000, 4_400_000_000))
LOADED: tuple[Event, ...] = (*LOADING, READY)
READING: tuple[Event, ...] = (*LOADED, Prefill(1812, 2048, 1812), Prefill(1900, 2048, 1812))
DECODING: tuple[Event, ...] = (*READING, Prefill(2048, 2048, 1812), Token(1, "x"), Stats(WRITING, STEPS))
FINISHED: tuple[Event, ...] = (*DECODING, Done("stop", "", WRITING))
STOPPED: tuple[Event, ...] = (*DECODING, Done("cancelled", "", WRITING))
DIED: tuple[Event, ...] = (*DECODING, Failed("The engine stopped: killed", 1, "EngineDied"))
REFUSED: tuple[Event, ...] = (*READING, Failed("the prompt is too long", 2, "ContextError"))


class Shows(App[None]):
    """One widget on an empty screen, with settings as the app has them."""

    def __init__(self, widget: Widget, settings: Settings | None = None) -> None:
        super().__init__(**themes.app_arguments())
        self.settings = settings or Settings()
        self.widget = widget

    def compose(self) -> ComposeResult:
        yield self.widget

    def on_mount(self) -> None:
        themes.install(self, self.settings.theme)


def lines_of(widget: Widget) -> list[str]:
    """What a widget shows, line by line, without the spaces at the ends."""
    shown = widget.render_lines(widget.outer_size.region)
    return ["".join(segment.text for segment in line).rstrip() for line in shown]


async def shown(
    widget: Widget, width: int, height: int, *, settings: Settings | None = None, feed=()
) -> list[str]:
    """What a widget shows after some events."""
    app = Shows(widget, settings)
    async with app.run_test(size=(width, height)) as pilot:
        for event in feed:
            widget.feed(event)
        widget.refresh()
        await pilot.pause()
        return lines_of(widget)
