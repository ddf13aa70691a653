"""The sampling settings of a chat beside the model's own: one row each, changed by typing or step by step."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from macllm.engine.request import Limits, Sampling
from macllm.engine.settings_text import BY_FIELD, SETTINGS, Setting, text_of, value_from
from macllm.errors import OptionError
from macllm_tui.drawers import Drawer

_NAME, _VALUE, _NARROW = 20, 14, 9  # columns; the last is for the value where there is little room


@dataclass(frozen=True)
class Step:
    """How a value moves with left and right."""

    by: float
    low: float
    high: float


GROUPS: Mapping[str, Mapping[str, Step]] = {
    "Choice": {
        "temperature": Step(0.1, 0, 5),
        "top_k": Step(5, 0, 200),
        "top_p": Step(0.05, 0.05, 1),
        "min_p": Step(0.01, 0, 1),
        "xtc_probability": Step(0.1, 0, 1),
        "xtc_threshold": Step(0.05, 0, 0.5),
        "seed": Step(1, 0, 2**64 - 1),
    },
    "Repetition": {
        "repetition_penalty": Step(0.05, 0.5, 2),
        "presence_penalty": Step(0.1, -2, 2),
        "frequency_penalty": Step(0.1, -2, 2),
        "repetition_context": Step(64, 0, 8192),
        "dry_multiplier": Step(0.1, 0, 5),
        "dry_base": Step(0.05, 1, 4),
        "dry_allowed_length": Step(1, 1, 64),
        "dry_context": Step(64, 0, 8192),
    },
    "Length": {"max_tokens": Step(128, 0, 131072), "stop": Step(0, 0, 0)},
}


class Row(Widget, can_focus=True):
    """One setting: its name, its value as text, and the model's own beside it."""

    DEFAULT_CSS = """
    Row {
        height: auto;
        &:focus { background: $boost; }
    }
    """

    class Changed(Message):
        """Its text is another."""

    def __init__(self, setting: Setting, default: Any, value: Any, step: Step) -> None:
        super().__init__()
        self.setting = setting
        self.default = default
        self.text = text_of(setting, value)
        self._step = step
        self._fresh = True  # the first key typed replaces the value

    @property
    def value(self) -> Any:
        """What the text stands for; nothing typed is the model's own. Raises OptionError."""
        return value_from(self.setting, self.text) if self.text.strip() else self.default

    @property
    def problem(self) -> str:
        """Why the text is no value, or nothing."""
        try:
            _ = self.value
        except OptionError as error:
            return str(error)
        return ""

    @property
    def changed(self) -> bool:
        """Whether it is not the model's own."""
        return bool(self.problem) or self.value != self.default

    def reset(self) -> None:
        """The model's own value."""
        self._put(text_of(self.setting, self.default))
        self._fresh = True

    def step(self, by: int) -> None:
        """One step up or down, within the range; none is below the lowest."""
        if self.problem or not self._step.by:
            return
        value, step = self.value, self._step
        if value is None:
            value = None if by < 0 else step.low
        elif self.setting.none and by < 0 and value <= step.low:
            value = None
        else:
            moved = round(value + by * step.by, 6)
            inside = min(max(moved, step.low), step.high)
            # a typed value beyond the steps' range moves only back towards it
            value = inside if (inside - value) * by > 0 else value
        if self.setting.kind == "whole" and value is not None:
            value = int(value)
        self._put(text_of(self.setting, value))
        self._fresh = True

    def render(self) -> Content:
        """Mark, name, value, the model's own; what is wrong on a line of its own."""
        wide = self.size.width >= 56
        room = _VALUE if wide else _NARROW
        shown = self.text + ("▏" if self.has_focus and not self._fresh else "")
        shown = shown if len(shown) <= room else "…" + shown[-room + 1 :]
        name = "$text-accent bold" if self.changed else ""
        field = "$block-cursor-foreground on $block-cursor-background" if self.has_focus else "on $panel"
        own = text_of(self.setting, self.default)
        parts: list[Any] = [
            ("• " if self.changed else "  ", name),
            (self.setting.name.ljust(_NAME), name),
            (f" {shown.ljust(room)} ", field),
            (f"  model {own}" if wide else f"  {own}", "$foreground-muted"),
        ]
        if self.problem:
            parts.append((f"\n  {self.problem}", "$text-error"))
        return Content.assemble(*parts)

    def on_key(self, event: events.Key) -> None:
        """Typing replaces the value, and goes on from there."""
        if event.key == "backspace":
            text = "" if self._fresh else self.text[:-1]
        elif event.is_printable and event.character is not None:
            text = ("" if self._fresh else self.text) + event.character
        else:
            return
        event.stop()
        event.prevent_default()
        self._fresh = False
        self._put(text)

    def on_paste(self, event: events.Paste) -> None:
        """A pasted value is typed."""
        event.stop()
        line = "".join(character for character in event.text.strip() if character.isprintable())
        self._put(line if self._fresh else self.text + line)
        self._fresh = False

    def on_blur(self) -> None:
        """A value that can be read is written as macllm writes it."""
        self._fresh = True
        if not self.problem:
            self._put(text_of(self.setting, self.value))

    def _put(self, text: str) -> None:
        self.text = text
        self.refresh(layout=True)
        self.post_message(self.Changed())


class _Rows(VerticalScroll, inherit_bindings=False, can_focus=False):
    """Follows the row in use: up and down are the drawer's."""


class SamplerDrawer(Drawer[Mapping[str, Any]]):
    """Gives what differs from the model's own settings, by field of Sampling or Limits; None when left.

    ``overrides`` is what differs now. What the drawer does not show (biases of single tokens) stays as it is,
    unless all is reset.
    """

    heading = "Sampling settings"
    BINDINGS: ClassVar[list[Any]] = [
        Binding("enter", "apply", "apply"),
        Binding("up", "move(-1)", "up", show=False),
        Binding("down", "move(1)", "down", show=False),
        Binding("left", "step(-1)", "less", show=False),
        Binding("right", "step(1)", "more", show=False),
        Binding("delete", "reset", "reset"),
        Binding("ctrl+r", "reset_all", "reset all"),
    ]
    DEFAULT_CSS = """
    SamplerDrawer {
        & > #drawer { height: 100%; max-height: 30; }
        & #rows { height: 1fr; scrollbar-size-vertical: 1; }
        & .group { color: $text-primary; text-style: bold; margin-top: 1; }
        & .group.-first { margin-top: 0; }
        & #help { height: 2; margin-top: 1; color: $text-muted; }
        & #keys { margin-top: 0; }
    }
    """

    def __init__(
        self, defaults: Sampling, overrides: Mapping[str, Any], limits: Limits | None = None
    ) -> None:
        super().__init__()
        self._defaults = {
            setting.field: getattr(defaults if setting.of is Sampling else limits or Limits(), setting.field)
            for setting in SETTINGS
        }
        self._overrides = {
            name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()
        }
        self._hidden = {name: value for name, value in self._overrides.items() if name not in BY_FIELD}

    def content(self) -> Iterable[Widget]:
        """The rows under their groups, and a line of help for the one in use."""
        with _Rows(id="rows"):
            for title, steps in GROUPS.items():
                yield Static(title, classes="group -first" if title == "Choice" else "group")
                for name, step in steps.items():
                    default = self._defaults[name]
                    yield Row(BY_FIELD[name], default, self._overrides.get(name, default), step)
        yield Static("", id="help", markup=False)

    def keys(self) -> list[tuple[str, str]]:
        """With the pair that steps."""
        return [*super().keys()[:1], ("←→", "step"), *super().keys()[1:]]

    @property
    def rows(self) -> list[Row]:
        """All rows, from the top."""
        return list(self.query(Row))

    def on_mount(self) -> None:
        """The first row has the keys."""
        self.rows[0].focus()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """The help is the focused row's."""
        if isinstance(event.widget, Row):
            self.query_one("#help", Static).update(f"{event.widget.setting.help}.")

    def on_row_changed(self) -> None:
        """A sentence about an earlier state is gone."""
        self.say("")

    def action_move(self, by: int) -> None:
        """To another row, round the ends."""
        rows = self.rows
        at = next((index for index, row in enumerate(rows) if row.has_focus), 0)
        rows[(at + by) % len(rows)].focus()

    def action_step(self, by: int) -> None:
        """Changes the row's value by a step."""
        if isinstance(self.focused, Row):
            self.focused.step(by)

    def action_reset(self) -> None:
        """The row's value is the model's own again."""
        if isinstance(self.focused, Row):
            self.focused.reset()

    def action_reset_all(self) -> None:
        """Everything is the model's own again."""
        self._hidden = {}
        for row in self.rows:
            row.reset()

    def action_apply(self) -> None:
        """Gives what differs, unless a value cannot be."""
        wrong = next((row for row in self.rows if row.problem), None)
        if wrong is not None:
            wrong.focus()
            return
        found = {row.setting.field: row.value for row in self.rows if row.value != row.default}
        self.dismiss({**self._hidden, **found})
