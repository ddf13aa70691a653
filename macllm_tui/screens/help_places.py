"""The keys of the other screens, drawers and bars, for the help: read from their bindings."""

from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

from textual.binding import Binding

from macllm_tui.bindings import key_names

PLACES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("IN THIS HELP", ("screens.help:HelpScreen",)),
    ("IN THE MESSAGES", ("widgets.transcript:Transcript",)),
    ("WHILE FINDING", ("widgets.find_bar:FindBar",)),
    (
        "IN THE MODELS",
        ("widgets.model_list:ModelList", "screens.models:ModelsScreen"),
    ),
    ("IN THE WELCOME", ("screens.welcome:Choices", "screens.welcome:WelcomeScreen")),
    (
        "IN THE COMPARISON",
        ("screens.compare:ComparePrompt", "screens.compare:CompareScreen", "screens.compare_pane:SidePane"),
    ),
    (
        "IN THE FINE-TUNING",
        (
            "screens.finetune_form:FineTuneForm",
            "widgets.fields:PathInput",
            "widgets.fields:Toggle",
            "widgets.fields:Choice",
            "screens.training_view:TrainingView",
            "screens.training_view:Samples",
            "screens.finetune:FineTuneScreen",
        ),
    ),
    ("IN EXPLAIN AND BENCH", ("screens.explain:CommandScreen",)),
    ("IN THE SAMPLING SETTINGS", ("drawers.sampler:SamplerDrawer",)),
    ("IN THE SYSTEM PROMPT", ("drawers.system:SystemDrawer",)),
    (
        "IN LISTS WITH A SEARCH",
        ("drawers.filtered:FilteredDrawer", "drawers.search:ChatSearch", "drawers.history:PromptHistory"),
    ),
    (
        "IN QUESTIONS",
        (
            "screens.variants:VariantsScreen",
            "drawers.choices:Confirm",
            "drawers.choices:Choose",
            "drawers.choices:TextInput",
            "drawers:Drawer",
        ),
    ),
)


class PlaceKey(NamedTuple):
    """A key of a place: how people write it, and what it does there."""

    place: str
    keys: str
    does: str


def place_keys() -> Iterator[PlaceKey]:
    """All of them, place by place. Imports every screen, which takes some hundredths of a second the first time."""
    for place, names in PLACES:
        seen: set[tuple[str, str]] = set()
        for name in names:
            module, _, kind = name.partition(":")
            for binding in vars(getattr(import_module(f"macllm_tui.{module}"), kind))["BINDINGS"]:
                assert isinstance(binding, Binding)
                if binding.id:
                    continue  # one of the table, which a person may have moved
                row = key_names(binding.key), binding.tooltip or binding.description
                if row not in seen:
                    seen.add(row)
                    yield PlaceKey(place, *row)
