"""The chat screen: the conversation, its prompt, the list of chats, and the metrics as they move."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import TextArea

from macllm.engine.events import Counted, Failed, Ready, Stats
from macllm.engine.protocol import ModelRef
from macllm.errors import InputError, MacllmError
from macllm_tui.actions import Place
from macllm_tui.bindings import bindings, called
from macllm_tui.conversation import Conversation
from macllm_tui.reply import Reply, Update
from macllm_tui.themes import NAMES
from macllm_tui.widgets.banner import Banner
from macllm_tui.widgets.find_bar import FindBar
from macllm_tui.widgets.footer import Footer
from macllm_tui.widgets.header import Header
from macllm_tui.widgets.metrics import MetricsPanel
from macllm_tui.widgets.prompt import PromptArea, PromptCount
from macllm_tui.widgets.sidebar import ChatList
from macllm_tui.widgets.status import StatusLine
from macllm_tui.widgets.transcript import Transcript

if TYPE_CHECKING:
    from macllm_tui.app import MacllmApp

SIDEBAR_FROM, PANEL_FROM = 80, 100  # columns
COUNT_AFTER_S = 0.15  # of quiet at the keyboard
CHATS_SHOWN = 200


def _keys(place: Place) -> list[Binding]:
    """The bindings of a place, each doing its action on the screen."""
    return [
        # the prompt must not take them; but esc is its own while it completes a command
        replace(binding, action=f"screen.do('{binding.id}')", priority=binding.id != "stop")
        for binding in bindings(place)
    ]


class ChatTranscript(Transcript):
    """The transcript with the keys that act on the chosen message."""

    BINDINGS: ClassVar[list[Any]] = _keys("message")


class ChatScreen(Screen[None]):
    """Shows one conversation. What a key or a slash command does is in ``macllm_tui.commands``."""

    BINDINGS: ClassVar[list[Any]] = _keys("chat")
    AUTO_FOCUS = "PromptArea"
    DEFAULT_CSS = """
    ChatScreen {
        #body { height: 1fr; }
        #talk { width: 1fr; height: 1fr; }
        #prompt-row { height: auto; max-height: 10; border-top: solid $panel; }
    }
    """

    app: MacllmApp  # a screen of this app only

    def __init__(self, conversation: Conversation) -> None:
        super().__init__()
        self.conversation = conversation
        self.editing: str | None = None  # the message whose new version is being typed
        self.resuming: str | None = None  # the reply whose new start is being typed
        self._drafts: dict[str, str] = {}
        self._preset = ""
        self._sidebar: bool | None = None  # None: by the width
        self._counting: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal(id="body"):
            yield ChatList()
            with Vertical(id="talk"):
                yield ChatTranscript(empty=self._empty(), folded=not self.app.settings.thinking)
                yield Banner()
                yield FindBar()
                with Horizontal(id="prompt-row"):
                    yield PromptArea()
                    yield PromptCount()
            yield MetricsPanel()
        yield StatusLine()
        yield Footer()

    def _empty(self) -> str:
        send, help_ = called(self.app, "send"), called(self.app, "help")
        return f"Write below and press {send}.\n/ lists commands, {help_} shows all keys.\nNothing leaves this machine."

    @property
    def transcript(self) -> ChatTranscript:
        return self.query_one(ChatTranscript)

    @property
    def prompt(self) -> PromptArea:
        return self.query_one(PromptArea)

    # -- what is shown -----------------------------------------------------------------------------------

    def on_mount(self) -> None:
        self.lay_out()
        self.prompt.offers = {"theme": NAMES}

    def on_resize(self, event: events.Resize) -> None:
        self.lay_out()

    def lay_out(self) -> None:
        """Shows the sidebar, the panel or the one status line, as the width and the user want it."""
        width, metrics = self.app.size.width, self.app.settings.metrics
        by_width = self.app.settings.sidebar and width >= SIDEBAR_FROM
        self.query_one(ChatList).display = by_width if self._sidebar is None else self._sidebar
        self.query_one(MetricsPanel).display = metrics and width >= PANEL_FROM
        self.query_one(StatusLine).display = metrics and width < PANEL_FROM

    def toggle_sidebar(self) -> None:
        """Shows or hides the list of chats; remembered, unless the terminal is too narrow for it."""
        self._sidebar = not self.query_one(ChatList).display
        if self.app.size.width >= SIDEBAR_FROM:
            self.app.change_settings(replace(self.app.settings, sidebar=self._sidebar))
        self.lay_out()

    async def show_chat(self) -> None:
        """Shows the open conversation from its store, with the reply that is under way in it."""
        reply = self.conversation.reply
        entries = self.conversation.entries
        if reply is None:
            await self.transcript.show(entries)
        else:
            await self.transcript.show(entries[:-1])
            await self._begin(reply)
        self.editing = self.resuming = None
        await self.refresh_system()
        await self.refresh_chats()
        self.count_soon()

    async def open_chat(self, chat: str, message: str | None = None) -> None:
        """Opens a stored chat, with its own draft, model and settings."""
        self._keep_draft()
        self._detach()
        await self.conversation.open(chat, message)
        await self.app.use_model_of(self.conversation)
        await self.show_chat()
        self.prompt.text = self._drafts.get(chat, "")
        self.focus_prompt()

    async def new_chat(self) -> None:
        """An empty chat."""
        self._keep_draft()
        self._detach()
        await self.conversation.clear()
        await self.show_chat()
        self.prompt.text = ""
        self.focus_prompt()

    async def leave_deleted(self) -> None:
        """Chats may have been deleted elsewhere: the list is read anew, and an open one among them is left."""
        chat = self.conversation.chat
        try:
            if chat is not None:
                await self.app.store.chat(chat.id)
        except InputError:
            await self.new_chat()
        else:
            await self.refresh_chats()

    def _keep_draft(self) -> None:
        if self.conversation.chat is not None:
            self._drafts[self.conversation.chat.id] = self.prompt.text

    def _detach(self) -> None:
        """A reply under way goes on, without being shown."""
        if self.conversation.reply is not None:
            self.conversation.reply.listener = None

    async def refresh_chats(self) -> None:
        """Fills the sidebar."""
        chats = await self.app.store.chats(CHATS_SHOWN)
        current = self.conversation.chat.id if self.conversation.chat is not None else None
        writing = frozenset(self.conversation.replies)
        self.query_one(ChatList).show(chats, current, writing, self.app.clock().date())

    async def refresh_system(self) -> None:
        """The system prompt changed: its name stands in the top line."""
        self._preset = await self.app.preset_name(self.conversation.system)
        self.refresh_header()

    def refresh_header(self, prompt_tokens: int | None = None) -> None:
        """Model, system prompt and context in the top line."""
        model, ready = self.conversation.model, self.conversation.ready
        known = ready is not None and model is not None and ready.model == model.name
        last = next((one.metrics for one in reversed(self.conversation.branch) if one.metrics), None)
        used = prompt_tokens if prompt_tokens is not None else (last.context_tokens if last else 0)
        self.query_one(Header).show(
            model=_called(model) if model is not None else "",
            preset=self._preset,
            context_tokens=used,
            max_context=ready.max_context if known and ready is not None else 0,
        )

    # -- saying something --------------------------------------------------------------------------------

    @on(PromptArea.Submitted)
    def _submitted(self, event: PromptArea.Submitted) -> None:
        self.run(self._say(event.text))

    @on(PromptArea.SlashCommand)
    def _slash(self, event: PromptArea.SlashCommand) -> None:
        self.do(event.name, event.argument)

    @on(PromptArea.EditLast)
    def _edit_last(self) -> None:
        self.do("edit")

    @on(ChatList.Opened)
    def _opened(self, event: ChatList.Opened) -> None:
        self.run(self.open_chat(event.chat))

    async def _say(self, text: str) -> None:
        """Sends a message, or a new version of one; what cannot be sent is given back."""
        try:
            self.require_rest()
            if self.conversation.model is None:
                await self.app.choose_model()
            editing, resuming = self.editing, self.resuming
            if resuming is not None:
                reply = await self.conversation.resume(resuming, text)
            elif editing is not None:
                old = await self.app.store.message(editing)
                reply = await self.conversation.say(text, old.parent, branch=True)
            else:
                reply = await self.conversation.say(text)
        except Exception:
            self.prompt.give_back(text)
            raise
        self.editing = self.resuming = None
        await self.start(reply, appended=editing is None and resuming is None)

    async def start(self, reply: Reply, *, appended: bool = False) -> None:
        """Shows a reply that was just asked for, and follows it to its end."""
        self.query_one(Banner).hide()
        entries = self.conversation.entries
        if self.conversation.reply is not reply:
            pass  # another chat was opened meanwhile
        elif appended and len(entries) > 2:
            await self.transcript.append(entries[-2])
        else:
            await self.transcript.show(entries[:-1])
        await self._begin(reply)
        self.app.follow(reply)
        await self.refresh_chats()

    async def _begin(self, reply: Reply) -> None:
        """Shows what there is of a reply, then everything as it comes, unless another chat is opened meanwhile."""
        if self.conversation.reply is not reply:
            return
        begun = reply.message
        await self.transcript.begin(replace(self.conversation.entries[-1], message=begun))
        if self.conversation.reply is not reply:
            return
        came = reply.message  # meanwhile
        self.transcript.feed(came.text[len(begun.text) :], came.thought[len(begun.thought) :])
        reply.listener = self._update

    def _update(self, update: Update) -> None:
        """A batch of the reply shown."""
        if update.text or update.thought:
            self.transcript.feed(
                update.text, update.thought, update.drafted if self.app.settings.tint else ()
            )
        for event in update.events:
            self.feed(event)
            if isinstance(event, Stats):
                self.refresh_header(event.metrics.context_tokens)

    def feed(self, event: object) -> None:
        """An event of the engine that the figures show."""
        if isinstance(event, Ready):
            self.conversation.ready = event
            self.refresh_header()
        self.query_one(MetricsPanel).feed(event)
        self.query_one(StatusLine).feed(event)

    async def ended(self, reply: Reply) -> None:
        """A reply of this or another chat has run to its end."""
        await self.conversation.finished(reply)
        shown = self.conversation.chat is not None and self.conversation.chat.id == reply.message.chat
        if shown and self.conversation.entries:
            last = self.conversation.entries[-1]
            if last.message.id == reply.message.id:
                await self.transcript.finish(last)
            self.refresh_header()
        for notice in reply.notices:
            self.tell(notice)
        if reply.trimmed:
            self.tell(
                f"the oldest {reply.trimmed} messages were left out, so that the prompt fits the context"
            )
        await self.refresh_chats()

    def focus_prompt(self) -> None:
        """From the very next key on: ``Widget.focus`` would come after the keys that are waiting."""
        self.set_focus(self.prompt)

    def begin_edit(self, text: str, *, editing: str | None = None, resuming: str | None = None) -> None:
        """Puts a text into the prompt, to be sent as a new version of a message."""
        self.editing, self.resuming = editing, resuming
        self.prompt.text = text
        self.prompt.move_cursor(self.prompt.document.end)
        self.focus_prompt()
        what = "your message" if editing is not None else "the reply, which the model continues"
        self.query_one(Banner).show(
            f"Editing {what}: it becomes a branch of its own.", key="stop", acts="leaves it"
        )

    def end_edit(self) -> None:
        """Leaves an edit without sending it."""
        self.editing = self.resuming = None
        self.prompt.text = ""
        self.query_one(Banner).hide()

    def require_rest(self) -> None:
        """Raises InputError while a reply is being written here."""
        if self.conversation.reply is not None:
            raise InputError(f"the reply is still being written; {called(self.app, 'stop')} stops it")

    def require_model(self) -> ModelRef:
        """The model in use. Raises InputError where there is none."""
        return self.conversation.require_model()

    def open_find(self, words: str) -> None:
        """Shows the search in this chat."""
        bar = self.query_one(FindBar)
        bar.open(words)

    @on(FindBar.Find)
    def _find(self, event: FindBar.Find) -> None:
        which, total = self.transcript.find(event.words, event.step)
        self.query_one(FindBar).show_count(which, total)

    @on(FindBar.Closed)
    def _find_closed(self) -> None:
        self.transcript.find("")
        self.focus_prompt()

    # -- counting ----------------------------------------------------------------------------------------

    @on(TextArea.Changed)
    def count_soon(self) -> None:
        """Counts the prompt's tokens when the keyboard is quiet."""
        if not self.prompt.text:
            self.query_one(PromptCount).update("")
        if self._counting is not None:
            self._counting.stop()
        self._counting = self.set_timer(COUNT_AFTER_S, self._count)

    @work(exclusive=True, group="count")
    async def _count(self) -> None:
        draft = self.prompt.text
        if self.conversation.reply is not None:
            return  # the metrics tell what the context holds
        stream = self.conversation.count(draft)
        label = self.query_one(PromptCount)
        if stream is None:
            return
        async for batch in stream:
            if not self.is_running:  # the app is being left
                return
            for event in batch:
                if isinstance(event, Counted):
                    counted = event.draft_tokens >= 0
                    label.update(f"{event.draft_tokens} tok" if counted and draft else "")
                    if counted:
                        self.refresh_header(event.prompt_tokens)
                elif isinstance(event, Failed):
                    label.update("")

    # -- doing things ------------------------------------------------------------------------------------

    async def action_do(self, action: str) -> None:
        """What every key does. What only changes the view is done before the next key is looked at."""
        from macllm_tui.commands import COMMANDS, IMMEDIATE

        if action in IMMEDIATE:
            await self._told(COMMANDS[action](self, ""))
        else:
            self.do(action)

    def do(self, action: str, argument: str = "") -> None:
        """Does what an action of the table says, in its own task."""
        from macllm_tui.commands import COMMANDS

        self.run(COMMANDS[action](self, argument))

    def run(self, work: Awaitable[None]) -> None:
        """Runs a coroutine; an error of ours is told in its sentence."""

        async def opened() -> None:
            await self.app.opened.wait()
            await self._told(work)

        self.run_worker(opened(), group="actions")

    async def _told(self, work: Awaitable[None]) -> None:
        try:
            await work
        except MacllmError as error:
            self.tell(str(error), severity="error")

    def tell(self, sentence: str, severity: Any = "information") -> None:
        """Shows a sentence for a while."""
        self.app.notify(sentence, severity=severity, markup=False)


def _called(model: ModelRef) -> str:
    """What the top line calls a model, with its adapter where it has one."""
    return f"{model.name} + {Path(model.adapter).name}" if model.adapter is not None else model.name
