"""An unquantized model is converted on this machine, by the real command, and is installed then."""

import sys
from pathlib import Path

import pytest
from model_host import host, text_of, until

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tiny import reference

from macllm.hub import store
from macllm.hub.pull import pull
from macllm_tui.screens.explain import CommandScreen
from macllm_tui.screens.models import ModelsScreen
from macllm_tui.screens.variants import VariantsScreen
from macllm_tui.widgets.model_list import ModelList

TAGS = ["safetensors", "text-generation"]


@pytest.fixture
def unquantized(hub):
    """A repository of 16-bit weights, already on this machine."""
    folder = reference("llama", wide=True).folder
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    hub.add("org/Tiny", files, tags=TAGS, safetensors={"parameters": {"F32": 100_000}, "total": 100_000})
    return pull("org/Tiny")


async def test_four_bits_are_made_here_and_can_be_deleted_whole(hub, unquantized):
    app = host(ModelsScreen)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("3", *"tiny", "enter")
        await until(lambda: app.screen.query_one(ModelList).rows)
        await until(lambda: "org/Tiny" in app.screen._facts)
        await pilot.press("v")
        await until(lambda: isinstance(app.screen, VariantsScreen) and len(app.screen._choices) == 3)
        lines = [option.prompt.plain for option in app.screen.query_one("OptionList").options]
        assert "8 bit, converted here" in lines[1] and "4 bit, converted here" in lines[2]
        await pilot.press("end", "enter")
        await until(lambda: isinstance(app.screen, CommandScreen) and app.screen.ended, within_s=90)
        assert app.screen.succeeded, text_of(app, "#state")
        await pilot.press("escape")
        await until(lambda: "Tiny-4bit is here" in text_of(app, "#said"))
    made = store.resolve("Tiny-4bit")
    assert made.quantization == "4 bit" and made.size_bytes < unquantized.size_bytes
    folder = store.folder_of("Tiny-4bit")
    assert store.remove("Tiny-4bit").freed_bytes == made.size_bytes and not folder.exists()
