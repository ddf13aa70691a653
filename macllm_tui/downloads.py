"""Downloads under way: one after the other in a thread, paused, resumed and stopped, whatever screen is shown."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from macllm.errors import Cancelled, MacllmError
from macllm.hub import progress
from macllm.hub.pull import free_name, pull
from macllm.hub.unfinished import discard

State: TypeAlias = Literal["waiting", "running", "paused", "failed", "done"]
# What the hub's sentences say to somebody at a command line, and what they say here.
_HERE = (
    ("run the same command again, which resumes", "press p to go on"),
    ("run the same command again to resume it there", "press p to go on"),
    ("run the same command again to resume", "press p to go on"),
    ("run the same command again", "press p to try again"),
)


@dataclass(frozen=True)
class Download:
    """One download as it stands. ``source`` is what is pulled and its key here; ``name`` what it is called then.

    ``note`` says what else is to be known: what is being checked, why the connection is made again, or in one
    sentence why it failed.
    """

    source: str
    name: str
    state: State = "waiting"
    done: int = 0
    total: int = 0
    speed_bps: float | None = None
    eta_s: float | None = None
    note: str = ""

    @property
    def open(self) -> bool:
        """Whether there is still something to do."""
        return self.state != "done"

    @property
    def share(self) -> float:
        return min(self.done / self.total, 1.0) if self.total else 0.0


Listener: TypeAlias = Callable[[Download], None]


class Downloads:
    """All downloads of the app, by source. To be used on the event loop; what they tell comes there too.

    A stopped download keeps what arrived: it goes on from there, unless :meth:`delete` throws it away.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._leaving: list[_Job] = []  # cancelled, and their threads not yet at an end
        self._listeners: list[Listener] = []

    @property
    def all(self) -> tuple[Download, ...]:
        return tuple(job.shown for job in self._jobs.values())

    def of(self, source: str) -> Download | None:
        """The download of ``source``, under way or ended."""
        job = self._jobs.get(source)
        return job.shown if job is not None else None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` with every change; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def add(self, source: str) -> Download:
        """Downloads ``source`` when those before it are done; one that is there already goes on."""
        job = self._jobs.get(source)
        if job is None or not job.shown.open:
            self._jobs.pop(source, None)
            job = self._jobs[source] = _Job(Download(source, source), self._told, self._ended)
            self._tell(job)
        elif job.shown.state in ("paused", "failed"):
            return self.resume(source)
        self._start_next()
        return job.shown

    def pause(self, source: str) -> None:
        """Stops the transfer; what arrived stays."""
        job = self._jobs.get(source)
        if job is not None and job.shown.state in ("waiting", "running"):
            job.stop()
            self._set(job, state="paused", speed_bps=None, eta_s=None, note="")
            self._start_next()

    def resume(self, source: str) -> Download:
        """Goes on with what was paused or failed, after those that wait already."""
        job = self._jobs[source]
        if job.shown.state in ("paused", "failed"):
            self._jobs[source] = self._jobs.pop(source)
            self._set(job, state="waiting", note="")
            self._start_next()
        return job.shown

    def cancel(self, source: str) -> None:
        """Takes the download off the list; what arrived stays on the disk, and a later one goes on with it."""
        job = self._jobs.pop(source, None)
        if job is not None:
            job.stop()
            if job.busy:
                self._leaving.append(job)
            self._tell(job)
            self._start_next()

    async def delete(self, source: str) -> int:
        """Cancels the download and deletes what arrived; returns the bytes freed."""
        job = self._jobs.get(source)
        self.cancel(source)
        if job is not None:
            await job.ended()
        name = job.shown.name if job is not None else source
        return await asyncio.to_thread(discard, source, name)

    def _start_next(self) -> None:
        if any(job.shown.state == "running" for job in self._jobs.values()):
            return
        # two threads must not write one file
        held = {job.shown.source for job in (*self._leaving, *self._jobs.values()) if job.busy}
        waiting = (job for job in self._jobs.values() if job.shown.state == "waiting")
        job = next((job for job in waiting if job.shown.source not in held), None)
        if job is not None:
            self._set(job, state="running", note="asking the server")
            job.start()

    def _told(self, job: "_Job", event: progress.Event) -> None:
        if job.shown.state != "running" or self._jobs.get(job.shown.source) is not job:
            return  # it was stopped while this was on its way
        match event:
            case progress.Planned(_, _, total, present):
                self._set(job, done=present, total=total, note="")
            case progress.Progress(_, done, total, speed, eta):
                self._set(job, done=done, total=total, speed_bps=speed, eta_s=eta, note="")
            case progress.Checking(file, done, total):
                percent = f"{100 * done // total} %" if total else ""
                self._set(job, speed_bps=None, eta_s=None, note=f"checking {file} {percent}".rstrip())
            case progress.Retrying(_, reason, wait_s):
                note = f"the connection broke ({reason}); trying again in {wait_s:.0f} s"
                self._set(job, speed_bps=None, eta_s=None, note=note)

    def _ended(self, job: "_Job", name: str, failure: str | None) -> None:
        """The thread of ``job`` came to its end: ``name`` is installed, or there is a sentence; empty: stopped."""
        if job in self._leaving:
            self._leaving.remove(job)
        elif failure is None:
            total = max(job.shown.total, job.shown.done)
            self._set(
                job, name=name, state="done", done=total, total=total, speed_bps=None, eta_s=None, note=""
            )
        elif failure and job.shown.state == "running":
            self._set(job, state="failed", speed_bps=None, eta_s=None, note=failure)
        self._start_next()

    def _set(self, job: "_Job", **fields: object) -> None:
        job.shown = replace(job.shown, **fields)  # type: ignore[arg-type]
        self._tell(job)

    def _tell(self, job: "_Job") -> None:
        for listener in tuple(self._listeners):
            listener(job.shown)


class _Job:
    """The thread behind one download. It is stopped from within: by an exception out of the hub's next report."""

    def __init__(
        self,
        shown: Download,
        told: Callable[["_Job", progress.Event], None],
        ended: Callable[["_Job", str, str | None], None],
    ) -> None:
        self.shown = shown
        self._told, self._ended = told, ended
        self._stop = threading.Event()
        self._finished: asyncio.Event | None = None
        self._lock = threading.Lock()
        self._latest: progress.Event | None = None

    @property
    def busy(self) -> bool:
        """Whether its last thread still winds down: a server that says nothing is noticed late."""
        return self._finished is not None and not self._finished.is_set()

    def start(self) -> None:
        self._stop = threading.Event()
        self._finished = asyncio.Event()
        loop = asyncio.get_running_loop()
        # a daemon: leaving the app waits for no server, and what arrived is on the disk
        threading.Thread(target=self._run, args=(loop, self._stop), daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    async def ended(self) -> None:
        if self._finished is not None:
            await self._finished.wait()

    def _run(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        def report(event: progress.Event) -> None:
            if stop.is_set():
                raise Cancelled("the download was stopped")
            with self._lock:
                pending, self._latest = self._latest is not None, event
            if not pending:
                loop.call_soon_threadsafe(self._deliver)

        def pause(seconds: float) -> None:
            if stop.wait(seconds):
                raise Cancelled("the download was stopped")

        name, failure = self.shown.source, None
        try:
            name = free_name(self.shown.source)
            name = pull(self.shown.source, name=name, report=report, pause=pause).name
        except Cancelled:
            failure = ""
        except Exception as error:  # whatever it is, the app goes on and says it
            failure = _sentence(error)
        with contextlib.suppress(RuntimeError):  # the app was left meanwhile
            loop.call_soon_threadsafe(self._finish, name, failure)

    def _deliver(self) -> None:
        with self._lock:
            event, self._latest = self._latest, None
        if event is not None:
            self._told(self, event)

    def _finish(self, name: str, failure: str | None) -> None:
        assert self._finished is not None
        self._finished.set()
        self._ended(self, name, failure)


def _sentence(error: Exception) -> str:
    if isinstance(error, MacllmError):
        text = str(error)
        for there, here in _HERE:
            text = text.replace(there, here)
        return text
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{error.strerror}; press p to try again"
    return f"unexpected error: {type(error).__name__}: {' '.join(str(error).split())}; please report it"
