"""A command as a view: its output, its colours, its errors, and its end."""

import asyncio

import pytest
from model_host import Host, install, until
from textual.containers import ScrollableContainer

from macllm_tui.screens.explain import CommandScreen, ExplainScreen, clean


def output(app):
    return str(app.shown.query_one("#output").render())


def state(app):
    return str(app.shown.query_one("#state").render())


async def test_an_installed_model_is_explained(hub):
    install(hub)
    app = Host(ExplainScreen("Tiny-4bit"))
    async with app.run_test(size=(100, 30)) as pilot:
        assert "reading what Tiny-4bit is" in state(app)
        await until(lambda: app.shown.ended, within_s=60)
        assert app.shown.succeeded
        await pilot.pause()
        for part in ("llama", "134.5 million parameters", "│", "MAC", "64 GB"):
            assert part in output(app)
        assert not app.shown.query_one("#state").has_class("shown")
        await pilot.press("escape")
    assert app.result is True


async def test_a_wrong_name_is_one_sentence(hub):
    app = Host(ExplainScreen("startr"))
    async with app.run_test() as pilot:
        await until(lambda: app.shown.ended, within_s=60)
        await pilot.pause()
        assert not app.shown.succeeded and app.shown.query_one("#state").has_class("failed")
        assert state(app).startswith("no model or path is called 'startr' (did you mean starter?)")
        await pilot.press("q")
    assert app.result is False


async def test_a_name_like_an_option_or_a_control_sequence_does_no_harm(hub):
    app = Host(ExplainScreen("--json\x1b[2J\x1b]0;title\x07"))
    async with app.run_test() as pilot:
        await until(lambda: app.shown.ended, within_s=60)
        await pilot.pause()
        assert "no model or path" in state(app) and "\x1b" not in state(app)


async def test_closing_ends_the_command(hub):
    app = Host(CommandScreen("chat", ["chat", "nothing-like-it"]))
    async with app.run_test() as pilot:
        await until(lambda: app.shown._process is not None)
        process = app.shown._process
        await pilot.press("escape")
        await asyncio.wait_for(process.wait(), 20)
    assert app.result is False


@pytest.mark.parametrize(
    ("keys", "moved"),
    [
        (["down"], True),
        (["j", "j"], True),
        (["pagedown"], True),
        (["space"], True),
        (["end"], True),
        (["end", "home"], False),
        (["down", "up"], False),
        (["j", "k"], False),
        (["pagedown", "pageup"], False),
    ],
)
async def test_keys_scroll(hub, keys, moved):
    app = Host(CommandScreen("help", ["--help"]))
    async with app.run_test(size=(60, 10)) as pilot:
        await until(lambda: app.shown.ended, within_s=60)
        await until(lambda: app.shown.query_one("#view", ScrollableContainer).max_scroll_y > 0)
        await pilot.press(*keys)
        view = app.shown.query_one("#view", ScrollableContainer)
        await until(lambda: (view.scroll_y > 0) == moved, keys)


def test_colours_stay_and_nothing_else_does():
    line = clean("a \x1b[31mred\x1b[0m b\x1b[2J\x1b[5A\x1b]8;;x\x1b\\c\x1b]0;t\x07 d\x9b3Je\x08\x00 \x1b(Bf")
    assert line.plain == "a red bc de f"
    assert [line.plain[span.start : span.end] for span in line.spans if span.style] == ["red"]
