"""The fine-tuning screen: a form to start a run, and the view of the run. It drives the engine; it computes nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Button, Footer, Static

from macllm.engine.client import Engine
from macllm.engine.protocol import ModelRef
from macllm_tui.bindings import called
from macllm_tui.screens.finetune_draft import Draft
from macllm_tui.screens.finetune_form import ChooseModel, FineTuneForm
from macllm_tui.screens.training_view import Samples, TrainingView
from macllm_tui.training import TrainingRun
from macllm_tui.widgets.fields import Field

Keep = Callable[[TrainingRun], None]
Chat = Callable[[ModelRef], None]


class FineTuneScreen(Screen[None]):
    """Teaches ``base``. ``run`` is one to show again; ``keep`` is told of a run that began, which outlives the screen.

    ``choose_model`` lets the person choose another base, and ``chat`` is given the model with what it learned.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "close")]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012  (Textual declares it so)
    DEFAULT_CSS = """
    FineTuneScreen > #finetune-title { height: 1; padding: 0 1; background: $panel; color: $text; text-style: bold; }
    FineTuneScreen > Container { height: 1fr; }
    FineTuneScreen.-narrow FineTuneForm { layout: vertical; }
    FineTuneScreen.-narrow #finetune-side {
        width: 1fr; height: auto; max-height: 50%; border-left: none; border-top: solid $panel;
    }
    FineTuneScreen.-narrow #finetune-report { height: auto; max-height: 5; }
    """

    def __init__(
        self,
        engine: Engine,
        base: ModelRef,
        *,
        run: TrainingRun | None = None,
        choose_model: ChooseModel | None = None,
        keep: Keep | None = None,
        chat: Chat | None = None,
    ) -> None:
        super().__init__()
        self.training = run
        self._engine = engine
        self._draft = Draft.of(run.request) if run is not None else Draft(base)
        self._choose_model = choose_model
        self._keep = keep
        self._chat = chat
        self._shown: FineTuneForm | TrainingView | None = None

    def compose(self) -> ComposeResult:
        yield Static("Fine-tune", id="finetune-title", markup=False)
        yield Container()
        yield Footer(compact=True, show_command_palette=False)

    async def on_mount(self) -> None:
        if self.training is not None:
            await self._show_run(self.training)
        else:
            await self._show_form()

    @property
    def form(self) -> FineTuneForm | None:
        """The form, where it is shown."""
        return self._shown if isinstance(self._shown, FineTuneForm) else None

    @property
    def view(self) -> TrainingView | None:
        """The view of the run, where it is shown."""
        return self._shown if isinstance(self._shown, TrainingView) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what can be done now has a key."""
        run, form = self.training, self.form
        match action:
            case "stop_run":
                return run is not None and run.state in ("starting", "running")
            case "resume_run":
                return run is not None and run.resumable
            case "edit":
                return run is not None and run.over
            case "chat_with":
                return run is not None and run.trained is not None and self._chat is not None
            case "resume":
                return form is not None and form.resumable
        return True

    # -- the form ----------------------------------------------------------------------------------------

    def action_start(self) -> None:
        """Starts a new adapter, or says what is still to be done."""
        form = self.form
        if form is None:
            return
        if form.draft.existing is not None:
            form.refuse(form.query_one("#field-adapter", Field).note.removeprefix("! "))
            form.go_to("adapter")
            return
        self._submit(form, resume=False)

    def action_resume(self) -> None:
        """Goes on with the adapter of that name."""
        if self.form is not None and self.form.resumable:
            self._submit(self.form, resume=True)

    @on(Button.Pressed, "#finetune-start")
    def _press_start(self) -> None:
        self.action_start()

    @on(Button.Pressed, "#finetune-resume")
    def _press_resume(self) -> None:
        self.action_resume()

    def _submit(self, form: FineTuneForm, *, resume: bool) -> None:
        problems = form.problems()
        if problems:
            field, sentence = next(iter(problems.items()))
            form.refuse(sentence)
            form.go_to(field)
            return
        if form.report is None:
            form.refuse("The data is not read yet; wait a moment, or correct its path.")
            form.go_to("data")
            return
        self._draft = form.draft
        self._begin(TrainingRun(self._engine, form.draft.request(resume=resume)))

    # -- the run -----------------------------------------------------------------------------------------

    @work(exclusive=True, group="finetune-show")
    async def _begin(self, run: TrainingRun) -> None:
        """The run belongs to the app: it goes on when this screen is closed."""
        self.training = run
        if self._keep is not None:
            self._keep(run)
        self.app.run_worker(self._follow(run), group="training", exit_on_error=False)
        await self._show_run(run)

    async def _follow(self, run: TrainingRun) -> None:
        """To its end, which is told where another screen is shown by then."""
        await run.follow()
        if self.app.is_running and self not in self.app.screen_stack:
            end = {"finished": "is finished", "stopped": "was stopped", "failed": "has failed"}[run.state]
            told = f"Fine-tuning {run.request.adapter} {end}; {called(self.app, 'finetune')} shows it."
            self.app.notify(told, severity="error" if run.state == "failed" else "information", markup=False)

    @work(exclusive=True, group="finetune-ask")
    async def action_stop_run(self) -> None:
        """Stops, once the person has said yes."""
        from macllm_tui.drawers.choices import Confirm

        question = "Stop the run? What is learned so far is saved, and it can be resumed."
        agreed = await self.app.push_screen_wait(Confirm(question, "stop"))
        if agreed and self.training is not None:
            self.training.stop()

    def action_resume_run(self) -> None:
        """Goes on from the last save."""
        if self.training is not None and self.training.resumable:
            self._begin(self.training.resumed())

    @work(exclusive=True, group="finetune-show")
    async def action_edit(self) -> None:
        """The form again, with all that was filled in."""
        self.training = None
        await self._show_form()

    def action_chat_with(self) -> None:
        """Closes, and has the chat answer with what was learned."""
        run = self.training
        if run is None or run.trained is None or self._chat is None:
            return
        self._chat(replace(run.request.model, adapter=run.trained.path))
        self.dismiss(None)

    def action_leave(self) -> None:
        """Closes; a run goes on."""
        run = self.training
        if run is not None and not run.over:
            self.app.notify(f"The run goes on; {called(self.app, 'finetune')} shows it again.", markup=False)
        self.dismiss(None)

    async def _show_form(self) -> None:
        self._title("Fine-tune")
        await self._put(FineTuneForm(self._draft, lambda: self._engine.machine, self._choose_model))
        self.refresh_bindings()

    async def _put(self, shown: FineTuneForm | TrainingView) -> None:
        self._shown = None
        place = self.query_one(Container)
        await place.remove_children()
        await place.mount(shown)
        self._shown = shown

    async def _show_run(self, run: TrainingRun) -> None:
        self._title(f"Fine-tune  {run.request.adapter} on {run.request.model.name}")
        view = self.view
        if view is not None:
            view.show(run)
        else:
            await self._put(TrainingView(run))
        self.query_one(Samples).focus()
        self.refresh_bindings()

    def _title(self, text: str) -> None:
        self.query_one("#finetune-title", Static).update(text)
