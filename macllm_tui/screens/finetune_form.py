"""The form of a fine-tuning run; as one types, the data is checked and the memory estimated."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Input, Label, Static

from macllm.adapters import kept as adapters
from macllm.engine.events import Machine
from macllm.engine.protocol import ModelRef
from macllm.errors import Cancelled, InputError, MacllmError, OptionError
from macllm.tune.memory import Base, Estimate, estimate, read_base
from macllm.tune.peak import Device
from macllm.tune.rows import SPLITS, DataReport, check
from macllm.tune.settings import FORM, SETTINGS, Setting
from macllm.units import size
from macllm_tui.screens.finetune_draft import Draft, free_name
from macllm_tui.widgets.fields import Choice, Field, Fill, PathInput, Toggle

PAUSE_S = 0.2  # after the last key, before the data is read
LOOK_EVERY_S = 0.5
_TEMPLATE = 64  # tokens around a row, about, whose characters are a token each at most
_MARKS = {"fits": "✓", "tight": "!", "too big": "✗", "unknown": "?"}

_FURTHER = tuple(setting for setting in SETTINGS if not setting.form)

ChooseModel = Callable[[], Awaitable[ModelRef | None]]


class FineTuneForm(Horizontal):
    """The form. ``draft`` is what it holds, ``report`` what the data holds once it was read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "screen.start", "start"),
        Binding("ctrl+r", "screen.resume", "resume"),
        Binding("ctrl+l", "choose_base", "base model"),
    ]
    DEFAULT_CSS = """
    FineTuneForm > #finetune-fields { width: 1fr; height: 1fr; padding: 0 1; }
    FineTuneForm > #finetune-side { width: 46; height: 1fr; padding: 0 1; border-left: solid $panel; }
    FineTuneForm #finetune-report { height: 1fr; color: $text-muted; }
    FineTuneForm #finetune-memory, FineTuneForm #finetune-summary { height: auto; }
    FineTuneForm .-fits { color: $text-success; }
    FineTuneForm .-tight { color: $text-warning; }
    FineTuneForm .-too-big { color: $text-error; }
    FineTuneForm #finetune-refused { height: auto; color: $text-error; }
    FineTuneForm #finetune-buttons { height: 1; }
    FineTuneForm #finetune-buttons Button { margin-right: 2; }
    FineTuneForm .finetune--part { text-style: bold; color: $text-muted; margin-bottom: 1; }
    FineTuneForm #finetune-unfold { width: auto; margin-bottom: 1; }
    FineTuneForm #finetune-further { height: auto; display: none; }
    FineTuneForm #finetune-report:focus { background: $surface; }
    """

    def __init__(
        self, draft: Draft, machine: Callable[[], Machine | None], choose_model: ChooseModel | None
    ) -> None:
        super().__init__()
        self.draft = draft
        self.report: DataReport | None = None
        self.estimate: Estimate | None = None
        self._read: Base | None = None
        self._fields: tuple[Field, ...] = ()
        self._machine = machine
        self._judged_for: Machine | None = None
        self._choose_model = choose_model
        self._named_by_hand = bool(draft.adapter)

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="finetune-fields", can_focus=False):
            placeholder = "a .jsonl file, or a folder with train.jsonl"
            path = PathInput(self.draft.data, placeholder, (".jsonl",), SPLITS[0])
            yield Field("data", "data", path, "tab completes the path")
            yield Field("base", "base model", Button(self._base_name(), compact=True), self._base_help())
            name = Input(self.draft.adapter, "a name of your own", compact=True, select_on_focus=False)
            yield Field("adapter", "adapter", name, "the name of what is made")
            yield Label("Settings", classes="finetune--part")
            yield from map(self._field, FORM)
            yield Button(id="finetune-unfold", compact=True)
            with Vertical(id="finetune-further"):
                yield from map(self._field, _FURTHER)
        with Vertical(id="finetune-side"):
            with VerticalScroll(id="finetune-report"):
                yield Static(id="finetune-data", markup=False)
            yield Static(id="finetune-summary", markup=False)
            yield Static(id="finetune-memory", markup=False)
            yield Static(id="finetune-refused", markup=False)
            with Horizontal(id="finetune-buttons"):
                yield Button("Start", id="finetune-start", compact=True, variant="primary")
                yield Button("Resume", id="finetune-resume", compact=True)

    def on_mount(self) -> None:
        self._fields = tuple(self.query(Field))
        self.query_one("#field-data", Field).content.focus()
        self._label_further()
        self.look()
        self.set_interval(LOOK_EVERY_S, self._look_at_machine)

    def look(self) -> None:
        """Reads the data and estimates the memory anew: what is on disk may have changed."""
        self._check_data()
        self._estimate()
        self._check_name()

    def refuse(self, sentence: str) -> None:
        """Says why it does not start."""
        self.query_one("#finetune-refused", Static).update(f"✗ {sentence}" if sentence else "")

    def problems(self) -> dict[str, str]:
        """What keeps the run from starting, by field."""
        return self.draft.problems(self.report)

    def go_to(self, field: str) -> None:
        """Puts the focus where something is to be corrected."""
        if any(setting.name == field for setting in _FURTHER):
            self._unfold(True)
        self.query_one(f"#field-{field}", Field).content.focus()

    @on(Button.Pressed, "#finetune-unfold")
    def _press_unfold(self, event: Button.Pressed) -> None:
        event.stop()
        self._unfold(not self.query_one("#finetune-further").display)

    def _unfold(self, wide: bool) -> None:
        self.query_one("#finetune-further").display = wide
        self._label_further()

    def _label_further(self) -> None:
        shown = [each.name for each in _FURTHER if each.name not in self.draft.foreign]
        changed = [name for name in self.draft.changed if name in shown]
        told = f" (changed: {', '.join(changed)})" if changed else ""
        mark = "▾" if self.query_one("#finetune-further").display else "▸"
        self.query_one("#finetune-unfold", Button).label = Content(f"{mark} {len(shown)} more settings{told}")

    @on(Field.Changed)
    def _changed(self, event: Field.Changed) -> None:
        event.stop()
        field, self.draft = event.field, self._with(event.field)
        self.refuse("")
        if field.key in ("data", "keys"):
            self._check_data()
        if field.key == "data":
            return
        if field.key == "adapter":
            if self.focused_field() == "adapter":  # else it was proposed
                self._named_by_hand = bool(field.value)
            self._check_name()
        else:
            self._show_problems()
            self._label_further()
            self._estimate()

    def focused_field(self) -> str:
        """The key of the field with the focus."""
        return next((field.key for field in self._fields if field.content.has_focus), "")

    def _with(self, field: Field) -> Draft:
        if field.key == "data":
            return replace(self.draft, data=field.value)
        if field.key == "adapter":
            return replace(self.draft, adapter=field.value, existing=None)
        return self.draft.with_text(field.key, field.value)

    # -- the data ----------------------------------------------------------------------------------------

    @work(exclusive=True, group="finetune-data")
    async def _check_data(self) -> None:
        self.report = None
        text = self.draft.data.strip()
        if not text:
            self._show_data(
                "A data set is a file with one JSON object a line: messages, prompt and completion, text."
            )
            self.query_one("#field-data", Field).say()
            return
        await asyncio.sleep(PAUSE_S)
        self._show_data("Reading…")
        stop = threading.Event()
        try:
            report = await asyncio.to_thread(
                check,
                Path(text),
                keys=self.draft.texts["keys"],
                progress=self._progress_from_thread(stop),
                cancelled=stop.is_set,
            )
            name = await asyncio.to_thread(free_name, text)
        except Cancelled:
            return
        except OptionError:
            self._show_data("")  # the field of the keys says what is wrong with them
            return
        except InputError as error:
            self._show_data("")
            self.query_one("#field-data", Field).say(f"{error}.", wrong=True)
            return
        except OSError as error:
            self.query_one("#field-data", Field).say(
                f"{text}: it cannot be read ({error.strerror}).", wrong=True
            )
            return
        finally:
            stop.set()
        self._take_report(report, name)

    def _progress_from_thread(self, stop: threading.Event) -> Callable[[int, int], None]:
        loop = asyncio.get_running_loop()

        def show(done: int, total: int) -> None:
            if not stop.is_set():
                self._show_data(f"Reading… {size(done)} of {size(total)}")

        def report(done: int, total: int) -> None:
            if total > 10_000_000:  # less is read before anybody could read this
                loop.call_soon_threadsafe(show, done, total)

        return report

    def _take_report(self, report: DataReport, name: str) -> None:
        self.report = report
        self._show_data(describe(report))
        if report.good and not self._named_by_hand:
            self.query_one("#field-adapter", Field).value = name
        self._show_problems()
        self._estimate()

    def _show_data(self, text: str) -> None:
        if self.is_attached:
            self.query_one("#finetune-data", Static).update(text)

    # -- base, adapter, memory ---------------------------------------------------------------------------

    def _base_name(self) -> str:
        return self.draft.base.name

    def _base_help(self) -> str:
        return "ctrl+l chooses another" if self._choose_model is not None else "the model that learns"

    @on(Button.Pressed, "#field-base Button")
    def _press_base(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_choose_base()

    @work(exclusive=True, group="finetune-base")
    async def action_choose_base(self) -> None:
        if self._choose_model is None:
            return
        chosen = await self._choose_model()
        if chosen is not None:
            self.draft = replace(self.draft, base=chosen)
            button = self.query_one("#field-base Button", Button)
            button.label = self._base_name()
            self._estimate()

    @work(exclusive=True, group="finetune-name")
    async def _check_name(self) -> None:
        name = self.draft.adapter
        try:
            found = await asyncio.to_thread(adapters.existing, name) if name.strip() else None
        except InputError:
            found = None  # its name is told as wrong below
        self.draft = replace(self.draft, existing=found)
        self._show_problems()

    def _look_at_machine(self) -> None:
        """Its memory is known once the engine's process has started."""
        if self.estimate is not None and self._judged_for != self._machine():
            self._estimate()

    @work(exclusive=True, group="finetune-memory")
    async def _estimate(self) -> None:
        memory = self.query_one("#finetune-memory", Static)
        try:
            settings = self.draft.settings()
            base = await asyncio.to_thread(read_base, Path(self.draft.base.path))
            if self._read is None or base.spec != self._read.spec:
                self._read = base
                self._show_problems()  # how many steps it is depends on it
            machine = self._machine()
            limit = machine.memory_limit_bytes if machine is not None else 0
            device = Device.of(machine.backend, machine.dtype) if machine is not None else None
            longest = self.report.longest + _TEMPLATE if self.report is not None else 0
            found = await asyncio.to_thread(estimate, base, settings, limit, device, longest)
            self._judged_for = machine
        except (MacllmError, OSError) as error:
            self.estimate = None
            memory.update(
                f"Memory: {error}." if not isinstance(error, InputError) or "=" not in str(error) else ""
            )
            return
        self.estimate = found
        memory.update(f"{_MARKS[found.verdict]} {found.sentence}")
        memory.set_classes(f"-{found.verdict.replace(' ', '-')}")

    def _show_problems(self) -> None:
        """Each field says what is wrong with it; one that is still empty is not yet wrong."""
        found, unused = self.problems(), self.draft.unused(self.report)
        foreign = self.draft.foreign
        for field in self._fields:
            field.display = field.key not in foreign
            told = found.get(field.key, "")
            if told and not field.value.strip():
                told = ""
            warning = "" if told else self._warning(field.key) or unused.get(field.key, "")
            field.say(told or warning, wrong=bool(told), warning=bool(warning))
        known = self.report is not None and self.report.good and not set(found) - {"adapter", "data"}
        packable = self._read is None or self._read.spec is None or self._read.spec.unpackable is None
        summary = self.draft.summary(self.report, packable) if known and self.report is not None else ""
        self.query_one("#finetune-summary", Static).update(summary)
        resume = self.query_one("#finetune-resume", Button)
        if resume.display != self.resumable:  # each key would make the footer anew
            resume.display = self.resumable
            self.screen.refresh_bindings()

    @property
    def resumable(self) -> bool:
        """Whether a stopped run of this adapter's name can go on."""
        return self.draft.existing is not None and self.draft.existing.resumable

    def _warning(self, key: str) -> str:
        if key == "adapter" and self.draft.existing is not None:
            resume = "Resume it with ctrl+r, or choose" if self.resumable else "Choose"
            return f"There is an adapter of this name. {resume} another name."
        return ""

    def _field(self, setting: Setting) -> Field:
        return Field(setting.name, setting.name, self._content(setting), setting.help)

    def _content(self, setting: Setting) -> Fill:
        text = self.draft.texts[setting.name]
        if setting.switch:
            return Toggle(text)
        if setting.choices:
            return Choice(setting.choices, text)
        placeholder = "not set" if setting.default is None else ""
        return Input(text, placeholder, compact=True, select_on_focus=False)


def describe(report: DataReport) -> str:
    """A report as a few lines: problems first, then counts, then the first row."""
    lines = []
    if report.problem_count:
        more = f", the first {len(report.problems)}" if len(report.problems) < report.problem_count else ""
        lines.append(f"{report.problem_count:,} problem{'s' if report.problem_count != 1 else ''}{more}:")
        lines += [f"✗ {problem}" for problem in report.problems]
    for file in report.files:
        blank = ""
        if file.blank:
            where = f"line {file.first_blank}" if file.blank == 1 else f"the first: line {file.first_blank}"
            blank = f", {file.blank} blank line{'s' if file.blank > 1 else ''} skipped ({where})"
        lines.append(f"{file.name}: {file.rows:,} row{'s' if file.rows != 1 else ''}{blank}")
    kinds = " and ".join(f"{count:,} {schema}" for schema, count in report.schemas.items())
    if report.supervised:
        lines.append(f"kind: {kinds}; {report.supervised:,} to learn from")
        lines.append(
            f"characters: {report.mean:,.0f} a row, longest {report.longest:,} ({report.longest_at})"
        )
    lines += report.notes
    if report.example:
        lines += ["", "The first row:", report.example]
    return "\n".join(lines)
