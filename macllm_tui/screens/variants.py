"""Which quantization of a model: each with its size and whether it fits; also what can be made of it here."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from macllm import fit
from macllm.errors import MacllmError
from macllm.fit import Fit
from macllm.hub.search import Variant
from macllm.units import size
from macllm_tui import model_rows
from macllm_tui.drawers import Drawer
from macllm_tui.model_rows import Facts, Row
from macllm_tui.widgets.fit_badge import badge


@dataclass(frozen=True)
class Conversion:
    """Instead of a variant: have it quantized here, to so many bits."""

    bits: int


class VariantsScreen(Drawer[Variant | Conversion | None]):
    """Asks for one of a model's quantizations; None where Esc is pressed."""

    DEFAULT_CSS = """
    VariantsScreen {
        & #said { height: auto; color: $text-muted; }
        & OptionList { height: auto; max-height: 14; }
        & OptionList > .option-list--option-highlighted, & OptionList:focus > .option-list--option-highlighted {
            color: $foreground; background: $primary-muted; text-style: bold;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "choose", "choose")]

    def __init__(
        self, row: Row, facts: Facts | None, judge: Callable[[Row, Facts | None], Fit | None]
    ) -> None:
        super().__init__()
        self.heading = f"Quantizations of {row.title}"
        self._row, self._facts, self._judge = row, facts, judge
        self._choices: list[Variant | Conversion] = []

    def content(self) -> Iterable[Widget]:
        """The list, and a line about it."""
        yield OptionList()
        yield Static("asking the hub…", id="said", markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self._ask()

    def action_choose(self) -> None:
        """Takes the highlighted one."""
        self.query_one(OptionList).action_select()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._choices[event.option_index])

    @work
    async def _ask(self) -> None:
        said = self.query_one("#said", Static)
        try:
            found = await asyncio.to_thread(model_rows.variants_of, self._row)
        except MacllmError as error:
            said.display = False
            self.say(str(error))
            return
        options = self.query_one(OptionList)
        for variant in found:
            self._add(
                variant, replace(self._row, size_bytes=variant.size_bytes, choices=False), variant.label
            )
        for bits, weight_bytes in self._conversions():
            row = replace(self._row, size_bytes=weight_bytes, choices=False)
            self._add(Conversion(bits), row, f"{bits} bit, converted here")
        if self._choices:
            here = [at for at, choice in enumerate(self._choices) if self._is_now(choice)]
            options.highlighted = here[0] if here else self._first_that_fits()
            said.display = False
        else:
            said.update(f"There is only one form of {self._row.title}.")

    def _add(self, choice: Variant | Conversion, row: Row, label: str) -> None:
        self._choices.append(choice)
        amount = size(row.size_bytes) if row.size_bytes is not None else "size unknown"
        line = Content.assemble(f"{label:<24} {amount:>12}  ", badge(self._judge(row, self._facts)))
        self.query_one(OptionList).add_option(Option(line))

    def _conversions(self) -> list[tuple[int, int]]:
        """What an unquantized repository comes to when its matrices are packed on this machine."""
        unpacked = self._row.format == model_rows.FORMATS["safetensors"] and not self._row.quantization
        if not unpacked or self._facts is None or self._facts.spec is None:
            return []
        by_precision = fit.bytes_by_precision(self._facts.spec)
        return [(int(key), by_precision[key]) for key in ("8", "4")]

    def _is_now(self, choice: Variant | Conversion) -> bool:
        return isinstance(choice, Variant) and str(choice.source) in (self._row.source, str(self._row.hub))

    def _first_that_fits(self) -> int:
        """The largest that fits comfortably, else the first."""
        judged = [
            (at, self._judge(replace(self._row, size_bytes=choice.size_bytes, choices=False), self._facts))
            for at, choice in enumerate(self._choices)
            if isinstance(choice, Variant)
        ]
        fitting = [at for at, verdict in judged if verdict is not None and verdict.verdict == "comfortable"]
        return fitting[-1] if fitting else 0
