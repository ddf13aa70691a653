"""An engine for comparisons: two replies, played from a recording made here, with a gate to hold it anywhere."""

from collections.abc import Sequence

from gate import Gate

from macllm.engine.events import Done, Event, Failed, Loading, Machine, Prefill, Ready, Stats, Token
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Generate, Load, ModelRef
from macllm.engine.recording import Exchange, Recording, ReplayEngine
from macllm.engine.request import Sampling
from macllm.engine.stream import Stream
from macllm_tui.comparison import Side

MACHINE = Machine("metal", "Apple M3 Pro", 19_327_352_832, 14_495_514_624, "bfloat16")
SMALL = ModelRef("qwen3-0.6b", "/models/qwen3-0.6b")
LARGE = ModelRef("qwen3-8b", "/models/qwen3-8b")
LEFT = Side(SMALL, {"temperature": 0.7})
RIGHT = Side(LARGE, {"temperature": 0.7})
ANSWERS = (
    "A **latent** cache.",
    "MLA caches a *latent* vector for each token.\n\n```python\nq = q_b(norm(q_a(x)))\n```",
)


class Engine(ReplayEngine):
    """Also says what it was asked."""

    asked: list[object]

    def submit(self, request: object) -> Stream:  # type: ignore[override]
        self.asked.append(request)
        return super().submit(request)  # type: ignore[arg-type]


def metrics(speed: float, memory: int, tokens: int) -> Metrics:
    return Metrics(
        prompt_tokens=24,
        prefill_tps=speed * 10,
        ttft_s=20 / speed,
        decode_tokens=tokens,
        decode_tps=speed,
        recent_tps=speed,
        peak_memory_bytes=memory,
        memory_limit_bytes=14_495_514_624,
    )


def ready(model: ModelRef) -> Ready:
    sampling = Sampling(temperature=0.6, top_p=0.95)
    return Ready(model.name, 32_768, sampling, True, "model", True, "abc", 0.8, 500_000_000)


def loaded(model: ModelRef) -> Exchange:
    return _exchange(Load(model), [Loading(model.name, 1, 2), Loading(model.name, 2, 2), ready(model)])


def said(model: ModelRef, text: str, figures: Metrics) -> Exchange:
    words = text.split(" ")
    tokens = [Token(index, word if index == 0 else f" {word}") for index, word in enumerate(words)]
    events: list[Event] = [Prefill(12, 24, 0), Prefill(24, 24, 0), *tokens[:2], Stats(figures), *tokens[2:]]
    return _exchange(Generate(model, ()), [*events, Done("stop", "", figures)])


def failing(model: ModelRef, message: str) -> Exchange:
    return _exchange(Load(model), [Failed(message, 1, "MemoryLimitError")])


def engine(*exchanges: Exchange, gate: Gate | None = None) -> Engine:
    made = Engine(Recording(MACHINE, exchanges or both()), sleep=gate or Gate())
    made.asked = []
    return made


def both() -> tuple[Exchange, ...]:
    first, second = metrics(140.2, 600_000_000, 5), metrics(71.3, 4_900_000_000, 14)
    return (
        loaded(SMALL),
        said(SMALL, ANSWERS[0], first),
        loaded(LARGE),
        said(LARGE, ANSWERS[1], second),
    )


def _exchange(request: Load | Generate, events: Sequence[Event]) -> Exchange:
    return Exchange(request, tuple((0.01 * index, (event,)) for index, event in enumerate(events)))
