"""A macllm command as a view: what it writes, as it writes it; ``explain`` is one. Closing it ends the command."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ScrollableContainer
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from macllm.paths import child_environment

# Everything that moves a cursor, names a window or switches a terminal; colours (a final m) stay.
_SEQUENCE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-ln-~]|\x1b[()*+][0-9A-Za-z]"
    r"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]"
)
_COMPLAINT = re.compile(r"^macllm: (?:error: )?")
END_WITHIN_S = 3.0


class CommandScreen(Screen[bool]):
    """Runs ``macllm WORDS`` in a process of its own and shows its output; dismissed with whether it succeeded."""

    DEFAULT_CSS = """
    CommandScreen { background: $background; }
    CommandScreen #title { height: 1; padding: 0 1; background: $panel; color: $text; text-style: bold; }
    CommandScreen #view { height: 1fr; padding: 1 0 0 0; scrollbar-size: 1 1; }
    CommandScreen #output { width: auto; }
    CommandScreen #state { height: auto; padding: 0 1; color: $text-muted; display: none; }
    CommandScreen #state.shown { display: block; }
    CommandScreen #state.failed { color: $text-error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "close"),
        Binding("up,k", "scroll('up')", "up", show=False),
        Binding("down,j", "scroll('down')", "down", show=False),
        Binding("pageup", "scroll('page_up')", "page up", show=False),
        Binding("pagedown,space", "scroll('page_down')", "page down", show=False),
        Binding("home", "scroll('home')", "top", show=False),
        Binding("end", "scroll('end')", "end", show=False),
    ]

    def __init__(self, title: str, words: Sequence[str], *, waiting: str = "working") -> None:
        super().__init__()
        self._title, self._words, self._waiting = title, tuple(words), waiting
        self._process: asyncio.subprocess.Process | None = None
        self._lines: list[Content] = []
        self._rest = ""  # of a line that has not ended yet
        self._left = False
        self.succeeded = False
        self.ended = False

    def compose(self) -> ComposeResult:
        yield Static(Content(self._title), id="title")
        with ScrollableContainer(id="view"):
            yield Static("", id="output")
        yield Static("", id="state")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one("#view").focus()
        self._say(f"{self._waiting}…")
        self._run()

    async def on_unmount(self) -> None:
        self._left = True
        await self._end()

    def action_close(self) -> None:
        self._left = True
        self.dismiss(self.succeeded)

    def action_scroll(self, where: str) -> None:
        getattr(self.query_one("#view", ScrollableContainer), f"scroll_{where}")(animate=False)

    @work
    async def _run(self) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-u", "-m", "macllm"),
                *self._words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=child_environment(os.environ),
            )
        except OSError as error:
            self._failed(f"macllm cannot be started: {error.strerror}")
            return
        assert self._process.stdout is not None and self._process.stderr is not None
        remarks: list[str] = []
        await asyncio.gather(self._show(self._process.stdout), self._remember(self._process.stderr, remarks))
        code = await self._process.wait()
        self.ended, self.succeeded = True, code == 0
        if self._left:
            return
        if code == 0:
            self.query_one("#state").remove_class("shown")
        else:
            said = remarks[-1] if remarks else f"macllm {self._words[0]} ended with code {code}"
            self._failed(_COMPLAINT.sub("", said))

    async def _show(self, stream: asyncio.StreamReader) -> None:
        """What it prints, a few times a second at most."""
        while chunk := await stream.read(1 << 16):
            text = (self._rest + chunk.decode("utf-8", "replace")).replace("\r\n", "\n")
            *whole, self._rest = text.split("\n")
            self._add(whole)
        if self._rest:
            self._add([self._rest])

    async def _remember(self, stream: asyncio.StreamReader, remarks: list[str]) -> None:
        """What it says beside: progress and, at the end, what went wrong."""
        async for raw in stream:
            said = clean(raw.decode("utf-8", "replace")).plain.strip()
            if said:
                remarks.append(said)
                del remarks[:-20]
                self._say(said)

    def _add(self, lines: Sequence[str]) -> None:
        if self._left:
            return
        self._lines += [clean(line) for line in lines]
        self.query_one("#output", Static).update(Content("\n").join(self._lines))

    def _say(self, sentence: str) -> None:
        if self._left:
            return
        state = self.query_one("#state", Static)
        state.add_class("shown")
        state.update(Content(sentence))

    def _failed(self, sentence: str) -> None:
        self.ended = True
        self._say(sentence)
        if not self._left:
            self.query_one("#state").add_class("failed")

    async def _end(self) -> None:
        """Ends a command that still runs: it is interrupted, so that it leaves nothing half done."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(process.wait(), END_WITHIN_S)
            except TimeoutError:
                process.kill()


class ExplainScreen(CommandScreen):
    """What a model is, layer by layer, how its weights are stored, and on which Mac it fits."""

    def __init__(self, name: str) -> None:
        super().__init__(f"explain {name}", ["explain", "--", name], waiting=f"reading what {name} is")


def clean(line: str) -> Content:
    """A line with its colours and without any other control sequence."""
    return Content.from_rich_text(Text.from_ansi(_SEQUENCE.sub("", line.expandtabs())))
