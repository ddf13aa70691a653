"""A terminal of 60x20, and one without colour: nothing that is needed is hidden, and no colour is written."""

from pathlib import Path

import pytest
import test_themes
from conversations import comparison, conversation, crash
from simulated import opened, reply, shown, until
from training_player import RECORDING as TRAINING

from macllm_tui.replay import replay

SMALL = (60, 20)


@pytest.mark.parametrize("tell", [conversation, crash], ids=lambda tell: tell.__name__)
def test_the_chat_has_all_that_is_needed_in_60x20(tell, tmp_path: Path) -> None:
    lines = replay(tell().write(tmp_path / "talk.jsonl"), SMALL, None).splitlines()
    assert len(lines) == 20 and max(map(len, lines)) <= 60
    assert "qwen3-8b" in lines[0] and "/32k" in lines[0]
    assert any("Ask something" in line for line in lines), "the prompt"
    assert "send" in lines[-1] and "help" in lines[-1] and "quit" in lines[-1]
    screen = " ".join(" ".join(lines).replace("█", " ").split())
    if tell is conversation:
        assert "71.3 tok/s" in lines[-2] and "109 tok" in lines[-2], "the figures in one line"
        assert "instead of 8k" in screen
    else:
        assert "out of memory" in screen and "f8 starts it again" in screen


def test_a_comparison_and_a_training_run_show_their_figures_in_60x20(tmp_path: Path) -> None:
    compared = replay(comparison().write(tmp_path / "compared.jsonl"), SMALL, None)
    assert "96.8 tok/s" in compared and "close" in compared and "what differs" in compared
    trained = replay(TRAINING, SMALL, None)
    assert "step 60 of 60" in trained and "loss 1.495" in trained and "close" in trained
    assert all(len(screen.splitlines()) == 20 for screen in (compared, trained))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("f1",), "esc"),
        (("ctrl+p",), "command"),
        (("ctrl+s",), "esc leave"),
        (("ctrl+o",), "esc leave"),
        (("f2",), "esc leave"),
    ],
)
async def test_drawers_say_how_to_leave_them_in_60x20(keys, words: str, tmp_path: Path) -> None:
    async with opened(tmp_path / "chats.db", reply("Yes."), size=SMALL) as (app, pilot):
        await pilot.press(*keys)
        await until(pilot, lambda: len(app.screen_stack) == 2 and words in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)


PROGRAM = """
import tempfile
from pathlib import Path
from conversations import conversation
from macllm.engine.recording import ReplayEngine
from macllm_tui.app import MacllmApp
from macllm_tui.home import RecordedHome
from macllm_tui.pictures import steady
from macllm_tui.player import Player, Watched
from macllm_tui.replay import playable
from macllm_tui.settings import Settings

with tempfile.TemporaryDirectory() as folder:
    recording, model = playable(conversation().recording(), Path("talk.jsonl"))
    engine = Watched(ReplayEngine(recording, pace="instant"))
    app = MacllmApp(engine, Settings(), chats=Path(folder) / "chats.db", home=RecordedHome(model))

    async def drive(pilot):
        player = Player(app, pilot, engine, [one.request for one in recording.exchanges])
        await player.play()
        for key in ("alt+up", "escape", "f1", "escape", "ctrl+p", "escape", "ctrl+s", "escape", "ctrl+o", "escape"):
            await pilot.press(key)
            await steady(app, pilot, player.busy)
        app.notify("a notice")
        await steady(app, pilot, player.busy)
        await app.leave()

    app.run(auto_pilot=drive)
print("left in good order")
"""


@pytest.mark.parametrize("wanted", [False, True], ids=["without", "with"])
def test_the_whole_app_writes_colours_or_with_no_color_none(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_themes, "PROGRAM", PROGRAM)
    environment = {} if wanted else {"NO_COLOR": "1"}
    said = test_themes.on_terminal(TERM="xterm-256color", **environment)
    for words in ("MLA", "Sampling settings", "a notice", "left in good order"):
        assert words in said
    assert bool(test_themes.coloured(said)) is wanted
