"""What the engine tells its caller, in order: Loading*, Prefill+, Token*, Stats*, then Done or Failed.

Frozen and made of plain values, so that they cross a pipe and are recorded as JSON lines unchanged.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from macllm.engine.metrics import Metrics

FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Loading:
    """A model is being loaded: bytes read of all bytes."""

    model: str
    done: int
    total: int


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
    """

    id: int
    text: str
    logprob: float | None = None
    top: tuple[TopLogprob, ...] = ()
    drafted: bool = False


@dataclass(frozen=True)
class Stats:
    """The metrics so far; sent a few times a second while decoding."""

    metrics: Metrics


@dataclass(frozen=True)
class Done:
    """The generation ended: why, what text was still held back, and the final metrics."""

    reason: FinishReason
    text: str
    metrics: Metrics


@dataclass(frozen=True)
class Failed:
    """The generation failed: the error's sentence and the exit code it stands for."""

    message: str
    exit_code: int


Event: TypeAlias = Loading | Prefill | Token | Stats | Done | Failed
