"""What the screens that download have in common: their lines, pausing and cancelling, and leaving with a model."""

import asyncio
from typing import TYPE_CHECKING

from textual.screen import Screen
from textual.widgets import Static

from macllm.engine.protocol import ModelRef
from macllm.errors import MacllmError
from macllm.units import size
from macllm_tui import model_refs
from macllm_tui.downloads import Download, Downloads
from macllm_tui.widgets.download_lines import DownloadLines

if TYPE_CHECKING:
    from macllm.engine.client import Engine


class DownloadingScreen(Screen[ModelRef | None]):
    """Has a :class:`DownloadLines`, and a Static ``#said`` for sentences. Dismissed with the model to use, or None.

    Subclasses bind ``pause`` and ``cancel``, and give :meth:`changed`.
    """

    deletes = ""  # the key that deletes what arrived, where there is one

    def __init__(self, engine: "Engine", downloads: Downloads) -> None:
        super().__init__()
        self._engine, self._downloads = engine, downloads
        self._wanted = ""  # the source that is used as soon as it is here

    def on_mount(self) -> None:
        self._unlisten = self._downloads.listen(self._heard)
        self._show_downloads()

    def on_unmount(self) -> None:
        self._unlisten()

    def changed(self, download: Download) -> None:
        """A download is further, or at its end."""
        raise NotImplementedError

    def target(self) -> Download | None:
        """The download that a key is about: the first that is open."""
        return next((download for download in self._downloads.all if download.open), None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is something to pause and to cancel only while something is being downloaded."""
        return action not in ("pause", "cancel") or self.target() is not None

    def action_pause(self) -> None:
        target = self.target()
        if target is None:
            return
        if target.state in ("paused", "failed"):
            self._downloads.resume(target.source)
        else:
            self._downloads.pause(target.source)

    def action_cancel(self) -> None:
        target = self.target()
        if target is None:
            return
        self._downloads.cancel(target.source)
        if self._wanted == target.source:
            self._wanted = ""
        deletes = f"; {self.deletes} deletes them" if self.deletes else ""
        kept = f" The {size(target.done)} that arrived stay for another time{deletes}." if target.done else ""
        self._say(f"The download of {target.name} was cancelled.{kept}")

    @property
    def _taken_down(self) -> bool:
        """Whether the screen was left: a thread or a download may still tell it something."""
        return not self.query(DownloadLines)

    def _heard(self, download: Download) -> None:
        if not self._taken_down:
            self._show_downloads()
            self.changed(download)

    def _show_downloads(self) -> None:
        self.refresh_bindings()
        self.query_one(DownloadLines).show([each for each in self._downloads.all if each.open])

    def _say(self, sentence: str, *, failed: bool = False) -> None:
        if self._taken_down:
            return
        said = self.query_one("#said", Static)
        said.update(sentence)
        said.set_class(bool(sentence), "shown")
        said.set_class(failed, "failed")

    async def _leave_with(self, name: str) -> None:
        try:
            ref = await asyncio.to_thread(model_refs.resolve, name)
        except MacllmError as error:
            self._say(str(error), failed=True)
            return
        self.dismiss(ref)
