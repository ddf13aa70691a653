"""The Textual app: what outlives a screen. Engine, store, settings, model in use, replies and downloads under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from textual.app import App
from textual.binding import Binding
from textual.screen import Screen
from textual.worker import Worker, active_worker

from macllm.chats.async_store import AsyncStore
from macllm.chats.store import damage_sentence
from macllm.engine.death import DIED, EngineDied
from macllm.engine.events import Failed, Ready
from macllm.engine.protocol import Load, ModelRef
from macllm.engine.request import Sampling
from macllm.engine.stream import Engine, Stream
from macllm.errors import ContextError, MacllmError
from macllm_tui.actions import BY_ID, NO_ADAPTER
from macllm_tui.bindings import called, keymap
from macllm_tui.conversation import Conversation
from macllm_tui.home import Home, UserHome
from macllm_tui.reply import Reply
from macllm_tui.screens.chat import ChatScreen
from macllm_tui.settings import Settings
from macllm_tui.themes import app_arguments, install
from macllm_tui.widgets.banner import Banner

if TYPE_CHECKING:
    from macllm_tui.comparison import Side
    from macllm_tui.downloads import Downloads
    from macllm_tui.training import TrainingRun

T = TypeVar("T")
LEAVE_WITHIN_S = 3.0
FINISHED = ("replies", "settings", "training")  # groups of work that leaving waits for
WATCH_EVERY_S = 1.0  # how soon a death of the idle engine shows


@dataclass(frozen=True)
class Start:
    """How the app begins: by the command line."""

    model: str | None = None  # None: the one used last
    system: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    kv_bits: int | None = None
    adapter: str | None = None  # the folder of one; of the first model alone
    theme: str | None = None  # for this time


class MacllmApp(App[None], inherit_bindings=False):
    """The app. It starts ``engine`` and opens the store at ``chats`` (None: the user's own) after its first screen."""

    TITLE = "macllm"
    ENABLE_COMMAND_PALETTE = False  # ours opens by the key in the table
    BINDINGS: ClassVar[list[Any]] = [
        Binding(BY_ID["quit"].key, "quit", show=False, priority=True, id="quit"),  # on every screen
        Binding(
            BY_ID["help"].key, "help", show=False, id="help"
        ),  # on those that have no such key themselves
        Binding("ctrl+c", "help_quit", show=False, system=True),
    ]
    CSS = """
    Screen { background: $background; color: $text; }
    ModalScreen { background: $background 60%; &:ansi { background: transparent; } }
    /* at the top: the prompt is at the bottom, and nothing may cover what is being typed */
    ToastRack { dock: top; align: right top; margin: 1 0 0 0; }
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        start: Start | None = None,
        *,
        chats: Path | None = None,
        home: Home | None = None,
        clock: Callable[[], datetime] = datetime.now,
        notices: Sequence[str] = (),
    ) -> None:
        super().__init__(**app_arguments())
        self._notices = notices
        self.begun = asyncio.Event()  # engine, store and first model are there, or will not come
        self.home = home or UserHome()
        self.engine = engine
        self._chats = chats
        self._store: AsyncStore | None = None
        self.opened = asyncio.Event()  # the store is open, or it is known that it cannot be
        self.settings = settings
        self.clock = clock
        self.loading: Stream | None = None
        self.training: TrainingRun | None = None
        self._leaving = False
        self._saving = asyncio.Lock()
        self._downloads: Downloads | None = None
        self._start = start or Start()
        self.conversation = Conversation(engine, lambda: self.store)
        self.conversation.system = self._start.system
        self.conversation.settings = dict(self._start.sampling)
        self.chat_screen = ChatScreen(self.conversation)

    def get_default_screen(self) -> Screen[Any]:
        return self.chat_screen

    async def action_quit(self) -> None:
        """Leaves, once; asks first where that would stop a fine-tuning run. Asked again, it waits for no run."""
        self.run_worker(self._quit(), group="leave", exclusive=True)

    async def _quit(self) -> None:
        from macllm_tui.drawers.choices import Confirm

        run, asked = self.training, isinstance(self.screen, Confirm)
        patience_s = LEAVE_WITHIN_S
        if run is not None and not run.over and not asked and not self._leaving:
            question = "A model is being fine-tuned. Leaving stops that after this step; it can be resumed."
            if not await self.ask(Confirm(question, "leave")):
                return
            patience_s = max(patience_s, run.stops_within_s)
            if not run.over and run.stops_within_s > LEAVE_WITHIN_S:
                self.notify(
                    f"Saving the run after this step; {called(self, 'quit')} does not wait",
                    timeout=patience_s,
                )
        self._leaving = True
        await self.leave(patience_s)

    def action_help_quit(self) -> None:
        """Says how one leaves, to those who press ctrl+c."""
        self.notify(f"{called(self, 'quit')} leaves; what was said is kept", markup=False)

    def action_help(self) -> None:
        """Every key, those of the other screens too."""
        from macllm_tui.screens.help import HelpScreen

        self.push_screen(HelpScreen(self.settings.keys))

    def action_command_palette(self) -> None:
        """Our own palette, made from the table of actions."""
        from macllm_tui.palette import open_palette

        open_palette(self)

    async def on_mount(self) -> None:
        install(self, self._start.theme or self.settings.theme)
        keys = keymap(self.settings.keys)
        self.set_keymap(keys.overrides)
        for problem in (*self._notices, *keys.problems):
            self.notify(problem, severity="warning", markup=False)
        self.run_worker(self._begin(), group="start")

    async def _begin(self) -> None:
        """Everything that the prompt need not wait for: engine, store, model."""
        try:
            await self._open_store()
            await self.engine.start()
            if self.engine.machine is not None:
                self.chat_screen.feed(self.engine.machine)
            self.set_interval(WATCH_EVERY_S, self._watch)
            await self._first_model()
        except MacllmError as error:
            self._trouble(str(error))
        finally:
            self.begun.set()

    @property
    def store(self) -> AsyncStore:
        """The chats. Raises MacllmError where they could not be opened."""
        if self._store is None:
            raise MacllmError(
                "the chats could not be opened, so nothing can be said; see the notice above the prompt"
            )
        return self._store

    async def _open_store(self) -> None:
        try:
            self._store = await AsyncStore.open(self._chats)
        except MacllmError as error:  # one can talk all the same
            self._trouble(f"{error}. What is said now is not kept.")
            self._store = await AsyncStore.in_memory()
        finally:
            self.opened.set()
        if self._store.set_aside is not None:
            self._trouble(await self._store.call(damage_sentence))
        await self.chat_screen.refresh_system()
        await self.chat_screen.refresh_chats()

    async def _first_model(self) -> None:
        """The model asked for, else the one used last, else what the welcome screen comes to."""
        ref = await asyncio.to_thread(self.home.first_model, self._start.model, self._start.dtype)
        if ref is None:
            from macllm_tui.screens.welcome import WelcomeScreen

            self.begun.set()
            ref = await self.ask(WelcomeScreen(self.engine, self.downloads))
        if ref is not None:
            await self.use_model(replace(ref, adapter=self._start.adapter or ref.adapter))
        names, adapters = await asyncio.to_thread(lambda: (self.home.names(), self.home.adapters()))
        self.chat_screen.prompt.offers = {
            **self.chat_screen.prompt.offers,
            "model": names,
            "explain": names,
            "adapter": (*adapters, NO_ADAPTER),
        }

    # -- models ------------------------------------------------------------------------------------------

    def _as_asked(self, ref: ModelRef) -> ModelRef:
        """The model with what the command line asks of all of them."""
        return replace(ref, kv_bits=self._start.kv_bits) if self._start.kv_bits is not None else ref

    @property
    def downloads(self) -> Downloads:
        """The downloads under way; they go on while other screens are shown."""
        if self._downloads is None:
            from macllm_tui.downloads import Downloads

            self._downloads = Downloads()
        return self._downloads

    async def choose_model(self) -> None:
        """Opens the models screen, and uses what is chosen there."""
        ref = await self.pick_model()
        if ref is not None:
            await self.use_model(ref)

    async def pick_model(self) -> ModelRef | None:
        """What is chosen on the models screen."""
        from macllm_tui.screens.models import ModelsScreen

        current = self.conversation.model.name if self.conversation.model is not None else ""
        return await self.ask(ModelsScreen(self.engine, self.downloads, current=current))

    async def use_model(self, ref: ModelRef) -> None:
        """Makes it the conversation's model and loads it; esc stops the load."""
        self.conversation.model = ref = self._as_asked(ref)
        if self.conversation.chat is not None:
            await self.conversation.change(model=ref.name)
        self.chat_screen.refresh_header()
        self.change_settings(self.settings.used(ref.name))
        await asyncio.to_thread(self.home.used, ref.name)
        await self.load(ref)

    async def use_adapter(self, folder: str | None) -> None:
        """Has the model answer with the adapter in this folder, or alone. Where it cannot, all stays as it was."""
        before = self.conversation.require_model()
        self.conversation.model = ref = replace(before, adapter=folder)
        if not await self.load(ref) and self.conversation.model is ref:
            self.conversation.model = before
        self.chat_screen.refresh_header()

    async def load(self, ref: ModelRef) -> bool:
        """Has the engine load it instead of what is being loaded, while the figures show how far it is.

        Whether it came to be ready.
        """
        if self.loading is not None:
            self.loading.cancel()
        self.loading = stream = self.engine.submit(Load(ref))
        ready = False
        try:
            async for batch in stream:
                for event in batch:
                    self.chat_screen.feed(event)
                    if isinstance(event, Failed):
                        self._failed(event)
                    elif isinstance(event, Ready):
                        ready = True
                        self.chat_screen.count_soon()
        finally:
            if self.loading is stream:
                self.loading = None
        return ready

    async def use_model_of(self, conversation: Conversation) -> None:
        """A stored chat goes on with its own model, where that is still here. It is loaded when something is said."""
        name = conversation.chat.model if conversation.chat is not None else ""
        if not name or (conversation.model is not None and conversation.model.name == name):
            return
        try:
            conversation.model = self._as_asked(await asyncio.to_thread(self.home.resolve, name))
        except MacllmError:
            if conversation.model is not None:
                self.chat_screen.tell(
                    f"{name} is not here any more; this chat goes on with {conversation.model.name}"
                )

    # -- replies -----------------------------------------------------------------------------------------

    def follow(self, reply: Reply) -> None:
        """Runs a reply to its end, whatever is on the screen then."""
        self.run_worker(self._follow(reply), group="replies")

    async def _follow(self, reply: Reply) -> None:
        await reply.run()
        try:
            await self.chat_screen.ended(reply)
        except MacllmError as error:
            self._trouble(str(error))
        if reply.deleted:
            return
        if reply.unsaved:
            self._trouble(reply.unsaved)
        if reply.failure is not None:
            self._failed(reply.failure, reply)
        elif self._context_is_full(reply):
            self._make_room(reply, "The context is full: the reply ended in the middle.")

    def _context_is_full(self, reply: Reply) -> bool:
        metrics = reply.message.metrics
        full = metrics is not None and 0 < metrics.max_context <= metrics.context_tokens
        return full and reply.message.state == "length"

    def _failed(self, event: Failed, reply: Reply | None = None) -> None:
        if event.kind == DIED:
            kept = ". What came of the reply is kept." if reply is not None else ""
            self._banner().show(
                f"{event.message.rstrip('.')}{kept}", severity="error", key="restart", acts="starts it again"
            )
        elif event.kind == ContextError.__name__ and reply is not None:
            self._make_room(reply, event.message)
        else:
            self._trouble(event.message)

    def _make_room(self, reply: Reply, sentence: str) -> None:
        self.chat_screen.run(self._ask_about_context(reply, sentence))

    async def _ask_about_context(self, reply: Reply, sentence: str) -> None:
        """The context is full: does what the chat says, or asks."""
        from macllm_tui.drawers.choices import ContextChoice
        from macllm_tui.overflow import dead_end, make_room

        chat = self.conversation.chat
        if chat is None or chat.id != reply.message.chat:
            return
        if why := dead_end(self.conversation, reply):
            self._trouble(f"{sentence.rstrip('.')}. {why}")
            return
        choice: str | None = chat.overflow
        if choice == "ask":
            choice = await self.ask(ContextChoice(sentence))
        if choice is not None:
            await make_room(self.chat_screen, reply, choice)

    # -- the engine --------------------------------------------------------------------------------------

    async def restart_engine(self) -> None:
        """Starts the engine's process again, and the model with it."""
        if self.engine.alive:
            self.chat_screen.tell("the engine is running")
            return
        await self.engine.start()
        self._banner().hide()
        if self.conversation.model is not None:
            await self.load(self.conversation.model)
        else:  # it never ran
            await self._first_model()

    def _watch(self) -> None:
        """Says that the engine died where nobody was waiting for it."""
        if not self.engine.alive and not self._banner().display:
            self._failed(Failed(self.engine.problem or "the engine stopped", EngineDied.exit_code, DIED))

    # -- screens -----------------------------------------------------------------------------------------

    async def open_compare(self, prompt: str) -> None:
        """One prompt, two models or settings; the side that is kept goes on in the chat."""
        from macllm_tui.comparison import Side
        from macllm_tui.screens.compare import CompareScreen

        side = Side(self.chat_screen.require_model(), self.conversation.settings)
        screen = CompareScreen(
            self.engine,
            side,
            side,
            self.conversation.messages,
            prompt,
            choose_model=self.pick_model,
            choose_settings=self._settings_of,
        )
        kept = await self.ask(screen)
        if kept is not None:
            await self.conversation.keep(kept)
            self.chat_screen.prompt.text = ""
            await self.chat_screen.show_chat()

    async def _settings_of(self, side: Side) -> Mapping[str, Any] | None:
        """What the sampler drawer comes to for one side of a comparison."""
        from macllm_tui.drawers.sampler import SamplerDrawer

        ready = self.conversation.ready
        known = ready is not None and ready.model == side.model.name
        defaults = ready.sampling if known and ready is not None else Sampling()
        return await self.ask(SamplerDrawer(defaults, side.settings))

    async def open_finetune(self) -> None:
        """Teaches the model in use; a run under way is shown again."""
        from macllm_tui.screens.finetune import FineTuneScreen

        def keep(run: TrainingRun) -> None:
            self.training = run

        def chat(ref: ModelRef) -> None:
            self.run_worker(self.use_model(ref), group="load")

        base = self.training.request.model if self.training is not None else self.chat_screen.require_model()
        await self.push_screen(
            FineTuneScreen(
                self.engine, base, run=self.training, choose_model=self.pick_model, keep=keep, chat=chat
            )
        )

    async def ask(self, screen: Screen[T]) -> T | None:
        """What a drawer or a screen comes to; None where it was left."""
        return await self.push_screen_wait(screen)

    # -- small things ------------------------------------------------------------------------------------

    def change_settings(self, settings: Settings) -> None:
        """Takes new settings, and keeps them as soon as the disk allows."""
        self.settings = settings
        self.run_worker(self._save_settings(), group="settings")

    async def _save_settings(self) -> None:
        async with self._saving:  # the last one to be chosen is the last one written
            try:
                await asyncio.to_thread(self.home.save, self.settings)
            except MacllmError as error:
                self.warn(str(error))

    def warn(self, sentence: str) -> None:
        """Says for a while that something did not work which nobody is waiting for."""
        self.notify(sentence, severity="warning", markup=False)

    async def preset_name(self, system: str) -> str:
        """What the header calls a system prompt."""
        if not system:
            return ""
        from macllm_tui.presets import name_of

        return name_of(system, await self.store.presets()) or "own"

    async def leave(self, within_s: float = LEAVE_WITHIN_S) -> None:
        """Stops what is under way, keeps it, and ends the app; waits for no more than so many seconds."""
        for reply in list(self.conversation.replies.values()):
            reply.stop()
        if self.training is not None:
            self.training.stop()
        end = time.monotonic() + within_s  # an engine that does not answer keeps nobody here
        while time.monotonic() < end and any(worker.group in FINISHED for worker in self._at_work()):
            await asyncio.sleep(0.01)
        own = active_worker.get(None)
        for worker in self._at_work():
            if worker is not own:
                worker.cancel()  # what would still ask the store or the engine
        await self.engine.close()
        store, self._store = self._store, None
        if store is not None:
            await store.close()
        self.exit()

    def _at_work(self) -> list[Worker[Any]]:
        return [worker for worker in self.workers if worker.is_running]

    def _banner(self) -> Banner:
        return self.chat_screen.query_one(Banner)

    def _trouble(self, sentence: str) -> None:
        self._banner().show(sentence, severity="error")
