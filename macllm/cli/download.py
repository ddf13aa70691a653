"""Shows a download on stderr while a block runs: hub events become a bar or lines."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from macllm.cli.output import tell
from macllm.cli.progress import Progress
from macllm.hub.progress import Checking, Event, Planned, Retrying
from macllm.hub.progress import Progress as Arrived
from macllm.units import size


class DownloadDisplay:
    """A context manager that is called with each event. ``show`` builds the bar, by default a real one."""

    def __init__(self, label: str, show: Callable[[str, int | None], Progress] = Progress) -> None:
        self._label = label
        self._show = show
        self._bar: Progress | None = None
        self._checking: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in (self._checking, self._bar):
            if bar is not None:
                bar.__exit__(kind, value, trace)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Planned):
            if event.present < event.total:
                resumed = f" ({size(event.present)} of it are here already)" if event.present else ""
                count = "1 file" if event.files == 1 else f"{event.files} files"
                tell(f"{event.source}: {count}, {size(event.total)}{resumed}")
        elif isinstance(event, Arrived):
            if self._bar is None and event.done < event.total:
                self._bar = self._show(self._label, event.total)
            if self._bar is not None:
                self._bar.update(event.done, event.total)
        elif isinstance(event, Retrying):
            tell(f"{event.file}: {event.reason}; trying again in {event.wait_s:.0f} s")
        elif isinstance(event, Checking) and event.total > 500_000_000:
            # hashing or unpacking less than this takes no time worth a bar
            if self._checking is None:
                self._checking = self._show(f"checking {event.file}", event.total)
            self._checking.update(event.done, event.total)
