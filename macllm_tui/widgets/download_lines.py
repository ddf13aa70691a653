"""Downloads as lines: a bar, bytes, speed and time left, or the sentence about what holds one up."""

from collections.abc import Sequence
from typing import Any

from textual.content import Content
from textual.widgets import Static

from macllm.units import duration, size
from macllm_tui.downloads import Download
from macllm_tui.widgets.gauges import bar

_BAR_LEAST, _BAR_MOST = 8, 30
_SHOWN = 3  # of several waiting ones


class DownloadLines(Static):
    """The downloads that are not done; hidden when there is none."""

    DEFAULT_CSS = """
    DownloadLines { height: auto; max-height: 8; padding: 0 1; background: $panel; display: none; }
    DownloadLines.shown { display: block; }
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__("", **arguments)
        self._downloads: tuple[Download, ...] = ()

    def show(self, downloads: Sequence[Download]) -> None:
        """Draws these."""
        self._downloads = tuple(downloads)
        self.set_class(bool(self._downloads), "shown")
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        width = max((self.size.width or self.app.size.width - 2), 30)
        lines = [line(download, width) for download in self._downloads[:_SHOWN]]
        more = len(self._downloads) - _SHOWN
        if more > 0:
            lines.append(Content.styled(f"and {more} more", "$foreground-muted"))
        self.update(Content("\n").join(lines))


def line(download: Download, width: int) -> Content:
    """One download: its name, a bar with figures while it runs, else what state it is in."""
    name = Content(download.name).truncate(max(width // 3, 14), ellipsis=True)
    if download.state == "failed":
        return Content.assemble(name, ("  failed: ", "$text-error"), download.note)
    if download.note and download.state == "running":
        return Content.assemble(name, "  ", (download.note, "$foreground-muted"))
    figures = _figures(download)
    if not download.total or download.state == "waiting":
        return Content.assemble(name, "  ", (figures[0], "$foreground-muted"))
    taken = name.cell_length + 4
    fitting = (text for text in figures if width - taken - len(text) >= _BAR_LEAST)
    text = next(fitting, figures[-1])
    room = min(max(width - taken - len(text), 0), _BAR_MOST)
    drawn = bar(download.share, 1, room), "$text-primary"
    return Content.assemble(name, "  ", drawn, "  ", (text, "$foreground-muted"))


def _figures(download: Download) -> tuple[str, ...]:
    """The same in fewer and fewer words, for a bar beside them to have room."""
    if download.state == "waiting":
        return ("waiting for the one before",)
    amount = f"{size(download.done)} of {size(download.total)}" if download.total else ""
    if download.state == "paused":
        return (f"paused, {amount} are here" if download.done else "paused", "paused")
    percent = f"{100 * download.share:.0f} %"
    speed = f"{size(download.speed_bps)}/s" if download.speed_bps else ""
    left = f"{duration(download.eta_s)} left" if download.eta_s is not None else ""
    choices = ((percent, amount, speed, left), (percent, speed, left), (percent, left))
    return tuple("  ".join(part for part in parts if part) for parts in choices)
