"""A comparison without a screen: two sides, their runs one after the other, and what differs between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from macllm.engine.events import Done, Failed, Loading, Prefill, Ready, Stats, Token
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Generate, Load, ModelRef
from macllm.engine.request import Sampling
from macllm.errors import MacllmError
from macllm.tokenizer.messages import Message
from macllm.units import size
from macllm_tui.prompting import split_settings

if TYPE_CHECKING:
    from macllm.engine.client import Engine, Stream

State: TypeAlias = Literal["waiting", "loading", "reading", "writing", "done", "length", "stopped", "failed"]
Better: TypeAlias = Literal[-1, 0, 1]  # which side is better: the left, neither, the right
SAME_WITHIN = 0.05  # of the larger: what two runs of the same thing differ by


@dataclass(frozen=True)
class Side:
    """What is compared: a model, what differs from its own sampling settings, and a name where one is given."""

    model: ModelRef
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def title(self) -> str:
        return self.name or self.model.name


@dataclass(frozen=True)
class Kept:
    """The side that was kept: what it was asked, and its reply."""

    side: Side
    prompt: str
    text: str
    thought: str = ""
    metrics: Metrics | None = None


class SideRun:
    """One side's reply: its state and all that came of it. ``listener`` hears of each batch's text and thought."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.state: State = "waiting"
        self.text = ""
        self.thought = ""
        self.metrics = Metrics()
        self.error = ""
        self.ready: Ready | None = None
        self.share = 0.0  # of the load or of the prompt
        self._stream: Stream | None = None
        self._stopped = False

    @property
    def over(self) -> bool:
        return self.state in ("done", "length", "stopped", "failed")

    def stop(self) -> None:
        """Ends it within a step, or before it began; what came stays."""
        self._stopped = True
        if self.state == "waiting":
            self.state = "stopped"
        elif self._stream is not None:
            self._stream.cancel()

    async def run(
        self, engine: "Engine", messages: Sequence[Message], seed: int, heard: Callable[[str, str], None]
    ) -> None:
        """Loads the model, then generates: the time to the first token is then the model's own."""
        self.state = "loading"
        try:
            request = request_of(self.side, messages, seed)
            if not engine.alive:
                await engine.start()
        except MacllmError as error:
            self._take(Failed(str(error), error.exit_code))
            return
        for each in (Load(request.model), request):
            if self._stopped and not self.over:
                self.state = "stopped"
            if self.over:
                return
            self._stream = engine.submit(each)
            async for batch in self._stream:
                before, thought = len(self.text), len(self.thought)
                for event in batch:
                    self._take(event)
                heard(self.text[before:], self.thought[thought:])
        if not self.over:
            self._take(Failed("the engine ended the reply without saying why", 1))

    def _take(self, event: object) -> None:
        match event:
            case Loading():
                self.share = event.done / event.total if event.total else 0.0
            case Ready():
                self.ready = event
            case Prefill():
                self.state, self.share = "reading", event.done / event.total if event.total else 0.0
            case Token():
                self.state = "writing"
                self._add(event.text, event.thought)
            case Stats():
                self.metrics = event.metrics
            case Done():
                self._add(event.text, event.thought)
                ended: dict[str, State] = {"stop": "done", "length": "length", "cancelled": "stopped"}
                self.state = ended[event.reason]
                self.metrics = event.metrics if event.metrics != Metrics() else self.metrics
            case Failed():
                self.state, self.error = "failed", event.message

    def _add(self, text: str, thought: str) -> None:
        self.text += text
        self.thought += thought


def request_of(side: Side, messages: Sequence[Message], seed: int) -> Generate:
    """What the engine is asked: without a session, so that nothing is reused and both start alike."""
    settings, limits = split_settings({"seed": seed, **side.settings})
    return Generate(side.model, tuple(messages), session="", settings=settings, limits=limits)


def in_force(side: Side, ready: Ready | None) -> dict[str, Any]:
    """The settings in force: the model's own as far as they are known, and what the side changes."""
    base = ready.sampling if ready is not None else _known(side.model.sampling)
    own = {name: getattr(base, name) for name in Sampling.__dataclass_fields__ if name != "seed"}
    return {**own, **side.settings}


def draws(side: Side, ready: Ready | None) -> bool:
    """Whether chance plays a part, so that the seed matters."""
    return float(in_force(side, ready).get("temperature") or 0) > 0


@dataclass(frozen=True)
class Row:
    """A line of the table. ``better`` is the side whose value is better, where one is."""

    name: str
    left: str
    right: str
    better: Better = 0


def differences(left: SideRun, right: SideRun, quantizations: tuple[str, str]) -> list[Row]:
    """The settings that are not the same on both sides."""
    rows = [
        Row("model", left.side.model.name, right.side.model.name),
        Row("weights", *quantizations),
        Row("computed in", left.side.model.dtype or "", right.side.model.dtype or ""),
    ]
    settings = in_force(left.side, left.ready), in_force(right.side, right.ready)
    for name in dict.fromkeys((*settings[0], *settings[1])):
        rows.append(Row(name, _shown(settings[0].get(name)), _shown(settings[1].get(name))))
    return [row for row in rows if row.left != row.right]


def measured(left: Metrics, right: Metrics) -> list[Row]:
    """The figures of both, the better one known: speed up, waiting and memory down."""
    rows = [
        _compared("speed", left.decode_tps, right.decode_tps, "{:.1f} tok/s", most=True),
        _compared("reading", left.prefill_tps, right.prefill_tps, "{:,.0f} tok/s", most=True),
        _compared("first token", left.ttft_s, right.ttft_s, "{:.2f} s", most=False),
        _sizes("memory", left.peak_memory_bytes, right.peak_memory_bytes),
        replace(_compared("tokens", left.decode_tokens, right.decode_tokens, "{:,.0f}", most=True), better=0),
    ]
    return [row for row in rows if row.left or row.right]


def _compared(name: str, left: float, right: float, form: str, *, most: bool) -> Row:
    texts = [form.format(value) if value else "" for value in (left, right)]
    return Row(name, texts[0], texts[1], _better(texts, left, right, most=most))


def _sizes(name: str, left: int, right: int) -> Row:
    texts = [size(value) if value else "" for value in (left, right)]
    return Row(name, texts[0], texts[1], _better(texts, left, right, most=False))


def _better(texts: Sequence[str], left: float, right: float, *, most: bool) -> Better:
    """None where a value is not there, or both are about the same: no noise is called better."""
    if not all(texts) or abs(left - right) <= SAME_WITHIN * max(left, right):
        return 0
    return -1 if (left > right) == most else 1


def _known(sampling: Mapping[str, float]) -> Sampling:
    try:
        return Sampling(**sampling)  # type: ignore[arg-type]
    except (TypeError, MacllmError):  # the engine names what is wrong with them
        return Sampling()


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(repr, value)) if isinstance(value, tuple | list) else str(value)
