"""Answers what the engine's process is asked: one thread, a step of every open generation in turn.

A model in memory serves all requests that name it. One that names another waits until these have ended: two
models are never in memory, and never alternate.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from macllm.engine.events import Counted, Done, Event, Failed, Loading, Stats, Trimmed
from macllm.engine.failure import failed, ran_out_of_memory
from macllm.engine.generate import Options, generate
from macllm.engine.inbox import Inbox, Job
from macllm.engine.metrics import Metrics
from macllm.engine.outbox import Outbox
from macllm.engine.protocol import Count, Generate, Load, ModelRef, Request
from macllm.engine.resident import Lease, Resident
from macllm.engine.turns import drop_oldest
from macllm.errors import Cancelled
from macllm.tokenizer.messages import Message
from macllm.tokenizer.reasoning import reasoning_of

_CANCELLED = Done("cancelled", "", Metrics())
_NO_TRAINING = Failed(
    "fine-tuning is not part of this version of macllm; train with another tool and load what it wrote",
    1,
    "TrainingUnavailable",
)


@dataclass(frozen=True)
class _Run:
    """A generation under way."""

    lease: Lease
    events: Iterator[Event]


class Service:
    """Takes jobs from ``inbox`` and says to ``outbox`` what comes of them. Survives every exception."""

    def __init__(self, inbox: Inbox, outbox: Outbox) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._resident = Resident()
        self._waiting: deque[Job] = deque()  # loads and generations, in the order they came
        self._runs: dict[Job, _Run] = {}

    def turn(self) -> None:
        """Takes what has come, begins what can begin, and makes a step of each open generation.

        Sleeps until a job comes where there is nothing to do.
        """
        if not self._runs and not self._waiting:
            self._receive(self._inbox.jobs.get())
        self._receive_all()
        self._begin_waiting()
        for job in tuple(self._runs):
            self._attempt(job, self._step, "generating")
            self._receive_all()  # a count waits for one step, not for one of each

    def _receive_all(self) -> None:
        while not self._inbox.jobs.empty():
            self._receive(self._inbox.jobs.get())

    def _receive(self, job: Job) -> None:
        if isinstance(job.request, Load | Generate):
            self._waiting.append(job)
        elif isinstance(job.request, Count):
            self._attempt(job, self._count, "counting tokens")
        else:
            self._end(job, _NO_TRAINING)

    def _begin_waiting(self) -> None:
        for job in [job for job in self._waiting if job.cancel.is_set()]:
            self._waiting.remove(job)
            self._end(job, _CANCELLED)
        while self._waiting:
            model = _model(self._waiting[0].request)
            if self._runs and not self._resident.holds(model):
                return  # and all behind it too, so that none waits for ever
            self._attempt(self._waiting.popleft(), self._begin, f"loading {model.name}")

    def _attempt(self, job: Job, action: Callable[[Job], Event | None], doing: str) -> None:
        """Does ``action`` and ends the job with the event it returns, or with its failure; None: it goes on."""
        last: Event | None
        recover = lost = False
        try:
            last = action(job)
        except Cancelled:
            last, recover = _CANCELLED, True
        except Exception as error:
            last, recover, lost = failed(error, doing), True, ran_out_of_memory(error)
        # here the exception is gone, and with it the frames that kept a half-loaded model or a full cache
        if last is None:
            return
        self._close(job)
        if lost:
            self._resident.forget_idle()
        if recover and not self._runs and (lost or not self._resident.filled):
            self._resident.free()
        self._end(job, last)

    def _close(self, job: Job) -> None:
        run = self._runs.pop(job, None)
        if run is not None:
            self._resident.give_back(run.lease)

    def _end(self, job: Job, last: Event) -> None:
        self._outbox.put(job.id, last)
        self._outbox.end(job.id)
        self._inbox.forget(job.id)

    def _begin(self, job: Job) -> Event | None:
        model = _model(job.request)
        if not self._resident.holds(model):
            self._load(job, model)
        if job.cancel.is_set():
            return _CANCELLED
        if isinstance(job.request, Generate):
            self._open(job, job.request)
            return None
        return self._resident.ready(model)

    def _load(self, job: Job, model: ModelRef) -> None:
        def progress(done: int, total: int) -> None:
            if job.cancel.is_set():
                raise Cancelled(f"loading {model.name} was cancelled")
            self._outbox.put(job.id, Loading(model.name, done, total))

        self._resident.load(model, progress)
        if isinstance(job.request, Generate):
            self._outbox.put(job.id, self._resident.ready(model))

    def _open(self, job: Job, request: Generate) -> None:
        resident = self._resident
        loaded, sampling = (
            resident.loaded,
            request.sampling or resident.sampling(request.model, request.settings),
        )
        prompt = self._prompt(job, request)
        lease = resident.lease(request.session)
        resident.make_room(lease, min(loaded.max_context, len(prompt) + _reply(request)))
        options = Options(
            sampling,
            request.limits,
            cancel=job.cancel,
            reasoning=reasoning_of(loaded.require_tokenizer(), prompt),
            submitted=job.received,
        )
        self._runs[job] = _Run(lease, generate(loaded, lease.session, prompt, options))

    def _prompt(self, job: Job, request: Generate) -> list[int]:
        """The prompt's ids; where asked for and needed, without the oldest turns."""
        loaded, messages = self._resident.loaded, request.messages
        tokenizer = loaded.require_tokenizer()

        def encode(some: Sequence[Message]) -> list[int]:
            return tokenizer.encode_chat(some, continue_final=request.continue_final)

        prompt = encode(messages)
        room = loaded.max_context - min(_reply(request), loaded.max_context // 2)
        if request.overflow == "fail" or len(prompt) <= room:
            return prompt
        kept = drop_oldest(messages, lambda some: len(encode(some)), room)
        if len(kept) == len(messages):
            return prompt
        self._outbox.put(job.id, Trimmed(len(messages) - len(kept)))
        return encode(kept)

    def _step(self, job: Job) -> Event | None:
        event = next(self._runs[job].events)
        if isinstance(event, Done):
            return event
        self._outbox.put(job.id, event)
        if isinstance(event, Stats):
            self._resident.make_room()
        return None

    def _count(self, job: Job) -> Counted:
        request = job.request
        assert isinstance(request, Count)
        if not self._resident.holds(request.model):
            return Counted(-1, -1)
        return self._resident.counter.count(request.messages, request.draft)


def _model(request: Request) -> ModelRef:
    return request.model


def _reply(request: Generate) -> int:
    """Tokens of a reply that there must be room for."""
    longest = request.limits.max_tokens
    return request.reserve if longest is None else min(longest, request.reserve)
