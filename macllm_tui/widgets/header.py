"""The top line: the app, the model, the system prompt's name, and how full the context is."""

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget

from macllm_tui.widgets.context_meter import context_meter
from macllm_tui.widgets.gauges import cut

_APP = "macllm"
_JOINT = " ── "
_LEAST_MODEL = 16  # columns of a model's name that tell it from others


class Header(Widget):
    """``macllm ── Qwen3-8B 4bit ── preset: coder ──── ctx 3.1k/32k``."""

    DEFAULT_CSS = """
    Header { width: 1fr; height: 1; padding: 0 1; background: $panel; color: $foreground; text-wrap: nowrap; }
    """
    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self._model = ""
        self._preset = ""
        self._used = 0
        self._most = 0

    def show(self, *, model: str, preset: str = "", context_tokens: int = 0, max_context: int = 0) -> None:
        """Shows a model ("" for none), the name of its system prompt, and the tokens in its context."""
        told = (model, preset, context_tokens, max_context)
        if told != (self._model, self._preset, self._used, self._most):
            self._model, self._preset, self._used, self._most = told
            self.refresh()

    def render(self) -> Content:
        width = self.content_size.width
        meter = context_meter(self._used, self._most)
        model = self._model or "no model"
        # the app's name and the preset give way first, then the meter's bar and words
        for text in meter.texts:
            room = width - cell_len(text) - len(_JOINT)
            parts = self._left(model, room, last=text == meter.texts[-1])
            if parts is not None:
                left = Content(_JOINT).join(Content.styled(word, style) for word, style in parts)
                line = "─" * max(width - left.cell_length - cell_len(text) - 2, 0)
                return Content.assemble(left, " ", (line, "$foreground-muted"), " ", (text, meter.style))
        return Content(cut(model, width))

    def _left(self, model: str, room: int, *, last: bool) -> list[tuple[str, str]] | None:
        """The words that fit before the meter; None where the model's name would not be told from others."""
        whole = [(_APP, "bold"), (model, "bold $primary")]
        if self._preset:
            whole.append((f"preset: {self._preset}", "$foreground"))
        for parts in (whole, whole[1:], whole[1:2]):
            if sum(cell_len(word) for word, _ in parts) + len(_JOINT) * (len(parts) - 1) <= room:
                return parts
        if room >= _LEAST_MODEL or last:
            return [(cut(model, max(room, 1)), "bold $primary")]
        return None
