"""The drawers that ask one thing: each key, what comes back, and that Esc changes nothing."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import until
from textual.app import App
from textual.widgets import Input, OptionList, Static

from macllm.chats.async_store import AsyncStore
from macllm.chats.records import Preset
from macllm.engine.request import Limits, Sampling
from macllm.engine.settings_text import BY_FIELD, SETTINGS
from macllm_tui.drawers import Drawer
from macllm_tui.drawers.choices import Choose, Confirm, ContextChoice, TextInput
from macllm_tui.drawers.history import PromptHistory
from macllm_tui.drawers.sampler import GROUPS, Row, SamplerDrawer
from macllm_tui.drawers.search import ChatSearch
from macllm_tui.drawers.system import SystemDrawer
from macllm_tui.presets import BUILT_IN, merged, name_of

SMALL = (60, 20)
LEFT = object()  # what a drawer gives before it closed
DEFAULTS = Sampling(temperature=0.7, top_k=20, top_p=0.95)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    opened = await AsyncStore.open(tmp_path / "chats.db")
    yield opened
    await opened.close()


async def after(drawer: Drawer[Any], *keys: str, size: tuple[int, int] = SMALL) -> Any:
    """What the drawer gives after these keys; LEFT where it is still open."""
    found: list[Any] = [LEFT]
    async with App[None]().run_test(size=size) as pilot:
        await pilot.app.push_screen(drawer, found.append)
        await pilot.pause()
        await pilot.press(*keys)
        await pilot.pause()
    return found[-1]


def problem(drawer: Drawer[Any]) -> str:
    return str(drawer.query_one("#problem", Static).render())


# small questions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "answer"), [("enter", True), ("y", True), ("escape", False), ("n", False)])
async def test_confirm(key: str, answer: bool) -> None:
    assert await after(Confirm("Delete “[x]”?", "delete"), key) is answer
    assert await after(Confirm("Delete “[x]”?", "delete"), "space", "x") is LEFT


def test_confirm_says_what_its_key_does() -> None:
    assert Confirm("Delete?", "delete").keys()[0] == ("enter", "delete")


async def test_choose() -> None:
    options = {"paper": "Paper [light]", "ember": "Ember", "mist": "Mist"}
    assert await after(Choose("Colours", options), "enter") == "paper"
    assert await after(Choose("Colours", options), "down", "enter") == "ember"
    assert await after(Choose("Colours", options, current="mist"), "up", "enter") == "ember"
    assert await after(Choose("Colours", options, current="gone"), "end", "enter") == "mist"
    assert await after(Choose("Colours", options), "down", "escape") is None


async def test_many_choices_fit_the_smallest_terminal() -> None:
    drawer = Choose("Many", {str(index): f"choice {index}" for index in range(60)})
    async with App[None]().run_test(size=SMALL) as pilot:
        await pilot.app.push_screen(drawer)
        await pilot.press("end")
        await pilot.pause()
        keys = drawer.query_one("#keys").region
        assert keys.height == 1 and keys.bottom <= 20
        assert drawer.query_one(OptionList).region.bottom < keys.y


async def test_what_to_do_when_the_context_is_full() -> None:
    for keys, choice in (((), "drop"), (("down",), "summarise"), (("down", "down"), "stop")):
        assert await after(ContextChoice("It has 9,000 tokens."), *keys, "enter") == choice
    assert await after(ContextChoice("It has 9,000 tokens."), "escape") is None


async def test_a_line_of_text() -> None:
    assert await after(TextInput("Title", "old"), "enter") == "old"
    assert await after(TextInput("Title", "old"), "n", "e", "w", "space", "enter") == "new"  # it was selected
    assert await after(TextInput("Title", "old"), "x", "escape") is None
    assert await after(TextInput("Title", "old"), "backspace", "enter") is LEFT


# the sampler --------------------------------------------------------------------------------------------


def test_every_setting_has_its_row_and_its_steps() -> None:
    rows = [name for steps in GROUPS.values() for name in steps]
    assert sorted(rows) == sorted(setting.field for setting in SETTINGS)


async def test_nothing_changed_gives_what_was_given() -> None:
    overrides = {"temperature": 1.0, "stop": ["END"], "logit_bias": {"7": 1.0}, "seed": 2**64 - 1}
    found = await after(SamplerDrawer(DEFAULTS, overrides), "enter")
    assert found == {**overrides, "stop": ("END",)}
    assert await after(SamplerDrawer(DEFAULTS, {}), "enter") == {}


async def test_what_is_the_models_own_is_no_override() -> None:
    assert await after(SamplerDrawer(DEFAULTS, {"temperature": 0.7, "top_k": 3}), "enter") == {"top_k": 3}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("1", ".", "5"), {"temperature": 1.5}),
        (("right",), {"temperature": 0.8}),
        (("left", "left"), {"temperature": 0.5}),
        (("right", "left"), {}),
        (("0", ".", "1", "left", "left"), {"temperature": 0.0}),
        (("backspace",), {}),  # nothing typed is the model's own
        (("9", "backspace", "1"), {"temperature": 1.0}),
        (("right", "backspace", "2"), {"temperature": 2.0}),
        (("down", "right"), {"top_k": 25}),
        (("down", "down", "right", "right"), {"top_p": 1.0}),
        (("up", "up", "5"), {"max_tokens": 5}),
        (("up", "up", "right"), {"max_tokens": 0}),
        (("up", "up", "right", "right", "left", "left"), {}),
        (("up", "E", "N", "D", "vertical_line", "backslash", "n"), {"stop": ("END", "\n")}),
        (("2", "delete"), {}),
        (("2", "down", "3", "ctrl+r"), {}),
    ],
)
async def test_values_change_by_typing_and_by_steps(
    keys: tuple[str, ...], expected: Mapping[str, Any]
) -> None:
    assert await after(SamplerDrawer(DEFAULTS, {}), *keys, "enter") == expected


async def test_esc_leaves_the_settings() -> None:
    assert await after(SamplerDrawer(DEFAULTS, {"top_k": 3}), "9", "down", "right", "escape") is None


async def test_reset_of_one_and_of_all() -> None:
    overrides = {"temperature": 1.0, "top_k": 3, "logit_bias": {"7": 1.0}}
    assert await after(SamplerDrawer(DEFAULTS, overrides), "delete", "enter") == {
        "top_k": 3,
        "logit_bias": {"7": 1.0},
    }
    assert await after(SamplerDrawer(DEFAULTS, overrides), "ctrl+r", "enter") == {}


async def test_an_impossible_value_is_told_at_its_row_and_nothing_is_applied() -> None:
    drawer = SamplerDrawer(DEFAULTS, {"top_k": 3})
    found: list[Any] = []
    async with App[None]().run_test(size=SMALL) as pilot:
        await pilot.app.push_screen(drawer, found.append)
        await pilot.press("5", "0", "0", "up", "enter")
        assert found == []
        row = drawer.query(Row).first()
        assert drawer.focused is row  # back at the one that is wrong
        assert (
            row.problem == "temperature=500.0 is out of range (expected a number at least 0 and at most 100)"
        )
        assert row.problem in " ".join(str(row.render()).split("\n  "))
        await pilot.pause()
        assert row.region.height >= 2 and row.region in drawer.query_one("#rows").region
        await pilot.press("1", "enter")
        assert found == [{"temperature": 1.0, "top_k": 3}]


async def test_the_help_is_the_rows_and_up_goes_round() -> None:
    drawer = SamplerDrawer(DEFAULTS, {})
    async with App[None]().run_test(size=SMALL) as pilot:
        await pilot.app.push_screen(drawer)
        seen = []
        for _ in drawer.rows:
            await pilot.pause()
            row = drawer.focused
            assert isinstance(row, Row)
            assert row.region in drawer.query_one("#rows").region
            assert row.setting.help in str(drawer.query_one("#help", Static).render())
            seen.append(row.setting.field)
            await pilot.press("down")
        assert sorted(seen) == sorted(BY_FIELD)
        assert drawer.focused is drawer.rows[0]
        await pilot.press("up")
        assert drawer.focused is drawer.rows[-1]


async def test_a_row_shows_what_differs() -> None:
    drawer = SamplerDrawer(DEFAULTS, {"top_k": 3}, Limits(max_tokens=512))
    async with App[None]().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(drawer)
        rows = {row.setting.field: str(row.render()) for row in drawer.rows}
        assert rows["top_k"].split() == ["•", "top-k", "3", "model", "20"]
        assert rows["top_p"].split() == ["top-p", "0.95", "model", "0.95"]
        assert rows["max_tokens"].split() == ["max-tokens", "512", "model", "512"]


@given(
    st.sampled_from([(name, step) for steps in GROUPS.values() for name, step in steps.items()]),
    st.lists(st.sampled_from([-1, 1]), max_size=40),
)
def test_steps_stay_in_range(place: Any, moves: list[int]) -> None:
    name, step = place
    setting = BY_FIELD[name]
    value = getattr(setting.of(), name)
    row = Row(setting, value, value, step)
    row.refresh = lambda *a, **b: row  # type: ignore[assignment, method-assign]  # it is not mounted
    row.post_message = lambda message: True  # type: ignore[method-assign]
    for by in moves:
        row.step(by)
        assert not row.problem
    if step.by:
        for _ in range(4000):
            before = row.text
            row.step(-1)
            if row.text == before:
                break
        assert row.value == (None if setting.none else step.low)


# the system prompt --------------------------------------------------------------------------------------


async def test_the_system_prompt_is_given_as_edited(store: AsyncStore) -> None:
    assert await after(SystemDrawer("Be brief.", store), "ctrl+s") == "Be brief."
    assert (
        await after(SystemDrawer("Be brief.", store), "space", "O", "enter", "K", "ctrl+s")
        == "Be brief. O\nK"
    )
    assert await after(SystemDrawer("x", store), "backspace", "ctrl+s") == ""
    assert await after(SystemDrawer("x", store), "backspace", "escape") is None


@pytest.mark.parametrize("to_the_list", ["tab", "shift+tab"])
async def test_a_preset_is_put_into_the_text(store: AsyncStore, to_the_list: str) -> None:
    drawer = SystemDrawer("mine", store)
    async with App[None]().run_test(size=SMALL) as pilot:
        await pilot.app.push_screen(drawer)
        await until(pilot, lambda: drawer.listing.option_count == len(BUILT_IN))
        await pilot.press(to_the_list, "down", "enter")
        assert drawer.area.text == BUILT_IN[1].text and drawer.area.has_focus
        await pilot.press("ctrl+z")
        assert drawer.area.text == "mine"
        await pilot.press("tab", "tab")
        assert drawer.area.has_focus


async def test_the_choice_stands_on_the_preset_in_use(store: AsyncStore) -> None:
    drawer = SystemDrawer(BUILT_IN[3].text, store)
    async with App[None]().run_test() as pilot:
        await pilot.app.push_screen(drawer)
        await until(pilot, lambda: drawer.listing.highlighted == 3)


async def test_a_text_is_kept_as_a_preset_and_deleted(store: AsyncStore) -> None:
    drawer = SystemDrawer("Be kind.", store)
    async with App[None]().run_test(size=SMALL) as pilot:
        app = pilot.app
        await app.push_screen(drawer)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, TextInput))
        await pilot.press(*"Kind", "enter")
        await until(pilot, lambda: drawer.listing.option_count == len(BUILT_IN) + 1)
        assert await store.presets() == [Preset("Kind", "Be kind.")]
        assert drawer.listing.highlighted == len(BUILT_IN)
        await pilot.press("exclamation_mark", "ctrl+n")  # again: its name is offered, replacing is asked
        await until(pilot, lambda: isinstance(app.screen, TextInput))
        assert app.screen.query_one(Input).value == "Kind"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is drawer)
        await until(pilot, lambda: not drawer.workers._workers)
        assert await store.presets() == [Preset("Kind", "Be kind.!")]
        await pilot.press("tab", "d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is drawer)
        assert len(await store.presets()) == 1
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        await until(pilot, lambda: drawer.listing.option_count == len(BUILT_IN))
        assert await store.presets() == []


async def test_what_cannot_be_done_to_presets_is_told(store: AsyncStore) -> None:
    drawer = SystemDrawer("", store)
    async with App[None]().run_test(size=SMALL) as pilot:
        await pilot.app.push_screen(drawer)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: "no text to keep" in problem(drawer))
        await until(pilot, lambda: drawer.listing.option_count > 0)
        await pilot.press("tab", "d")
        await until(pilot, lambda: "comes with macllm" in problem(drawer))


async def test_letters_in_the_text_are_text(store: AsyncStore) -> None:
    assert await after(SystemDrawer("", store), "d", "a", "d", "left", "delete", "ctrl+s") == "da"


def test_a_preset_of_the_same_name_stands_in_for_the_built_in_one() -> None:
    own = Preset("Coder", "mine")
    assert merged([own, Preset("zeta", "z"), Preset("Alpha", "a")]) == [
        BUILT_IN[0],
        own,
        *BUILT_IN[2:],
        Preset("Alpha", "a"),
        Preset("zeta", "z"),
    ]
    assert name_of("mine\n", [own]) == "Coder"
    assert name_of(BUILT_IN[1].text, [own]) == name_of("", [Preset("empty", "")]) == ""
    assert name_of(BUILT_IN[0].text, []) == "Concise"


# all of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, (80, 24), (120, 40)])
async def test_every_drawer_fits_and_lists_its_keys(store: AsyncStore, size: tuple[int, int]) -> None:
    drawers: list[Drawer[Any]] = [
        Confirm("Delete “" + "long title " * 9 + "”?", "delete"),
        Choose("Colours", {"a": "A"}),
        ContextChoice("This chat has 8,300 tokens and the model reads at most 8,192."),
        TextInput("Title"),
        SamplerDrawer(DEFAULTS, {}),
        SystemDrawer("text", store),
        ChatSearch(store),
        PromptHistory(store),
    ]
    async with App[None]().run_test(size=size) as pilot:
        for drawer in drawers:
            await pilot.app.push_screen(drawer)
            await pilot.pause()
            box, keys = drawer.query_one("#drawer").region, drawer.query_one("#keys")
            assert box in drawer.region
            assert keys.region in box and keys.region.height == 1, type(drawer)
            line = str(keys.render())
            titles = [title for _, title in drawer.keys()]  # noqa: SIM118
            for title in titles:
                assert title in line
            assert drawer.focused is None or drawer.focused.region in box
            for field in drawer.query("Input, TextArea, OptionList"):
                assert not field.display or field.region.height >= 1 or not field.parent.display, type(drawer)
            await pilot.press("escape")
            await until(pilot, lambda drawer=drawer: pilot.app.screen is not drawer)


def test_every_shown_key_has_a_title_of_few_words() -> None:
    for kind in (Confirm, Choose, TextInput, SamplerDrawer, SystemDrawer, ChatSearch, PromptHistory):
        for binding in kind.BINDINGS:
            assert binding.description and len(binding.description) < 20
