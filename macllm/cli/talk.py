"""A conversation line by line: what is said, the reply as it comes, and the store that keeps both."""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from macllm.chats.records import Chat, State, StoredMessage
from macllm.chats.store import Store, damage_sentence
from macllm.cli.output import tell
from macllm.cli.talk_input import history, interrupt_stops
from macllm.cli.talk_settings import applied, differing
from macllm.engine.events import Done, Event, Notice, Prefill, Token
from macllm.engine.figures import figures
from macllm.engine.request import Limits, Sampling, new_seed
from macllm.errors import ContextError, MacllmError
from macllm.hub.catalogue import STARTER

if TYPE_CHECKING:
    from macllm.api import LLM

_DIM, _BOLD, _OFF = "\033[2m", "\033[1m", "\033[0m"
_SLOW_PROMPT = 2048  # tokens from which reading the prompt is worth a line
_SAVE_EVERY_S = 2.0  # while a reply is written
_STATES: Mapping[str, State] = {"stop": "complete", "length": "length", "cancelled": "stopped"}


@dataclass(frozen=True)
class Output:
    """Where a reply goes as it comes: its text, and what the model thinks before it."""

    text: Callable[[str], object]
    thought: Callable[[str], object] = lambda piece: None


class Talk:
    """A conversation and what the user may change of it. It enters the store with its first message."""

    def __init__(
        self,
        llm: "LLM",
        system: str | None,
        sampling: Sampling,
        limits: Limits,
        *,
        store: Store | None = None,
        dtype: str | None = None,
        kv_bits: int | None = None,
    ) -> None:
        self.llm = llm
        self.system = system or ""
        self.settings: dict[str, Any] = differing(sampling, llm.sampling)  # over the model's own
        self.limits = limits
        self.dtype, self.kv_bits = dtype, kv_bits
        self.store = store or Store.in_memory()
        self.chat: Chat | None = None
        self.branch: list[StoredMessage] = []
        self.attached: list[str] = []  # go with the next message
        self.cancel = threading.Event()
        self._session = llm.chat().session

    @property
    def options(self) -> tuple[Sampling, Limits]:
        """What the next reply is asked with. Raises OptionError where the settings do not go together."""
        return applied(self.settings, self.llm.sampling, self.limits)

    def say(
        self, text: str, output: Output, *, parent: str | None = None, branch: bool = False
    ) -> StoredMessage:
        """Adds a message and has it answered: at the end, or with ``branch`` after ``parent``."""
        if self.chat is None:
            kept = dict(self.settings)
            self.chat = self.store.create(model=self.llm.name, system=self.system, sampling=kept)
        if not branch:
            parent = self.branch[-1].id if self.branch else None
        text = "\n\n".join([*self.attached, text])
        asked = self.store.add(self.chat.id, "user", text, parent=parent)
        reply = self.answer(asked.id, output)
        self.attached = []
        return reply

    def answer(self, asked: str, output: Output) -> StoredMessage:
        """Has the message ``asked`` answered, beside the replies that are there.

        What came of an interrupted reply stays. After an error the conversation goes on as if this had not been
        said; the store still has it.
        """
        from macllm_tui.prompting import messages_of

        assert self.chat is not None
        before = self.branch
        sampling, limits = self.options
        if sampling.seed is None:  # drawn here, so that the reply can be had again
            sampling = replace(sampling, seed=new_seed())
        reply = self.store.add(
            self.chat.id,
            "assistant",
            "",
            parent=asked,
            model=self.llm.name,
            sampling=dict(self.settings),
            seed=sampling.seed,
            state="partial",
        )
        self.branch = self.store.branch(self.chat.id)
        messages = messages_of(self.store.chat(self.chat.id), self.branch[:-1])
        self.cancel.clear()
        try:
            events = self.llm.stream(
                messages, session=self._session, sampling=sampling, limits=limits, cancel=self.cancel
            )
            reply = self._written(reply, events, output)
        except MacllmError as error:
            self.store.save(replace(self.store.message(reply.id), state="failed", error=str(error)))
            self.branch = before
            raise
        self.branch[-1] = reply
        return reply

    def _written(self, reply: StoredMessage, events: Iterator[Event], output: Output) -> StoredMessage:
        text, thought = "", ""
        start = saved = time.monotonic()
        for event in events:
            if isinstance(event, Prefill) and event.total - event.reused >= _SLOW_PROMPT:
                tell(f"reading the prompt: {event.done} of {event.total} tokens")
            if isinstance(event, Notice):
                tell(event.message)
            if not isinstance(event, Token | Done):
                continue
            if event.thought:
                output.thought(event.thought)
                thought += event.thought
                reply = replace(reply, thought=thought, thought_s=time.monotonic() - start)
            if event.text:
                output.text(event.text)
                text += event.text
            if isinstance(event, Done):
                reply = replace(reply, text=text, state=_STATES[event.reason], metrics=event.metrics)
                self.store.save(reply)
            elif time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                self.store.save(replace(reply, text=text))
        return reply

    def restart(self, system: str) -> None:
        """A new conversation with the same model."""
        self.system, self.chat, self.branch = system, None, []

    def open(self, chat: str) -> Chat:
        """Goes on with a conversation of the store, with its system prompt and settings."""
        self.chat = self.store.chat(chat)
        self.branch = self.store.branch(chat)
        self.system, self.settings = self.chat.system, dict(self.chat.sampling)
        return self.chat

    def change(self, name: str, value: Any) -> None:
        """Changes one setting of this conversation. Raises OptionError where it does not go with the others."""
        changed = {**self.settings, name: value}
        applied(changed, self.llm.sampling, self.limits)
        self.settings = changed
        if self.chat is not None:
            self.chat = self.store.update(self.chat.id, sampling=changed)

    def use(self, name: str) -> None:
        """Goes on with another model, without an adapter.

        The one before leaves the memory first, and comes back after an error.
        """
        import mlx.core as mx

        from macllm.cli.download import DownloadDisplay
        from macllm.cli.loading import load
        from macllm.hub.pull import find
        from macllm.hub.store import mark_used, named

        with DownloadDisplay(name) as display:
            find(name, display)  # what is none, or does not come, is refused while there still is a model
        old = self.llm.name if named(self.llm.name) is not None else str(self.llm.loaded.path)
        adapter = str(self.llm.adapter) if self.llm.adapter is not None else None
        del self.llm, self._session
        gc.collect()
        mx.clear_cache()
        try:
            self.llm = load(name, self.dtype, self.kv_bits)
            self.llm.loaded.require_tokenizer()
        except BaseException:
            self.llm = load(old, self.dtype, self.kv_bits, adapter)
            raise
        finally:
            self._session = self.llm.chat().session
        mark_used(name)
        if self.chat is not None:
            self.chat = self.store.update(self.chat.id, model=self.llm.name)


def talk_through_pipe(talk: Talk) -> int:
    """Each line of stdin is a message, each reply goes to stdout, all else to stderr. Nothing is kept."""
    for line in sys.stdin:
        text = line.rstrip("\n")
        if text.strip():
            reply = talk.say(text, Output(_write))
            _write("\n")
            if reply.state == "length" and reply.metrics is not None:
                tell(f"the reply was cut at {reply.metrics.decode_tokens} tokens; --max-tokens N allows more")
    return 0


def talk_on_terminal(talk: Talk, *, plain: bool) -> int:
    """Reads messages with line editing and history until Ctrl-D or /quit. What is said is kept."""
    talk.store = _open_store()
    colour = not plain and "NO_COLOR" not in os.environ and sys.stdout.isatty()
    dim, bold, off = (_DIM, _BOLD, _OFF) if colour else ("", "", "")
    print(f"{bold}{talk.llm.name}{off}{dim}  /help for commands, Ctrl-C stops a reply, Ctrl-D ends{off}")
    if talk.llm.name == STARTER:
        print(f"{dim}a tiny model to try things with; `macllm list --catalogue` shows better ones{off}")
    voice = Voice(dim, off, with_figures=not plain)
    with history():
        while (text := _next()) is not None:
            if not _handled(talk, text, voice):
                break
    talk.store.close()
    return 0


class Voice:
    """Shows replies: the text as it comes, a line before what the model thinks and one before its answer."""

    def __init__(self, dim: str, off: str, *, with_figures: bool) -> None:
        self._dim, self._off = dim, off
        self._with_figures = with_figures

    def hear(self, talk: Talk, speak: Callable[[Output], StoredMessage]) -> None:
        """Runs ``speak`` with Ctrl-C as the way to stop it, and shows what comes and how it ended."""
        thinking = False

        def show_thought(piece: str) -> None:
            nonlocal thinking
            if not thinking:
                _write(f"thinking:\n{self._dim}")
                thinking = True
            _write(piece)

        def show_text(piece: str) -> None:
            nonlocal thinking
            if thinking:
                _write(f"{self._off}\nanswer:\n")
                thinking = False
            _write(piece)

        try:
            with interrupt_stops(talk.cancel):
                reply = speak(Output(show_text, show_thought))
        finally:
            if thinking:
                _write(self._off)
        print(_end(reply, talk.limits))
        if self._with_figures and reply.metrics is not None:
            print(f"{self._dim}{figures(reply.metrics)}{self._off}\n")


def _end(reply: StoredMessage, limits: Limits) -> str:
    """What is said after the last word of a reply."""
    if reply.state == "stopped":
        return " [stopped]"
    if reply.state == "length" and reply.sampling.get("max_tokens", limits.max_tokens) is None:
        return " [cut: the context is full; /new begins a new chat]"
    return " [cut at the token limit]" if reply.state == "length" else ""


def _handled(talk: Talk, text: str, voice: Voice) -> bool:
    """Does what a line says; whether the conversation goes on."""
    from macllm.cli.talk_commands import EndOfTalk, run_command

    try:
        if text.startswith("/"):
            run_command(talk, text, voice)
        elif text:
            voice.hear(talk, lambda output: talk.say(text, output))
    except EndOfTalk:
        return False
    except ContextError as error:
        tell(f"macllm: {error}; /new begins a new chat, /export keeps this one as a file")
    except MacllmError as error:
        tell(f"macllm: {error}")
    except KeyboardInterrupt:
        print()
    return True


def _next() -> str | None:
    """The next line; empty after Ctrl-C, None at the end."""
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return None
    except KeyboardInterrupt:
        print()
        return ""


def _open_store() -> Store:
    """The store, or one that is forgotten where it cannot be kept."""
    try:
        store = Store.open()
    except MacllmError as error:
        tell(f"macllm: {error}; what is said now is not kept")
        return Store.in_memory()
    if store.set_aside is not None:
        tell(damage_sentence(store))
    return store


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
