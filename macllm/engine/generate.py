"""The decode loop: prompt ids in, typed events out. One loop serves every caller.

Step n + 1 is dispatched before the token of step n is read, so the device never waits for Python: token
choice, penalties and log-probabilities all stay on the device until then.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx

from macllm import sizes
from macllm.engine.events import Done, Event, FinishReason, Notice, Prefill, Stats, Token, TopLogprob
from macllm.engine.failure import kernels_failed, ran_out_of_memory
from macllm.engine.loading import Loaded
from macllm.engine.meter import Meter
from macllm.engine.metrics import Metrics
from macllm.engine.prefill import SHORT_CHUNK, Cancelled, LayerWatch, chunk_size, take_back
from macllm.engine.processors import History, Processors, breaker_tokens
from macllm.engine.request import Limits, Sampling
from macllm.engine.sampler import Sampler, top_logprobs
from macllm.engine.session import Session
from macllm.engine.text import TextOut
from macllm.errors import ContextError, InputError, MemoryLimitError
from macllm.kernels import permission
from macllm.nn.stored import DTYPES
from macllm.tokenizer.reasoning import Reasoning
from macllm.units import size

STATS_EVERY_S = 0.125
# MLX deadlocks when two threads build and dispatch at once, so a step is made by one thread at a time
_STEP = threading.RLock()


class Cancel(Protocol):
    """Anything with ``is_set``: a ``threading.Event``, say."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class Choice:
    """One step's outcome, still on the device."""

    token: mx.array  # (1,)
    logprobs: tuple[mx.array, ...] = ()  # chosen (1,), ids (1, k), theirs (1, k)

    def arrays(self) -> list[mx.array]:
        return [self.token, *self.logprobs]


@dataclass(frozen=True)
class Options:
    """What goes with a prompt."""

    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    chunk: int | None = None  # prompt tokens a prefill step; None: the backend's
    cancel: Cancel | None = None
    logits: Callable[[mx.array], None] | None = None  # takes logits (n, V) of the prompt, in order
    all_logits: bool = False  # of every prompt position, not only the last
    reasoning: Reasoning | None = None  # takes thoughts apart from the text; None: all is text
    submitted: float | None = None  # time.perf_counter() when the request was received; None: now


def generate(loaded: Loaded, session: Session, prompt: Sequence[int], options: Options) -> Iterator[Event]:
    """Completes ``prompt``; what ``session`` already holds of it is not computed again.

    Yields Prefill, Token and Stats events, then Done. Closing the iterator, or ``options.cancel``, stops
    between two steps (in a long one of the prompt: between two layers) and leaves the session consistent.
    Raises ContextError, InputError or OptionError before anything is computed. Generations in several threads
    take turns, a step each.
    """
    events = _generate(loaded, session, prompt, options)
    try:
        while True:
            with _STEP:
                event = next(events, None)
            if event is None:
                return
            yield event
    finally:
        with _STEP:
            events.close()


def _generate(
    loaded: Loaded, session: Session, prompt: Sequence[int], options: Options
) -> Generator[Event, None, None]:
    limit = _check(loaded, session, prompt, options.limits)
    run = _Run(loaded, session, options, prompt)
    try:
        reason = yield from run.complete(prompt, limit)
    except GeneratorExit:  # the caller has enough; between two events all layers agree
        raise
    except BaseException as error:
        session.reset()  # some layers may have seen a token that others have not
        if not isinstance(error, MemoryLimitError) and ran_out_of_memory(error):
            raise MemoryLimitError(
                f"memory ran out at {len(prompt)} prompt tokens ({error}); use a shorter context or a smaller model"
            ) from error
        raise
    text, thought = run.text.finish()
    yield Done(reason, text, run.metrics(), thought)


def _check(loaded: Loaded, session: Session, prompt: Sequence[int], limits: Limits) -> int:
    """The number of tokens that may be produced."""
    if not prompt:
        raise InputError("the prompt is empty; give at least one token")
    wrong = next((token for token in prompt if not 0 <= token < loaded.vocab), None)
    if wrong is not None:
        raise InputError(
            f"the prompt holds token id {wrong}, but the model's ids go from 0 to {loaded.vocab - 1}"
        )
    room = loaded.max_context - len(prompt)
    if room < 0:
        raise ContextError(
            f"the prompt has {len(prompt)} tokens and the context of {loaded.name} holds {loaded.max_context}; "
            "shorten it or start a new conversation"
        )
    if loaded.spec is not None:
        value_bytes = DTYPES[loaded.backend.dtype].size
        cache = sizes.held_bytes(loaded.spec, len(prompt), value_bytes, kv_bits=loaded.kv_bits)
        # what the session holds of the prompt, or gives up for it, is in use already
        limit, used = loaded.backend.memory_limit_bytes, mx.get_active_memory() - session.kv_bytes
        if 0 < limit < used + cache:
            raise MemoryLimitError(
                f"a prompt of {len(prompt)} tokens needs {size(cache)} of cache beside the {size(used)} "
                f"in use, but models may take {size(limit)} here; shorten it or use a smaller model"
            )
    return room if limits.max_tokens is None else min(limits.max_tokens, room)


class _Run:
    """One generation under way."""

    def __init__(self, loaded: Loaded, session: Session, options: Options, prompt: Sequence[int]) -> None:
        self.loaded, self.session, self.options = loaded, session, options
        tokenizer, sampling = loaded.tokenizer, options.sampling
        breakers: Sequence[int] = ()
        if sampling.dry_multiplier > 0 and tokenizer is not None:
            texts = (tokenizer.token_text(token) for token in range(tokenizer.vocab_size))
            breakers = breaker_tokens(sampling.dry_breakers, texts)
        self.processors = Processors(sampling, loaded.vocab, breakers)
        self.sampler = Sampler(sampling, loaded.xtc_keep if sampling.xtc_probability > 0 else ())
        self.history: History = self.processors.start(prompt)
        self.text = TextOut(tokenizer, options.limits.stop, options.reasoning)
        self.meter = Meter(loaded.backend, loaded.load_s, len(prompt), loaded.max_context, options.submitted)
        self.stop_ids = frozenset() if options.limits.ignore_eos else loaded.stop_ids
        self.hidden: mx.array | None = None
        self.written: list[int] = []
        self.told = time.perf_counter()  # when the last Stats were sent

    def cancelled(self) -> bool:
        return self.options.cancel is not None and self.options.cancel.is_set()

    def metrics(self) -> Metrics:
        return self.meter.metrics(self.session.caches)

    def stats(self) -> Iterator[Stats]:
        """The figures so far, where it is time for them."""
        if time.perf_counter() - self.told >= STATS_EVERY_S:
            self.told = time.perf_counter()
            yield Stats(self.metrics(), self.meter.new_steps_ms())

    def complete(self, prompt: Sequence[int], limit: int) -> Generator[Event, None, FinishReason]:
        """Prefill and decoding; where custom kernels fail on the way, the rest without them."""
        known = prompt
        while True:
            rest = self._complete(known, limit - len(self.written))
            try:
                return (yield from _without_prefill(rest) if self.written else rest)
            except (RuntimeError, ValueError) as error:
                given = self.options.logits is not None  # to be given twice would be wrong
                names = () if given or ran_out_of_memory(error) else permission.withdraw(error)
                if not names:
                    raise
                yield Notice(kernels_failed(names, error))
            self.session.reset()
            known = [*prompt, *self.written]
            self.history = self.processors.start(known)

    def _complete(self, prompt: Sequence[int], limit: int) -> Generator[Event, None, FinishReason]:
        yield from self.prefill(prompt, decoding=limit > 0)
        if self.hidden is None:
            return "cancelled"
        return (yield from self.decode(limit)) if limit > 0 else "length"

    def prefill(self, prompt: Sequence[int], *, decoding: bool) -> Iterator[Event]:
        """Computes what the session does not hold by chunks; the last, if ``decoding``, with the first token."""
        session, self.hidden = self.session, None
        if self.options.all_logits:
            session.reset()
        reused = session.prepare(prompt)
        if not self.written:
            self.meter.reused = reused
        total = len(prompt)
        yield Prefill(reused, total, reused)
        while len(session.tokens) < total and not self.cancelled():
            part = list(prompt[len(session.tokens) :][: self._chunk(total - len(session.tokens))])
            try:
                hidden = self._states(part, total - len(session.tokens) - len(part))
            except Cancelled:
                take_back(session)
                return
            session.tokens += part
            last = len(session.tokens) == total
            self._give_logits(hidden, last)
            if last:
                self.hidden = hidden[:, -1:]
            else:
                session.evaluate()
                self.meter.computed += len(part)
                yield Prefill(len(session.tokens), total, reused)
                yield from self.stats()
        if self.hidden is not None:
            if not decoding:
                mx.eval(self.hidden)
                self.meter.prefilled()
            yield Prefill(total, total, reused)

    def _states(self, part: Sequence[int], ahead: int) -> mx.array:
        """The states (1, L, D) of the next prompt tokens, which ``ahead`` more follow.

        Raises Cancelled between two layers.
        """
        model, caches = self.loaded.model, self.session.caches
        watched = self.options.cancel is not None and model.layered
        if watched and len(part) > SHORT_CHUNK:
            return model.hidden(mx.array([part]), caches, LayerWatch(self.cancelled), ahead=ahead)
        return model.hidden(mx.array([part]), caches, ahead=ahead)

    def _chunk(self, left: int) -> int:
        """How many of the ``left`` prompt tokens the next step takes."""
        model, watched = self.loaded.model, self.options.cancel is not None
        default = chunk_size(self.loaded.backend.name, watched=watched, layered=model.layered)
        size = min(self.options.chunk or default, left)
        if size == left > 1 and not model.separate_head and not self.options.all_logits:
            return left - 1  # logits of all but the last are never computed, since nobody evaluates them
        return size

    def _give_logits(self, hidden: mx.array, last: bool) -> None:
        if self.options.logits is None or not (last or self.options.all_logits):
            return
        wanted = hidden if self.options.all_logits else hidden[:, -1:]
        self.options.logits(self.loaded.model.logits(wanted)[0].astype(mx.float32))

    def decode(self, limit: int) -> Generator[Event, None, FinishReason]:
        """Yields a Token a step; returns why it ended."""
        assert self.hidden is not None
        pending = self._choose(self.hidden)
        mx.async_eval(pending.arrays())
        for count in range(1, limit + 1):
            following = self._step(pending.token) if count < limit else None
            token = int(_number(pending.token))
            if following is not None:
                self.session.tokens.append(token)  # the step under way has put it into the caches
            self.meter.token()
            self.written.append(token)
            stopped = token in self.stop_ids
            yield self._event(token, pending, stopped)
            if stopped or self.text.stopped:
                return "stop"
            if self.cancelled():
                return "cancelled"
            yield from self.stats()
            if following is not None:
                pending = following
        return "length"

    def _step(self, token: mx.array) -> Choice:
        """Dispatches the step that follows ``token`` (1,)."""
        self.history = self.history.append(token)
        hidden = self.loaded.model.hidden(token[None], self.session.caches)
        choice = self._choose(hidden)
        mx.async_eval(choice.arrays())
        return choice

    def _choose(self, hidden: mx.array) -> Choice:
        """The next token out of the states (1, 1, D) of the last."""
        logits = self.loaded.model.logits(hidden)[:, -1]  # (1, V)
        token = self.sampler(self.processors(logits, self.history))
        wanted = self.options.limits.logprobs
        return Choice(token, top_logprobs(logits, token, wanted) if wanted >= 0 else ())

    def _event(self, token: int, choice: Choice, stopped: bool) -> Token:
        thinking = self.text.thinking
        text, thought = ("", "") if stopped else self.text.add(token)
        if not stopped and (thinking or self.text.thinking):
            self.meter.thought()
        if not choice.logprobs:
            return Token(token, text, thought=thought)
        chosen, ids, values = choice.logprobs
        top = tuple(
            TopLogprob(int(_number(one)), self.text.name(int(_number(one))), _number(value))
            for one, value in zip(ids[0], values[0], strict=True)
        )
        return Token(token, text, _number(chosen), top, thought=thought)


def _without_prefill(events: Generator[Event, None, FinishReason]) -> Generator[Event, None, FinishReason]:
    """What is computed anew was told before."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            reason: FinishReason = end.value
            return reason
        if not isinstance(event, Prefill):
            yield event


def _number(array: mx.array) -> float:
    """The value of an array of one; waits for it."""
    value = array.item()
    assert isinstance(value, int | float)
    return value
