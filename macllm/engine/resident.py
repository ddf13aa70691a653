"""The one model in memory, and the caches of the conversations held over it."""

import gc
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import mlx.core as mx

from macllm import sizes
from macllm.adapters.slot import stamp_of
from macllm.engine.counting import PromptCounter
from macllm.engine.events import Ready
from macllm.engine.facts import ready
from macllm.engine.loading import Loaded, Progress, load_model
from macllm.engine.protocol import ModelRef
from macllm.engine.request import Sampling
from macllm.engine.session import Session
from macllm.errors import OptionError
from macllm.nn.stored import DTYPES

MOST_SESSIONS = 6  # a switch back to a recent conversation computes nothing anew
IDLE_SHARE = 0.25  # of the memory limit that they may take; the last one used may take more
FULL_SHARE = 0.95  # of the memory limit; above it no conversation that is not being answered keeps its cache

_Key: TypeAlias = tuple[str, str | None, int | None]


@dataclass(frozen=True)
class Lease:
    """A session while a generation uses it; ``kept``: the conversation's own, to go on with."""

    name: str
    session: Session
    kept: bool


class Resident:
    """Holds at most one model. Sessions in use are leased, so that no two generations share one."""

    def __init__(self) -> None:
        self._loaded: Loaded | None = None
        self._key: _Key | None = None
        self._learned = ""  # the stamp of the adapter that the model has
        self._ready: Ready | None = None
        self._counter: PromptCounter | None = None
        self._set_aside: _Key | None = None  # of what is counted for, and not held
        self._idle: OrderedDict[str, Session] = OrderedDict()  # least recently used first
        self._leased: set[str] = set()

    def holds(self, model: ModelRef) -> bool:
        """Whether it would answer at once: the model is in memory, with the adapter that is asked for."""
        return self.has_base(model) and self._learned == _stamp(model)

    def has_base(self, model: ModelRef) -> bool:
        """Whether the model is in memory, with whatever adapter."""
        return self._key == _key(model)

    @property
    def filled(self) -> bool:
        """Whether there is a model, whole."""
        return self._key is not None

    @property
    def loaded(self) -> Loaded:
        """The model in memory; ask :meth:`holds` first."""
        assert self._loaded is not None
        return self._loaded

    def load(self, model: ModelRef, progress: Progress) -> None:
        """Loads ``model`` in place of any other, which is freed first; of the same base only the adapter is changed.

        Raises what ``load_model`` does; where that is about the adapter alone, the model in memory stays.
        """
        adapter = Path(model.adapter) if model.adapter is not None else None
        if self._loaded is not None and self.has_base(model):
            self._loaded.use_adapter(adapter)
            self._learned = self._loaded.model.learned
            return
        self.free()
        self._loaded = load_model(
            Path(model.path),
            name=model.name,
            dtype=model.dtype,
            kv_bits=model.kv_bits,
            adapter=adapter,
            progress=progress,
        )
        self._learned = self._loaded.model.learned
        self._ready = ready(self._loaded)
        self._key = _key(model)

    def set_aside(self) -> None:
        """Frees the model, but goes on to count for it: its tokenizer is small."""
        key = self._key
        counter = self._counter_of_held() if key is not None and self.loaded.tokenizer is not None else None
        self.free()
        if counter is not None:
            self._counter, self._set_aside = counter, key

    def free(self) -> None:
        """Lets go of the model, its sessions and the buffers behind them."""
        self._loaded = self._key = self._ready = self._counter = self._set_aside = None
        self._learned = ""
        self._idle.clear()
        self._leased.clear()
        self.tidy()

    def tidy(self) -> None:
        """Gives back the buffers behind what nobody holds any more."""
        gc.collect()
        mx.synchronize()  # a step that nobody waits for any more may be under way
        mx.clear_cache()
        mx.reset_peak_memory()

    def ready(self, model: ModelRef) -> Ready:
        """What is in memory, under the name and with the sampling that ``model`` gives it."""
        assert self._ready is not None
        return replace(
            self._ready,
            model=model.name,
            sampling=self.sampling(model),
            memory_bytes=mx.get_active_memory(),
        )

    def sampling(self, model: ModelRef, settings: Mapping[str, Any] | None = None) -> Sampling:
        """The model's own settings, with ``model``'s and then ``settings`` over them. Raises OptionError."""
        given = {**model.sampling, **(settings or {})}
        known = [field.name for field in fields(Sampling)]
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            raise OptionError(f"{model.name}: no sampling setting {unknown!r} (there are {', '.join(known)})")
        return replace(self.loaded.sampling, **given)

    def counter(self, model: ModelRef) -> PromptCounter | None:
        """Counts for ``model`` where it is in memory, or set aside; else None.

        Raises TokenizerError where it came without a tokenizer.
        """
        if self.has_base(model):
            return self._counter_of_held()
        return self._counter if self._set_aside == _key(model) else None

    def _counter_of_held(self) -> PromptCounter:
        if self._counter is None:
            self._counter = PromptCounter(self.loaded.require_tokenizer())
        return self._counter

    def lease(self, name: str) -> Lease:
        """The session of a conversation; a new one where it has none, no name, or its own is in use."""
        if not name or name in self._leased:
            return Lease(name, Session(self.loaded.model), kept=False)
        self._leased.add(name)
        idle = self._idle.pop(name) if name in self._idle else Session(self.loaded.model)
        return Lease(name, idle, kept=True)

    def give_back(self, lease: Lease) -> None:
        """The generation has ended."""
        if not lease.kept or lease.name not in self._leased:  # the latter: freed meanwhile
            return
        self._leased.discard(lease.name)
        self._idle[lease.name] = lease.session
        most = self.loaded.backend.memory_limit_bytes * IDLE_SHARE
        while len(self._idle) > MOST_SESSIONS or (len(self._idle) > 1 and 0 < most < self._idle_bytes()):
            self._idle.popitem(last=False)
        self.make_room()

    def make_room(self, lease: Lease | None = None, tokens: int = 0) -> None:
        """Forgets idle sessions, the oldest first, until ``lease``'s can grow to ``tokens``."""
        backend, more = self.loaded.backend, 0
        if lease is not None and self.loaded.spec is not None:
            value_bytes = DTYPES[backend.dtype].size
            needed = sizes.held_bytes(self.loaded.spec, tokens, value_bytes, kv_bits=self.loaded.kv_bits)
            more = max(0, needed - _held_bytes(lease.session))
        limit = int(backend.memory_limit_bytes * FULL_SHARE)
        while self._idle and 0 < limit < mx.get_active_memory() + more:
            self._idle.popitem(last=False)

    def forget_idle(self) -> None:
        """Forgets every session that is not in use."""
        self._idle.clear()

    def _idle_bytes(self) -> int:
        return sum(map(_held_bytes, self._idle.values()))


def _key(model: ModelRef) -> _Key:
    return model.path, model.dtype, model.kv_bits


def _stamp(model: ModelRef) -> str:
    return stamp_of(Path(model.adapter)) if model.adapter is not None else ""


def _held_bytes(session: Session) -> int:
    return sum(cache.allocated_bytes for cache in session.caches)
