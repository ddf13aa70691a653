"""One prompt, two sides, one after the other, with one seed: what differs is said, and the better is marked."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from comparing import (
    ANSWERS,
    LARGE,
    LEFT,
    RIGHT,
    SMALL,
    Engine,
    Gate,
    both,
    engine,
    failing,
    metrics,
)
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Static

from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Generate, Load, ModelRef
from macllm.tokenizer.messages import Message
from macllm_tui.comparison import Kept, Side, SideRun, differences, measured, request_of
from macllm_tui.screens.compare import ComparePrompt, CompareScreen

WIDE, NARROW = (120, 40), (60, 20)
DEADLINE_S = 20


class Host(App[None]):
    """The screen under test, and what it gave."""

    def __init__(self, screen: CompareScreen) -> None:
        super().__init__()
        self.under_test = screen
        self.given: list[Kept | None] = []
        self.copied = ""

    def on_mount(self) -> None:
        self.push_screen(self.under_test, self.given.append)

    def copy_to_clipboard(self, text: str) -> None:
        self.copied = text


def host(made: Engine, right: Side = RIGHT, prompt: str = "Explain MLA", **choices: Any) -> Host:
    return Host(CompareScreen(made, LEFT, right, (Message.of("system", "Be brief."),), prompt, **choices))


async def until(pilot: Pilot[None], true: Callable[[], object]) -> None:
    """Waits for a condition, with a deadline that no machine needs."""
    async with asyncio.timeout(DEADLINE_S):
        while not true():
            await pilot.pause(0.02)
    await pilot.pause()


async def run(pilot: Pilot[None], app: Host) -> None:
    await pilot.press("enter")
    await until(pilot, lambda: all(pane.run.over for pane in app.under_test.panes))
    await until(pilot, lambda: not app.under_test.running)


def states(app: Host) -> list[str]:
    return [pane.run.state for pane in app.under_test.panes]


def table(app: Host) -> str:
    return str(app.under_test.query_one("#compare-rows", Static).visual)


@pytest.fixture(params=[WIDE, NARROW], ids=["wide", "narrow"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param  # type: ignore[no-any-return]


async def test_both_answer_one_after_the_other_with_nothing_reused(size: tuple[int, int]) -> None:
    made = engine()
    app = host(made)
    async with app.run_test(size=size) as pilot:
        await run(pilot, app)
        assert [pane.run.text for pane in app.under_test.panes] == list(ANSWERS)
        kinds = [(type(each).__name__, each.model.name) for each in made.asked]  # type: ignore[attr-defined]
        assert kinds == [
            ("Load", "qwen3-0.6b"),
            ("Generate", "qwen3-0.6b"),
            ("Load", "qwen3-8b"),
            ("Generate", "qwen3-8b"),
        ]
        generates = [each for each in made.asked if isinstance(each, Generate)]
        assert all(each.session == "" for each in generates)
        assert all([m.text for m in each.messages] == ["Be brief.", "Explain MLA"] for each in generates)
        seeds = {each.settings["seed"] for each in generates}
        assert seeds == {app.under_test.seed} and f"Seed {app.under_test.seed} on both sides." in table(app)


async def test_the_right_side_waits_until_the_left_one_is_done() -> None:
    app = host(engine(gate=Gate(6)))
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: states(app)[0] == "writing")
        assert states(app) == ["writing", "waiting"]


async def test_the_table_says_what_differs_and_marks_the_better() -> None:
    app = host(engine(), right=replace(RIGHT, settings={"temperature": 0.9, "top_k": 20}))
    async with app.run_test(size=WIDE) as pilot:
        await run(pilot, app)
        shown = {line[:14].strip(): line[14:] for line in table(app).splitlines()}
        assert shown["model"].split() == ["qwen3-0.6b", "qwen3-8b"]
        assert shown["temperature"].split() == ["0.7", "0.9"] and shown["top_k"].split() == ["0", "20"]
        assert "top_p" not in shown  # the same on both
        assert shown["speed"].split("◀ better")[1].strip() == "71.3 tok/s"
        assert "◀ better" in shown["memory"] and "better" not in shown["tokens"]


async def test_enter_in_the_prompt_runs_and_ctrl_j_begins_a_line() -> None:
    made = engine()
    app = host(made, prompt="")
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        assert isinstance(app.focused, ComparePrompt)
        await pilot.press("enter")  # nothing to ask yet
        assert not made.asked
        await pilot.press("h", "i", "ctrl+j", "x", "m")  # letters are letters here
        assert app.under_test.query_one(ComparePrompt).text == "hi\nxm"
        await run(pilot, app)
        assert made.asked[1].messages[-1].text == "hi\nxm"  # type: ignore[attr-defined]


async def test_esc_stops_and_keeps_what_came_then_closes(size: tuple[int, int]) -> None:
    made = engine(gate=Gate(6))
    app = host(made)
    async with app.run_test(size=size) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: app.under_test.panes[0].run.text)
        await pilot.press("escape")
        await until(pilot, lambda: not app.under_test.running)
        assert states(app) == ["stopped", "stopped"]
        assert ANSWERS[0].startswith(app.under_test.panes[0].run.text)
        assert not any(isinstance(each, Load) and each.model == LARGE for each in made.asked)
        assert not app.given
        await pilot.press("escape")
        await until(pilot, lambda: app.given)
        assert app.given == [None]


async def test_a_failure_of_one_side_leaves_the_other() -> None:
    first, second = both()[0], both()[2:]
    app = host(engine(failing(SMALL, "it needs 20.1 GB, models may take 14.5 GB"), *second, first))
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: states(app)[1] in ("done", "failed"))
        # the n-th Generate answers the n-th recorded one: the left side never asked, so the right gets its own
        assert states(app) == ["failed", "done"]
        assert "20.1 GB" in app.under_test.panes[0].run.error
        assert app.under_test.panes[1].run.text == ANSWERS[1]


async def test_a_setting_that_cannot_be_fails_its_side_alone() -> None:
    app = host(engine(*both()[:2]), right=replace(RIGHT, settings={"max_tokens": -1}))
    async with app.run_test(size=WIDE) as pilot:
        await run(pilot, app)
        assert states(app) == ["done", "failed"] and "max_tokens" in app.under_test.panes[1].run.error


async def test_an_engine_that_died_is_started_again() -> None:
    made = engine()
    app = host(made)
    async with app.run_test(size=WIDE) as pilot:
        assert not made.alive
        await run(pilot, app)
        assert made.alive and states(app) == ["done", "done"]


async def test_tab_switches_sides_and_shift_tab_goes_to_the_prompt() -> None:
    app = host(engine())
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        order = []
        for key in ("tab", "tab", "shift+tab", "tab"):
            await pilot.press(key)
            await pilot.pause()
            order.append("prompt" if isinstance(app.focused, ComparePrompt) else app.under_test.active)
        assert order == [1, 0, "prompt", 0]


async def test_a_narrow_screen_shows_one_at_a_time() -> None:
    app = host(engine())
    async with app.run_test(size=NARROW) as pilot:
        await run(pilot, app)
        screen = app.under_test

        def shown() -> tuple[bool, ...]:
            parts = (*screen.panes, screen.query_one("#compare-table"))
            return tuple(part.region.height > 0 and part.region.width > 0 for part in parts)

        assert shown() == (False, True, False)  # the one that answered last
        await pilot.press("tab")
        await pilot.pause()
        assert shown() == (False, False, True)
        await pilot.press("tab")
        await pilot.pause()
        assert shown() == (True, False, False)
        await pilot.resize_terminal(*WIDE)
        await pilot.pause()
        assert shown() == (True, True, True)


async def test_m_chooses_the_model_of_the_side() -> None:
    other = ModelRef("llama-3.2-1b", "/models/llama-3.2-1b")

    async def choose() -> ModelRef | None:
        return other

    app = host(engine(), choose_model=choose)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("tab", "m")
        await until(pilot, lambda: app.under_test.panes[1].run.side.model == other)
        assert app.under_test.panes[0].run.side.model == SMALL and "llama-3.2-1b" in table(app)


async def test_s_chooses_the_settings_of_the_side() -> None:
    asked: list[Side] = []

    async def choose(side: Side) -> Mapping[str, Any] | None:
        asked.append(side)
        return {"top_k": 5}

    app = host(engine(), choose_settings=choose)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("s")
        await until(pilot, lambda: app.under_test.panes[0].run.side.settings == {"top_k": 5})
        assert asked == [LEFT] and "top_k" in table(app)


async def test_a_choice_that_is_left_changes_nothing() -> None:
    async def nothing(*_: Any) -> None:
        return None

    app = host(engine(), choose_model=nothing, choose_settings=nothing)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("m", "s")
        await pilot.pause()
        assert [pane.run.side for pane in app.under_test.panes] == [LEFT, RIGHT]


async def test_x_swaps_the_sides_with_their_replies() -> None:
    app = host(engine())
    async with app.run_test(size=WIDE) as pilot:
        await run(pilot, app)
        await pilot.press("x")
        await until(pilot, lambda: app.under_test.panes[0].run.side == RIGHT)
        assert [pane.run.text for pane in app.under_test.panes] == [ANSWERS[1], ANSWERS[0]]
        assert "better ▶" in table(app)


async def test_c_copies_the_reply_of_the_side() -> None:
    app = host(engine())
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("c")  # nothing to copy yet
        assert app.copied == ""
        await run(pilot, app)
        await pilot.press("c")
        assert app.copied == ANSWERS[1]


async def test_k_keeps_the_side(size: tuple[int, int]) -> None:
    app = host(engine())
    async with app.run_test(size=size) as pilot:
        await run(pilot, app)
        await pilot.press("k")
        await until(pilot, lambda: app.given)
        kept = app.given[0]
        assert kept is not None and (kept.side, kept.text) == (RIGHT, ANSWERS[1])
        assert kept.metrics is not None and kept.metrics.decode_tps == 71.3


async def test_it_runs_again_with_another_seed() -> None:
    app = host(engine(*both(), *both()))
    async with app.run_test(size=WIDE) as pilot:
        await run(pilot, app)
        first = app.under_test.seed
        await run(pilot, app)
        assert app.under_test.seed != first and states(app) == ["done", "done"]


def test_a_seed_of_its_own_stays_and_limits_are_no_sampling() -> None:
    side = Side(SMALL, {"seed": 7, "max_tokens": 5, "stop": ["x"]})
    request = request_of(side, (), 99)
    assert (
        request.settings == {"seed": 7} and request.limits.max_tokens == 5 and request.limits.stop == ("x",)
    )


def test_equal_sides_differ_in_nothing_and_noise_is_not_better() -> None:
    assert differences(SideRun(LEFT), SideRun(LEFT), ("4 bit", "4 bit")) == []
    rows = {row.name: row for row in measured(metrics(70.01, 1000, 5), metrics(70.04, 1000, 9))}
    assert rows["speed"].better == 0 and rows["memory"].better == 0 and rows["tokens"].better == 0
    half = {row.name: row for row in measured(metrics(70, 1000, 5), Metrics())}
    assert half["speed"].right == "" and half["speed"].better == 0


def test_the_models_own_settings_count_where_they_are_known() -> None:
    tuned = Side(ModelRef("a", "/a", sampling={"temperature": 0.2}), {})
    rows = differences(SideRun(tuned), SideRun(Side(SMALL, {"temperature": 0.2})), ("4 bit", "8 bit"))
    assert {row.name for row in rows} == {"model", "weights"}
