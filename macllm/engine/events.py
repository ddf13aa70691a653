"""What the engine says, in order: Loading*, Ready?, Trimmed?, Prefill+, Token*, Stats*, then Done or Failed.

A Notice may come between any two of them.

Frozen and made of plain values, so that they cross a pipe and are recorded as JSON lines unchanged.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from macllm.engine.metrics import Metrics
from macllm.engine.request import Sampling

FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Machine:
    """What the engine runs on: the first thing its process says."""

    backend: str
    device: str
    memory_bytes: int
    memory_limit_bytes: int  # what models may take of it
    dtype: str


@dataclass(frozen=True)
class Loading:
    """A model is being loaded: bytes read of all bytes."""

    model: str
    done: int
    total: int


@dataclass(frozen=True)
class Ready:
    """A model is in memory. ``sampling`` is what it uses where a request says nothing."""

    model: str
    max_context: int
    sampling: Sampling
    native: bool  # False: mlx-lm's classes run it
    template: str  # whose chat template: model, chatml, plain
    thinks: bool  # the template or the vocabulary knows a thinking section
    hash: str  # of the files' names, sizes and config: the same weights give the same
    load_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Trimmed:
    """The oldest turns were left out of the prompt to make it fit: how many messages."""

    messages: int


@dataclass(frozen=True)
class Notice:
    """Something went wrong that the generation goes on without: one sentence."""

    message: str


@dataclass(frozen=True)
class Prefill:
    """Prompt tokens computed of all; ``reused`` of them came from a cache."""

    done: int
    total: int
    reused: int


@dataclass(frozen=True)
class TopLogprob:
    """One candidate of a step: its id, its text and its natural log-probability."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Token:
    """One token: its id and the text that became final with it (may be empty, may end an earlier token).

    ``text`` never ends inside a character or inside a possible stop string. A stop token has no text.
    ``thought`` is the part of it that the model thinks before it answers, without the marks around it.
    """

    id: int
    text: str
    logprob: float | None = None
    top: tuple[TopLogprob, ...] = ()
    drafted: bool = False
    thought: str = ""


@dataclass(frozen=True)
class Stats:
    """The metrics so far, a few times a second while decoding; ``steps_ms`` are the steps since the last one."""

    metrics: Metrics
    steps_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Done:
    """The generation ended: why, what text was still held back, and the final metrics."""

    reason: FinishReason
    text: str
    metrics: Metrics
    thought: str = ""


@dataclass(frozen=True)
class Counted:
    """Answer to a count: tokens of the draft alone, and of the whole prompt if it were sent now."""

    draft_tokens: int
    prompt_tokens: int


@dataclass(frozen=True)
class Failed:
    """The request failed: the error's sentence, the exit code it stands for, and the error's class name."""

    message: str
    exit_code: int
    kind: str = "MacllmError"


Event: TypeAlias = (
    Machine | Loading | Ready | Trimmed | Notice | Prefill | Token | Stats | Done | Counted | Failed
)
