"""The Python API: load a model, generate, stream, chat. The engine of the app, in this process."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.adapters.kept import find as find_adapter
from macllm.engine.events import Done, Event, Token, TopLogprob
from macllm.engine.generate import Cancel, Options, generate
from macllm.engine.loading import Loaded, Progress, load_model
from macllm.engine.metrics import Metrics
from macllm.engine.request import Limits, Sampling
from macllm.engine.session import Session
from macllm.errors import MacllmError, OptionError
from macllm.hub import catalogue, pull
from macllm.hub.progress import Report, ignore
from macllm.tokenizer.base import Tokenizer
from macllm.tokenizer.messages import Message, Prompt, TextPart, to_messages
from macllm.tokenizer.reasoning import reasoning_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Generation:
    """A finished generation. ``tokens`` are all ids produced, a stop token included; it has no text.

    ``reasoning`` is what the model thought before it answered, where the prompt went through its chat template.
    """

    text: str
    tokens: list[int]
    finish_reason: str  # stop, length, cancelled
    metrics: Metrics
    logprobs: list[float] | None = None  # of each token, where asked for
    top_logprobs: list[tuple[TopLogprob, ...]] | None = None
    reasoning: str = ""

    def __str__(self) -> str:
        return self.text


class LLM:
    """A loaded model. One generation at a time; each of its chats keeps a cache of its own."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded

    @property
    def name(self) -> str:
        return self.loaded.name

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises TokenizerError where the model came without one."""
        return self.loaded.require_tokenizer()

    @property
    def sampling(self) -> Sampling:
        """The model's own sampling settings, used where a call gives none."""
        return self.loaded.sampling

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter that the model answers with."""
        return self.loaded.adapter

    def use_adapter(self, name_or_path: str | Path | None) -> None:
        """Has the model answer with another adapter, or alone, without a reload; its chats go on with it.

        A name under which one is kept, or a folder: macllm's or mlx-lm's, PEFT's, or the weights of full fine-tuning.
        Raises a ``MacllmError`` and changes nothing where there is none, or it belongs to another base.
        """
        self.loaded.use_adapter(find_adapter(str(name_or_path)) if name_or_path is not None else None)

    def stream(
        self,
        prompt: Prompt | Sequence[int],
        *,
        raw: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        sampling: Sampling | None = None,
        limits: Limits | None = None,
        session: Session | None = None,
        cancel: Cancel | None = None,
        **settings: Any,
    ) -> Iterator[Event]:
        """Yields the engine's events: Prefill, Token and Stats, then Done.

        ``prompt`` is a user's message, a list of messages, or token ids. ``raw`` completes a string without
        the chat template. In the reply to messages, what the model thinks is the events' ``thought``; after
        token ids and raw strings all is ``text``. ``settings`` are fields of ``Sampling`` and ``Limits`` by
        name (``temperature=0.7``, ``max_tokens=100``); others keep the model's defaults. Raises OptionError
        for an unknown one, ContextError where the prompt is too long.
        """
        submitted = time.perf_counter()
        ids = self.encode(prompt, raw=raw, tools=tools)
        options = self.options(sampling=sampling, limits=limits, cancel=cancel, **settings)
        thinks = not raw and _token_ids(prompt) is None
        reasoning = reasoning_of(self.tokenizer, ids) if thinks else None
        options = replace(options, reasoning=reasoning, submitted=submitted)
        return generate(self.loaded, session or Session(self.loaded.model), ids, options)

    def generate(self, prompt: Prompt | Sequence[int], **arguments: Any) -> Generation:
        """Completes a prompt; takes the arguments of :meth:`stream`."""
        return collect(self.stream(prompt, **arguments))

    def chat(self, system: str | None = None, **defaults: Any) -> "Chat":
        """A conversation; ``defaults`` are settings of every reply."""
        return Chat(self, system, defaults)

    def logits(self, tokens: Sequence[int]) -> "npt.NDArray[np.float32]":
        """Logits (L, V) of every position of ``tokens``: row i predicts token i + 1."""
        import numpy as np

        parts: list[npt.NDArray[np.float32]] = []
        options = Options(
            limits=Limits(max_tokens=0), logits=lambda part: parts.append(np.array(part)), all_logits=True
        )
        for _ in generate(self.loaded, Session(self.loaded.model), tokens, options):
            pass
        return np.concatenate(parts)

    def encode(
        self,
        prompt: Prompt | Sequence[int],
        *,
        raw: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_final: bool = False,
    ) -> list[int]:
        """The ids that a prompt comes to: through the chat template, or as it is with ``raw``."""
        ids = _token_ids(prompt)
        if ids is not None:
            return ids
        if isinstance(prompt, str) and raw:
            return self.tokenizer.encode(prompt, add_special_tokens=True)
        if raw:
            raise OptionError("raw: a list of messages needs the chat template; give a string")
        messages = to_messages(prompt)  # type: ignore[arg-type]
        return self.tokenizer.encode_chat(messages, tools=tools, continue_final=continue_final)

    def options(
        self,
        *,
        sampling: Sampling | None = None,
        limits: Limits | None = None,
        cancel: Cancel | None = None,
        **settings: Any,
    ) -> Options:
        """Settings by name on top of the given, or of the model's own."""
        sampling, limits = sampling or self.sampling, limits or Limits()
        ours = {name: settings.pop(name) for name in list(settings) if name in Sampling.__dataclass_fields__}
        theirs = {name: settings.pop(name) for name in list(settings) if name in Limits.__dataclass_fields__}
        if settings:
            known = sorted({*Sampling.__dataclass_fields__, *Limits.__dataclass_fields__})
            raise OptionError(f"no setting {next(iter(settings))!r} (there are {', '.join(known)})")
        if isinstance(theirs.get("stop"), str):
            theirs["stop"] = (theirs["stop"],)
        elif isinstance(theirs.get("stop"), list):
            theirs["stop"] = tuple(theirs["stop"])
        return Options(replace(sampling, **ours), replace(limits, **theirs), cancel=cancel)


class Chat:
    """A conversation: remembers its messages and keeps its cache, so only what is new is computed."""

    def __init__(self, llm: LLM, system: str | None, defaults: Mapping[str, Any]) -> None:
        self.messages: list[Message] = [Message.of("system", system)] if system else []
        self.session = Session(llm.loaded.model)
        self._llm = llm
        self._defaults = defaults

    def send(self, text: str, **settings: Any) -> Generation:
        """Adds a message, returns the reply and remembers both."""
        return collect(self.stream(text, **settings))

    def stream(self, text: str, **settings: Any) -> Iterator[Event]:
        """The reply's events. What came of an interrupted reply is remembered; after an error nothing is."""
        before = len(self.messages)
        self.messages.append(Message.of("user", text))
        pieces: list[str] = []
        thoughts: list[str] = []
        try:
            arguments = {**self._defaults, **settings}
            for event in self._llm.stream(self.messages, session=self.session, **arguments):
                if isinstance(event, Token | Done):
                    pieces.append(event.text)
                    thoughts.append(event.thought)
                yield event
        except Exception:
            del self.messages[before:]
            raise
        finally:
            if len(self.messages) > before:
                reply = (TextPart("".join(pieces)),)
                self.messages.append(Message("assistant", reply, reasoning="".join(thoughts) or None))


def load(
    name_or_path: str | Path,
    *,
    dtype: str | None = None,
    kv_bits: int | None = None,
    adapter: str | Path | None = None,
    download: Report = ignore,
    progress: Progress | None = None,
) -> LLM:
    """Loads a model: an installed name, a catalogue name or a repository (fetched when missing), or a path.

    ``dtype`` (``float32``, ``float16``, ``bfloat16``) overrides the type to compute in. ``kv_bits`` (8, 4)
    packs keys and values in the caches, where a layer's may be. ``adapter`` is what it answers with, as
    :meth:`LLM.use_adapter` takes it. ``download`` takes the events of a download, ``progress`` the bytes
    read of all weights. Raises a ``MacllmError`` whose message says what is wrong and what to do.
    """
    learned = find_adapter(str(adapter)) if adapter is not None else None
    found = pull.find(str(name_or_path), download)
    loaded = load_model(
        found.path, name=found.name, dtype=dtype, kv_bits=kv_bits, adapter=learned, progress=progress
    )
    given: dict[str, Any] = catalogue.sampling_of(found.source)  # by its authors; a GGUF does not carry it
    if given:
        loaded = replace(loaded, sampling=replace(loaded.sampling, **given))
    return LLM(loaded)


def collect(events: Iterator[Event]) -> Generation:
    """Runs a stream to its end."""
    text: list[str] = []
    thought: list[str] = []
    tokens: list[Token] = []
    for event in events:
        if isinstance(event, Token | Done):
            text.append(event.text)
            thought.append(event.thought)
        if isinstance(event, Token):
            tokens.append(event)
        elif isinstance(event, Done):
            asked = bool(tokens) and tokens[0].logprob is not None
            return Generation(
                text="".join(text),
                tokens=[token.id for token in tokens],
                finish_reason=event.reason,
                metrics=event.metrics,
                logprobs=[token.logprob or 0.0 for token in tokens] if asked else None,
                top_logprobs=[token.top for token in tokens] if asked else None,
                reasoning="".join(thought),
            )
    raise MacllmError("the generation ended without a result; report this as a bug")


def _token_ids(prompt: Prompt | Sequence[int]) -> list[int] | None:
    """The prompt as token ids; None where it is something else."""
    if not isinstance(prompt, Sequence) or isinstance(prompt, str | bytes):
        return None
    ids = [item for item in prompt if isinstance(item, int) and not isinstance(item, bool)]
    return ids if ids and len(ids) == len(prompt) else None
