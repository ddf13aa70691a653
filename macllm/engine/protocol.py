"""What the engine's process is asked. Plain frozen data like the events it answers with; no mlx.

A request is answered by a stream of events that ends: Load with Ready, Count with Counted, Generate and Train
with Done, any of them with Failed, and Load or Count with Done("cancelled") where it was cancelled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from macllm.engine.request import Limits, Sampling
from macllm.tokenizer.messages import Message

Overflow: TypeAlias = Literal["fail", "drop"]


@dataclass(frozen=True)
class ModelRef:
    """A model on this disk. ``sampling`` goes over the model's own defaults (what a catalogue recommends)."""

    name: str
    path: str
    dtype: str | None = None
    sampling: Mapping[str, int | float] = field(default_factory=dict)
    kv_bits: int | None = None  # that keys and values are held in; None: plain
    adapter: str | None = None  # the folder of one that the model answers with


@dataclass(frozen=True)
class Load:
    """Have this model in memory, instead of any other."""

    model: ModelRef


@dataclass(frozen=True)
class Generate:
    """Answer ``messages``; loads the model first where another one, or none, is in memory.

    ``session`` names the cache to go on with, a conversation's id; an empty one starts anew. ``continue_final``
    goes on with the last message, an assistant's. ``settings`` are fields of Sampling by name that go over the
    model's own, where ``sampling`` does not replace all of them. ``overflow`` says what to do where the prompt
    does not fit: fail, or drop the oldest turns until the prompt and ``reserve`` tokens of a reply do; a reserve
    of more than half the context is half of it.
    """

    model: ModelRef
    messages: tuple[Message, ...]
    session: str = ""
    sampling: Sampling | None = None  # None: the model's own, with ``settings`` on top
    settings: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    continue_final: bool = False
    overflow: Overflow = "fail"
    reserve: int = 512


@dataclass(frozen=True)
class Count:
    """How many tokens are in ``draft``, and in the prompt that ``messages`` and it as the user's next make.

    Never loads a model: where ``model`` is not in memory both are -1.
    """

    model: ModelRef
    messages: tuple[Message, ...]
    draft: str


@dataclass(frozen=True)
class Train:
    """Fine-tune an adapter (answered by the events of ``macllm.engine.training_events``)."""

    model: ModelRef
    data: str  # a .jsonl file, or a folder with train, valid and test
    adapter: str  # name of what is made
    settings: Mapping[str, float | int | str | bool] = field(default_factory=dict)  # mlx-lm's names
    resume: bool = False


Request: TypeAlias = Load | Generate | Count | Train
