"""Does in the app what was done while a recording was made: loads, says, edits, answers, compares and trains again."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeAlias

from textual.pilot import Pilot

from macllm.chats.records import Chat
from macllm.engine.protocol import Count, Generate, Load, Request, Train
from macllm.engine.request import Limits
from macllm.engine.stream import Batch, Engine, EngineAround, Stream
from macllm_tui.app import MacllmApp
from macllm_tui.pictures import settle
from macllm_tui.prompting import SUMMARISE, SUMMARY
from macllm_tui.retracing import Place, Tree

if TYPE_CHECKING:
    from macllm_tui.screens.compare import CompareScreen

_ASKING = ("start", "actions", "replies", "default")  # workers that may be waiting for a screen to close

Step: TypeAlias = tuple[Request, ...]  # one request, or the four of a comparison


class Watched(EngineAround):
    """An engine that notes what it is asked and how much it says."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.asked: Counter[str] = Counter()  # requests of each kind
        self.said = 0  # batches, and streams that ended
        self.open = 0  # streams that did not

    def submit(self, request: Request) -> Stream:
        """See :class:`Engine`."""
        self.asked[type(request).__name__] += 1
        self.open += 1
        stream = super().submit(request)
        stream.observe(self._hear)
        return stream

    def _hear(self, batch: Batch | None) -> None:
        self.said += 1
        if batch is None:
            self.open -= 1


class Player:
    """Takes an app through what a recording's requests say was done. ``done`` are the requests so far."""

    def __init__(
        self, app: MacllmApp, pilot: Pilot[Any], engine: Watched, requests: Sequence[Request]
    ) -> None:
        self.done = 0
        self._app = app
        self._pilot = pilot
        self._engine = engine
        self._steps = tuple(steps(requests))
        self._chats: dict[str, str] = {}  # the chat here, by the session of the recording
        self._trees: dict[str, Tree] = {}
        self._compared: tuple[CompareScreen, str] | None = None  # with what was asked there

    def busy(self) -> bool:
        """Whether something is under way. What waits for an answer from a screen is at rest."""
        waiting = _ASKING if len(self._app.screen_stack) > 1 else ()
        at_work = (one for one in self._app.workers if not one.is_finished and one.group not in waiting)
        return self._engine.open > 0 or any(at_work)

    async def play(self) -> None:
        """Does it all, one after the other."""
        await self._app.begun.wait()
        await self._rest()
        needed: Counter[str] = Counter()
        for step in self._steps:
            needed.update(type(request).__name__ for request in step)
            if not self._asked(needed):
                self._app.clear_notifications()
                await self._answer_drawer(step)
            if not self._asked(needed):
                await self._do(step)
                await self._rest()
            for request in step:  # what the app cannot be brought to ask again is left out
                if self._engine.asked[type(request).__name__] < needed[type(request).__name__]:
                    async for _ in self._engine.submit(request):
                        pass
            self.done += len(step)

    def _asked(self, needed: Counter[str]) -> bool:
        """Whether the app asked by itself already: as it began, or to make room in a full context."""
        return all(self._engine.asked[kind] >= count for kind, count in needed.items())

    async def _rest(self) -> None:
        await settle(self._app, self._pilot, self.busy)
        chat = self._app.conversation.chat
        if chat is not None:
            self._tree(chat.id).see(self._app.conversation.branch)

    async def _answer_drawer(self, step: Step) -> None:
        """The context was full: what was chosen shows in what was asked then."""
        from macllm_tui.drawers.choices import ContextChoice

        drawer = self._app.screen
        if not isinstance(drawer, ContextChoice):
            return
        request = step[0]
        drops = isinstance(request, Generate) and bool(request.session) and request.overflow == "drop"
        drawer.dismiss("summarise" if _summarises(request) else "drop" if drops else "stop")
        await self._rest()

    async def _do(self, step: Step) -> None:
        await self._leave_screens(step)
        match step:
            case (Load() as request,):
                await self._load(request)
            case (Generate() as request,):
                if request.session:
                    await self._generate(request)
            case (Train() as request,):
                await self._train(request)
            case (_, Generate() as left, _, Generate() as right):
                await self._compare(left, right)

    async def _leave_screens(self, step: Step) -> None:
        """Back to the chat."""
        if len(self._app.screen_stack) > 1:
            self._app.screen.dismiss()
            await self._rest()
        compared, self._compared = self._compared, None
        if compared is not None and isinstance(step[0], Generate):
            await self._keep(*compared, step[0])

    async def _keep(self, screen: "CompareScreen", prompt: str, request: Generate) -> None:
        """Puts the side that the chat goes on with into it."""
        from macllm_tui.comparison import Kept

        said = [message.text for message in request.messages]
        conversation = self._app.conversation
        run = next((pane.run for pane in screen.panes if pane.run.text in said), None)
        if run is None:
            return
        await conversation.keep(Kept(run.side, prompt, run.text, run.thought, run.metrics))
        await self._app.chat_screen.show_chat()
        if conversation.chat is not None:
            self._chats[request.session] = conversation.chat.id
            self._tree(conversation.chat.id).see(conversation.branch)

    async def _load(self, request: Load) -> None:
        if self._engine.alive:
            await self._app.use_model(request.model)
        else:
            self._app.conversation.model = request.model
            await self._app.restart_engine()

    async def _train(self, request: Train) -> None:
        from macllm_tui.training import TrainingRun

        before = self._app.training
        run = before.resumed() if request.resume and before is not None else None
        self._app.training = run or TrainingRun(self._engine, request)
        self._app.run_worker(self._app.training.follow(), group="training")
        await self._app.open_finetune()

    async def _compare(self, left: Generate, right: Generate) -> None:
        from macllm_tui.screens.compare import CompareScreen, Side

        sides = [Side(one.model, _settings(one)) for one in (left, right)]
        *before, prompt = left.messages
        screen = CompareScreen(self._engine, sides[0], sides[1], before, prompt.text)
        self._compared = screen, prompt.text
        await self._app.push_screen(screen)
        await self._pilot.pause()
        screen.action_run()

    # -- chats -------------------------------------------------------------------------------------------

    async def _generate(self, request: Generate) -> None:
        conversation, screen = self._app.conversation, self._app.chat_screen
        await self._open_chat(request)
        place = self._find(request)
        if place is None:
            await self._fill_in(request)
            place = self._find(request)
            assert place is not None, "what was missing is there now"
        conversation.model, conversation.settings = request.model, _settings(request)
        end = place.path[-1] if place.path else None
        at_end = end == (conversation.branch[-1] if conversation.branch else None)
        if place.how == "say":
            reply = await conversation.say(place.text, end.id if end else None, branch=not at_end)
        elif place.how == "answer" or end is None:
            reply = await conversation.answer(end.id if end else None)
        else:
            old = self._tree(end.chat).reply(place.path, request.messages[-1])
            assert old is not None, "a reply that goes on is there"
            reply = await conversation.resume(old.id, place.text)
        self._chats[request.session] = reply.message.chat
        await screen.start(reply, appended=place.how == "say" and at_end)

    async def _open_chat(self, request: Generate) -> None:
        """The chat of the request's session, with the system prompt it had."""
        conversation, screen = self._app.conversation, self._app.chat_screen
        known = self._chats.get(request.session)
        if known is None:
            await screen.new_chat()
        elif conversation.chat is None or conversation.chat.id != known:
            await screen.open_chat(known)
        system = next((message.text for message in request.messages if message.role == "system"), "")
        if conversation.chat is not None and conversation.chat.summary:
            system = system.partition(SUMMARY)[0].strip()
        if system != conversation.system:
            await conversation.change(system=system)

    def _find(self, request: Generate) -> Place | None:
        chat, shown = self._shown()
        if request.continue_final:
            place = self._tree(chat.id).find(chat, shown, request.messages, resumed=True)
            found = place is not None and self._tree(chat.id).reply(place.path, request.messages[-1])
            return place if found else None
        return self._tree(chat.id).find(chat, shown, request.messages, resumed=False)

    async def _fill_in(self, request: Generate) -> None:
        """Puts into the chat what was said before the recording began."""
        chat, shown = self._shown()
        path, there = self._tree(chat.id).nearest(chat, shown, request.messages)
        store = self._app.store
        if not chat.id:
            chat = await store.create(model=request.model.name, system=chat.system)
        parent = path[-1].id if path else None
        missing = request.messages[there:] if request.continue_final else request.messages[there:-1]
        for message in missing:
            more = {"thought": message.reasoning or "", "parent": parent}
            parent = (await store.add(chat.id, message.role, message.text, **more)).id
        await self._app.chat_screen.open_chat(chat.id, parent)
        self._tree(chat.id).see(self._app.conversation.branch)

    def _shown(self) -> tuple[Chat, tuple[Any, ...]]:
        conversation = self._app.conversation
        return conversation.chat or Chat(id="", system=conversation.system), tuple(conversation.branch)

    def _tree(self, chat: str) -> Tree:
        return self._trees.setdefault(chat, Tree()) if chat else Tree()


def steps(requests: Sequence[Request]) -> Iterator[Step]:
    """The requests in order, those of a comparison together, without the counts of a draft."""
    left = [request for request in requests if not isinstance(request, Count)]
    while left:
        size = 4 if _is_comparison(left[:4]) else 1
        yield tuple(left[:size])
        del left[:size]


def _is_comparison(four: Sequence[Request]) -> bool:
    match four:
        case (Load(a), Generate() as left, Load(b), Generate() as right):
            alone = not left.session and not right.session and left.messages == right.messages
            return alone and (a, b) == (left.model, right.model) and bool(left.messages)
    return False


def _summarises(request: Request) -> bool:
    if not isinstance(request, Generate) or request.session or not request.messages:
        return False
    return request.messages[-1].text == SUMMARISE


def _settings(request: Generate) -> dict[str, Any]:
    """What the chat had set: fields of Sampling, and those of Limits that are not as they are by themselves."""
    given, usual = request.limits, Limits()
    names = [field.name for field in fields(Limits)]
    limits = {name: getattr(given, name) for name in names if getattr(given, name) != getattr(usual, name)}
    return {**request.settings, **limits}
