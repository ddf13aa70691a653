"""Answers what the engine's process is asked: one thread, a step of every open generation in turn.

A model in memory serves all requests that name it. One that names another waits until these have ended: two
models are never in memory, and never alternate. A fine-tuning run has the machine for itself: it waits until all
generations have ended, then the model is freed, and who asks for one meanwhile is told so at once.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from macllm.engine.events import Counted, Done, Event, Loading, Stats, Trimmed
from macllm.engine.failure import failed, ran_out_of_memory
from macllm.engine.generate import Options, generate
from macllm.engine.inbox import Inbox, Job
from macllm.engine.loading import Progress
from macllm.engine.metrics import Metrics
from macllm.engine.outbox import Outbox
from macllm.engine.protocol import Count, Generate, ModelRef, Request, Train
from macllm.engine.resident import Lease, Resident
from macllm.engine.training import UNAVAILABLE, Trainer, busy
from macllm.engine.training_events import TrainingEvent
from macllm.engine.turns import drop_oldest
from macllm.errors import Cancelled
from macllm.tokenizer.messages import Message
from macllm.tokenizer.reasoning import reasoning_of

_CANCELLED = Done("cancelled", "", Metrics())
_TRAINED = Done("stop", "", Metrics())


@dataclass(frozen=True)
class _Run:
    """A generation under way, or a fine-tuning run, which has no lease."""

    lease: Lease | None
    events: Iterator[Event | TrainingEvent]


class Service:
    """Takes jobs from ``inbox`` and says to ``outbox`` what comes of them. Survives every exception."""

    def __init__(self, inbox: Inbox, outbox: Outbox, train: Trainer | None = None) -> None:
        """``train`` makes the events of a fine-tuning run; without it Train is refused."""
        self._inbox = inbox
        self._outbox = outbox
        self._train = train
        self._resident = Resident()
        self._waiting: deque[Job] = deque()  # loads, generations and trainings, in the order they came
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
            self._attempt(job, self._step, "training" if self._training else "generating")
            self._receive_all()  # a count waits for one step, not for one of each

    def _receive_all(self) -> None:
        while not self._inbox.jobs.empty():
            self._receive(self._inbox.jobs.get())

    def _receive(self, job: Job) -> None:
        if isinstance(job.request, Count):
            self._attempt(job, self._count, "counting tokens")
        elif isinstance(job.request, Train) and self._train is None:
            self._end(job, UNAVAILABLE)
        else:
            self._waiting.append(job)

    def _begin_waiting(self) -> None:
        for job in [job for job in self._waiting if job.cancel.is_set()]:
            self._waiting.remove(job)
            self._end(job, _CANCELLED)
        while self._waiting:
            if self._training is not None:  # it may take hours: nobody is left to wait for that in silence
                self._end(self._waiting.popleft(), busy(self._training))
                continue
            model = _model(self._waiting[0].request)
            alone = isinstance(self._waiting[0].request, Train)
            if self._runs and (alone or not self._resident.holds(model)):
                return  # and all behind it too, so that none waits for ever
            self._attempt(self._waiting.popleft(), self._begin, f"loading {model.name}")

    @property
    def _training(self) -> Train | None:
        """The fine-tuning run under way."""
        return next((job.request for job in self._runs if isinstance(job.request, Train)), None)

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
        if run is None:
            return
        if run.lease is not None:
            self._resident.give_back(run.lease)
            return
        del run  # and with it the model that learned
        self._resident.tidy()

    def _end(self, job: Job, last: Event) -> None:
        self._outbox.put(job.id, last)
        self._outbox.end(job.id)
        self._inbox.forget(job.id)

    def _begin(self, job: Job) -> Event | None:
        if isinstance(job.request, Train):
            self._open_training(job, job.request)
            return None
        model = _model(job.request)
        if not self._resident.holds(model):
            self._load(job, model)
        if job.cancel.is_set():
            return _CANCELLED
        if isinstance(job.request, Generate):
            self._open(job, job.request)
            return None
        return self._resident.ready(model)

    def _open_training(self, job: Job, request: Train) -> None:
        assert self._train is not None
        self._resident.set_aside()
        events = self._train(request, job.cancel.is_set, self._progress(job, request.model))
        self._runs[job] = _Run(None, events)

    def _progress(self, job: Job, model: ModelRef) -> Progress:
        def progress(done: int, total: int) -> None:
            if job.cancel.is_set():
                raise Cancelled(f"loading {model.name} was cancelled")
            self._outbox.put(job.id, Loading(model.name, done, total))

        return progress

    def _load(self, job: Job, model: ModelRef) -> None:
        self._resident.load(model, self._progress(job, model))
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
        event = next(self._runs[job].events, _TRAINED)
        if isinstance(event, Done):
            return event
        self._outbox.put(job.id, event)
        if isinstance(event, Stats):
            self._resident.make_room()
        return None

    def _count(self, job: Job) -> Counted:
        request = job.request
        assert isinstance(request, Count)
        counter = self._resident.counter(request.model)
        return Counted(-1, -1) if counter is None else counter.count(request.messages, request.draft)


def _model(request: Request) -> ModelRef:
    return request.model


def _reply(request: Generate) -> int:
    """Tokens of a reply that there must be room for."""
    longest = request.limits.max_tokens
    return request.reserve if longest is None else min(longest, request.reserve)
