"""A notice over the prompt: what happened, and the key that acts on it."""

from typing import Literal, TypeAlias

from textual.content import Content
from textual.widget import Widget

from macllm_tui.actions import BY_ID
from macllm_tui.bindings import called, key_name
from macllm_tui.widgets.visible import visible

Severity: TypeAlias = Literal["information", "warning", "error"]

_SIGNS: dict[Severity, tuple[str, str]] = {  # a sign too: colour alone says nothing to some
    "information": ("•", "$primary"),
    "warning": ("▲ Note:", "$warning"),
    "error": ("■ Error:", "$error"),
}


class Banner(Widget):
    """One notice at a time; hidden until there is one."""

    DEFAULT_CSS = """
    Banner {
        display: none; width: 1fr; height: auto; max-height: 5; padding: 0 1;
        background: $panel; color: $foreground; border-left: thick $primary;
        &.-warning { border-left: thick $warning; }
        &.-error { border-left: thick $error; }
    }
    """
    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self._text = ""
        self._severity: Severity = "information"
        self._key = ""
        self._acts = ""

    @property
    def text(self) -> str:
        """The notice that is shown; "" for none."""
        return self._text if self.display else ""

    def show(self, text: str, severity: Severity = "information", key: str = "", acts: str = "") -> None:
        """Shows a notice. ``key`` is an action's id, named by its key of now, or a key; ``acts`` what it does."""
        self._text, self._severity, self._key, self._acts = text, severity, key, acts
        self.set_class(severity == "warning", "-warning")
        self.set_class(severity == "error", "-error")
        self.display = True
        self.refresh(layout=True)

    def hide(self) -> None:
        """Takes the notice away."""
        self.display = False

    def render(self) -> Content:
        sign, colour = _SIGNS[self._severity]
        parts: list[tuple[str, str]] = [(f"{sign} ", f"bold {colour}"), (visible(self._text), "")]
        name = ""
        if self._key:
            name = called(self.app, self._key) if self._key in BY_ID else key_name(self._key)
            parts += [("  ", ""), (name, "bold"), (f" {self._acts}", "$foreground-muted")]
        hides = called(self.app, "stop")
        if name != hides:
            parts += [("  ", ""), (hides, "bold"), (" hides this", "$foreground-muted")]
        return Content.assemble(*parts)
