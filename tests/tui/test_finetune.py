"""The fine-tuning screen on a recorded run: the form checks, the view shows what comes, the run outlives both."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Button, Static
from training_player import Gate, answering, fresh, play, player

from macllm.adapters import kept as adapters
from macllm.engine.events import Done, Failed
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import ModelRef, Train
from macllm.engine.recording import Exchange
from macllm.engine.training_events import Planned, Trained, TrainStep
from macllm.plotting.braille import BEST
from macllm.tune.settings import BY_NAME, OPTIMIZERS
from macllm_tui.screens.finetune import FineTuneScreen
from macllm_tui.screens.finetune_form import FineTuneForm
from macllm_tui.screens.training_view import (
    Samples,
    TrainingView,
)
from macllm_tui.training import TrainingRun
from macllm_tui.widgets.fields import Choice, Field, PathInput
from macllm_tui.widgets.plot import Plot

CONFIG = Path(__file__).parent.parent / "configs" / "qwen3-0.6b.json"
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
DEADLINE_S = 20
SIZES = [(60, 20), (120, 40)]


class Host(App[None]):
    def __init__(self, screen: FineTuneScreen) -> None:
        super().__init__()
        self.under_test = screen
        self.closed = 0

    def on_mount(self) -> None:
        self.push_screen(self.under_test, lambda _: self._count())

    def _count(self) -> None:
        self.closed += 1

    @property
    def form(self) -> FineTuneForm:
        form = self.under_test.form
        assert form is not None
        return form

    @property
    def view(self) -> TrainingView:
        view = self.under_test.view
        assert view is not None
        return view

    def field(self, name: str) -> Field:
        return self.form.query_one(f"#field-{name}", Field)

    def said(self, selector: str) -> str:
        return str(self.under_test.query_one(selector, Static).content)


@pytest.fixture
def base(tmp_path: Path) -> ModelRef:
    folder = tmp_path / "qwen3-0.6b"
    folder.mkdir()
    (folder / "config.json").write_text(CONFIG.read_text())
    with (folder / "model.safetensors").open("wb") as file:
        os.truncate(file.fileno(), 336_000_000)
    return ModelRef("qwen3-0.6b", str(folder))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "haiku.jsonl"
    path.write_text((json.dumps(CHAT) + "\n") * 182)
    return path


async def until(pilot: Pilot[None], true: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not true():
            await pilot.pause(0.02)
    await pilot.pause()


async def filled(pilot: Pilot[None], app: Host, data: Path) -> None:
    """Names the data and waits until it was read."""
    app.field("data").value = str(data)
    await until(
        pilot, lambda: app.form.report is not None and app.form.report.good and app.field("adapter").value
    )


async def started(pilot: Pilot[None], app: Host, data: Path) -> TrainingRun:
    await filled(pilot, app, data)
    await pilot.press("ctrl+s")
    await until(pilot, lambda: app.under_test.view is not None)
    assert app.under_test.training is not None
    return app.under_test.training


# -- the form ------------------------------------------------------------------------------------------------


async def test_the_focus_is_where_one_types_first_and_names_are_mlx_lms(base: ModelRef) -> None:
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.focused, PathInput))
        values = {field.key: field.value for field in app.form.query(Field)}
        assert values["rank"] == "8" and values["scale"] == "20" and values["num_layers"] == "all"
        assert values["epochs"] == "3" and values["learning_rate"] == "0.0001" and values["iters"] == ""
        assert all(field.note for field in app.form.query(Field))
        assert set(values) == {"data", "base", "adapter", *BY_NAME}


@pytest.mark.parametrize("size", SIZES, ids=["narrow", "wide"])
async def test_data_is_read_as_one_types_and_described(
    base: ModelRef, data: Path, size: tuple[int, int]
) -> None:
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test(size=size) as pilot:
        await filled(pilot, app, data)
        told = app.said("#finetune-data")
        assert "haiku.jsonl: 182 rows" in told and "user: Hi" in told
        assert app.field("adapter").value == "haiku"  # proposed from the file's name
        assert app.said("#finetune-summary") == "About 138 steps, 3 times through 182 rows."
        app.field("pack").value = "yes"
        await until(pilot, lambda: "share" in app.said("#finetune-summary"))
        assert app.said("#finetune-summary") == (
            "About 3 steps, 3 times through 182 rows: short rows share one of 2,048 tokens."
            " So few steps teach little: raise epochs."
        )
        data_field = app.field("data").region
        assert data_field.height > 0 and app.under_test.query_one("#finetune-memory").region.height > 0


async def test_problems_of_the_data_are_named_with_file_and_line(base: ModelRef, data: Path) -> None:
    data.write_text(json.dumps(CHAT) + "\n\nnope\n")
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test(size=(120, 40)) as pilot:
        app.field("data").value = str(data)
        await until(pilot, lambda: app.form.report is not None)
        assert "✗ haiku.jsonl:3: this is not valid JSON" in app.said("#finetune-data")
        assert (
            "1 blank line skipped (line 2)" in app.said("#finetune-data")
            and "1 problem;" in app.field("data").note
        )
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert app.under_test.view is None and "problem" in app.said("#finetune-refused")
        app.field("data").value = str(data.parent / "nowhere.jsonl")
        await until(pilot, lambda: "no such file or folder" in app.field("data").note)


async def test_a_setting_that_cannot_be_is_told_and_stops_the_start(base: ModelRef, data: Path) -> None:
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test(size=(120, 40)) as pilot:
        await filled(pilot, app, data)
        app.field("rank").value = "0"
        await until(pilot, lambda: app.field("rank").has_class("-wrong"))
        assert "rank='0'" in app.field("rank").note and "at least 1" in app.field("rank").note
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.form.focused_field() == "rank")
        assert app.under_test.view is None
        app.field("rank").value = "16"
        await until(pilot, lambda: not app.field("rank").has_class("-wrong"))
        app.field("pack").value = "no"
        app.field("epochs").value = "2"
        await until(pilot, lambda: "2 times" in app.said("#finetune-summary"))
        assert app.said("#finetune-summary") == "92 steps, 2 times through 182 rows."
        app.field("iters").value = "46"
        await until(pilot, lambda: "Not used" in app.field("epochs").note)
        assert app.said("#finetune-summary") == "46 steps, 1 time through 182 rows."


async def test_further_settings_unfold_and_say_what_was_changed(base: ModelRef, data: Path) -> None:
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test(size=(120, 60)) as pilot:
        await filled(pilot, app, data)
        further, button = (
            app.form.query_one("#finetune-further"),
            app.form.query_one("#finetune-unfold", Button),
        )
        assert not further.display and "more settings" in str(button.label)
        button.focus()
        await pilot.press("enter")
        await until(pilot, lambda: further.display and app.field("optimizer").region.height)
        app.field("optimizer").content.focus()
        await pilot.press("right", "right", "left")
        await until(pilot, lambda: app.field("optimizer").value == OPTIMIZERS[1])
        assert "(changed: optimizer)" in str(button.label)
        button.focus()
        await pilot.press("enter")
        await until(pilot, lambda: not further.display)
        app.field("warmup").value = "-1"
        await pilot.press("ctrl+s")  # what is wrong is shown, wherever it is
        await until(pilot, lambda: further.display and app.form.focused_field() == "warmup")
        app.field("warmup").value = "0"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.under_test.training is not None)
        assert app.under_test.training is not None
        assert app.under_test.training.request.settings == {"optimizer": OPTIMIZERS[1]}


async def test_a_choice_shows_all_and_is_made_with_keys_or_a_click(base: ModelRef) -> None:
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test(size=(120, 60)) as pilot:
        choice = app.field("learn").content
        assert isinstance(choice, Choice)
        await until(pilot, lambda: choice.region.height)
        assert choice.render().plain.split() == ["[turns]", "last", "all"]
        choice.focus()
        for key, chosen in (("space", "last"), ("right", "all"), ("right", "turns"), ("left", "all")):
            await pilot.press(key)
            assert app.form.draft.texts["learn"] == chosen
        await pilot.click(choice, offset=(choice.render().plain.index("last"), 0))
        await until(pilot, lambda: app.form.draft.texts["learn"] == "last")
        await pilot.press("enter")
        assert app.form.focused_field() != "learn"


async def test_what_means_nothing_for_these_rows_or_beside_the_others_says_so(
    base: ModelRef, data: Path
) -> None:
    data.write_text('{"text": "Night rain."}\n' * 20)
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test(size=(120, 40)) as pilot:
        await filled(pilot, app, data)
        await until(pilot, lambda: "learned whole" in app.field("learn").note)
        assert app.field("rank").display and not app.field("virtual_tokens").display
        app.field("rank").value = "32"
        app.field("method").value = "prompt"
        await until(pilot, lambda: app.field("virtual_tokens").display and not app.field("rank").display)
        assert app.form.draft.request().settings == {"method": "prompt"}


async def test_the_objective_decides_which_rows_and_settings_there_are(base: ModelRef, data: Path) -> None:
    data.write_text('{"question": "Hi?", "yes": "Hello.", "no": "Go."}\n' * 20)
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test(size=(120, 40)) as pilot:
        app.field("data").value = str(data)
        await until(pilot, lambda: app.form.report is not None)
        app.field("keys").value = "question"
        await until(pilot, lambda: "names no keys" in app.field("keys").note)
        app.field("keys").value = "question=prompt,yes=chosen,no=rejected"
        await until(pilot, lambda: app.form.report is not None and app.form.report.good)
        await until(pilot, lambda: "does not learn from 'preference' rows" in app.field("objective").note)
        assert not app.field("beta").display and app.field("objective").has_class("-wrong")
        app.field("beta").value = "0.5"
        await until(pilot, lambda: app.form.draft.texts["beta"] == "0.5")
        assert "beta" not in app.form.draft.request().settings  # it would be refused
        app.field("objective").value = "dpo"
        await until(pilot, lambda: app.field("beta").display)
        assert not app.form.problems() and app.form.draft.request().settings["beta"] == 0.5
        assert app.said("#finetune-summary").startswith("15 steps, 3 times")  # two to a row cannot be packed


async def test_memory_follows_the_settings(base: ModelRef) -> None:
    app = Host(FineTuneScreen(engine := player(), base))
    await engine.start()
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.form.estimate is not None)
        assert app.form.estimate is not None and app.form.estimate.verdict == "too big"
        assert "grad_checkpoint on" in app.said("#finetune-memory")
        app.field("grad_checkpoint").content.focus()
        await pilot.press("space")
        await until(pilot, lambda: app.form.estimate is not None and app.form.estimate.verdict == "fits")
        assert app.said("#finetune-memory").startswith("✓ Fits: training takes ")
        app.field("memory").value = "1GB"
        await until(pilot, lambda: "models may take 1.0 GB by memory" in app.said("#finetune-memory"))
        app.field("memory").value = "much"
        await until(pilot, lambda: "such as 12GB" in app.field("memory").note)
        assert "memory" in app.form.problems()


async def test_the_limit_counts_as_soon_as_the_engine_says_it(base: ModelRef) -> None:
    engine = player()
    app = Host(FineTuneScreen(engine, base))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.form.estimate is not None)
        assert app.form.estimate is not None and app.form.estimate.verdict == "unknown"
        await engine.start()
        await until(pilot, lambda: app.form.estimate is not None and app.form.estimate.verdict == "too big")


async def test_an_adapter_that_is_there_is_resumed_or_named_otherwise(base: ModelRef, data: Path) -> None:
    (adapters.folder() / "old" / adapters.STATE).mkdir(parents=True)
    (adapters.folder() / "haiku").mkdir()
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test(size=(120, 40)) as pilot:
        await filled(pilot, app, data)
        assert app.field("adapter").value == "haiku-2"
        app.field("adapter").value = "haiku"
        await until(pilot, lambda: "Choose another name" in app.field("adapter").note)
        await pilot.press("ctrl+s", "ctrl+r")
        await pilot.pause()
        assert app.under_test.view is None  # neither starts over it nor resumes what has no state
        app.field("adapter").value = "old"
        await until(pilot, lambda: "ctrl+r" in app.field("adapter").note)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.under_test.training is not None)
        assert app.under_test.training is not None and app.under_test.training.request.resume


async def test_ctrl_l_chooses_another_base(base: ModelRef) -> None:
    async def choose() -> ModelRef:
        return ModelRef("other", base.path)

    app = Host(FineTuneScreen(player(), base, choose_model=choose))
    async with app.run_test() as pilot:
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.form.draft.base.name == "other")


async def test_enter_goes_to_the_next_field(base: ModelRef) -> None:
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test() as pilot:
        app.field("rank").content.focus()
        await pilot.press("enter")
        await until(pilot, lambda: app.form.focused_field() == "batch_size")


async def test_esc_closes_the_form(base: ModelRef) -> None:
    app = Host(FineTuneScreen(player(), base))
    async with app.run_test() as pilot:
        await pilot.press("escape")
        await until(pilot, lambda: app.closed)


# -- the run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=["narrow", "wide"])
async def test_a_run_from_start_to_end(base: ModelRef, data: Path, size: tuple[int, int]) -> None:
    kept: list[TrainingRun] = []
    app = Host(FineTuneScreen(player(), base, keep=kept.append))
    async with app.run_test(size=size) as pilot:
        run = await started(pilot, app, data)
        assert kept == [run] and run.request.data == str(data) and run.request.adapter == "haiku"
        assert run.request.settings == {}  # all as it would be by itself
        await until(pilot, lambda: run.over and app.said("#training-banner"))
        assert app.said("#training-banner").startswith("✓ Finished at step 60, validation loss 1.770.")
        assert "press c, or macllm chat qwen3-0.6b --adapter /adapters/haiku" in app.said("#training-banner")
        assert "step 60 of 60" in app.said("#training-progress") and "100 %" in app.said("#training-progress")
        assert "best 1.761 at step 50" in app.said("#training-figures")
        plot = app.under_test.query_one(Plot).text
        assert "validation 1.77" in plot and BEST in plot.split("\n", 1)[1]
        assert app.under_test.query_one(Samples).option_count == 6


async def test_while_it_runs_one_sees_how_far_it_is(base: ModelRef) -> None:
    run = play(fresh(), until_step=30)
    app = Host(FineTuneScreen(player(), base, run=run))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.said("#training-progress"))
        assert app.said("#training-progress").startswith("Learning  step 30 of 60  █")
        assert "12 s left" in app.said("#training-progress")
        assert "saved at step 20" in app.said("#training-speed")
        assert any(bar in app.said("#training-speed") for bar in "▅▆▇█")
        assert "of 14.5 GB, peak 1.7 GB" in app.said("#training-memory")
        assert not app.under_test.query_one("#training-banner").display


async def test_s_stops_once_confirmed_and_r_resumes(base: ModelRef, data: Path) -> None:
    request = Train(base, str(data), "haiku", {}, True)
    again = Exchange(
        request,
        (
            (0.0, (Planned(base.name, "haiku", 182, 20, 60, 1, 1, 1, resumed_step=20),)),
            (0.1, (TrainStep(21, 60, 0.5, 1e-5, 1.0, 100, 900.0, 1, 1, 1.0, 39.0),)),
            (0.2, (Trained("finished", 21, "/adapters/haiku", 0.5, None), Done("stop", "", Metrics()))),
        ),
    )
    gate = Gate(44)
    app = Host(FineTuneScreen(player(gate, again), base))
    async with app.run_test(size=(120, 40)) as pilot:
        run = await started(pilot, app, data)
        await until(pilot, lambda: run.step is not None and run.saved)
        await pilot.press("s")
        await until(pilot, lambda: app.screen is not app.under_test)
        await pilot.press("escape")  # no
        await until(pilot, lambda: app.screen is app.under_test)
        assert run.state == "running"
        await pilot.press("s")
        await until(pilot, lambda: app.screen is not app.under_test)
        await pilot.press("y")
        await until(pilot, lambda: run.state == "stopped")
        await until(pilot, lambda: "Press r to resume" in app.said("#training-banner"))
        gate.open()
        await pilot.press("r")
        await until(pilot, lambda: app.under_test.training is not run)
        resumed = app.under_test.training
        assert resumed is not None
        await until(pilot, lambda: resumed.over)
        assert resumed.request == replace(run.request, resume=True)
        assert resumed.loss.x_range == (1, 21) and resumed.state == "finished"
        await until(pilot, lambda: app.under_test.query_one(Samples).option_count == 2)


async def test_enter_unfolds_a_sample_and_folds_it_again(base: ModelRef) -> None:
    app = Host(FineTuneScreen(player(), base, run=play(fresh())))
    async with app.run_test(size=(80, 24)) as pilot:
        samples = app.under_test.query_one(Samples)
        await until(pilot, lambda: samples.option_count == 6 and app.focused is samples)
        last = samples.option_count - 1

        def shown() -> str:
            return str(samples.get_option_at_index(last).prompt)

        assert shown().startswith("▸ step 60") and "\n" not in shown()
        await pilot.press("enter")
        await until(pilot, lambda: "Someone laughs, gets in." in shown())
        await pilot.press("enter")
        await until(pilot, lambda: shown().startswith("▸"))


async def test_l_changes_the_scale(base: ModelRef) -> None:
    app = Host(FineTuneScreen(player(), base, run=play(fresh())))
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.focused, Samples))
        await pilot.press("l")
        assert app.under_test.query_one(Plot).logarithmic
        await pilot.press("l")
        assert not app.under_test.query_one(Plot).logarithmic


async def test_a_refused_run_says_why_and_e_gives_the_form_back(base: ModelRef, data: Path) -> None:
    """What today's engine answers to every Train."""
    refusal = Failed("fine-tuning is not part of this version of macllm", 1, "TrainingUnavailable")
    app = Host(FineTuneScreen(answering(refusal), base))
    async with app.run_test(size=(120, 40)) as pilot:
        await filled(pilot, app, data)
        app.field("rank").value = "32"
        app.field("adapter").value = "mine"
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.under_test.training is not None and app.under_test.training.over)
        await until(pilot, lambda: app.said("#training-banner"))
        assert app.said("#training-banner").startswith(
            "✗ Fine-tuning is not part of this version of macllm. Press e"
        )
        await pilot.press("r", "s")  # nothing to resume or to stop
        await pilot.press("e")
        await until(pilot, lambda: app.under_test.form is not None and app.form.report is not None)
        assert app.field("rank").value == "32" and app.field("adapter").value == "mine"
        assert app.field("data").value == str(data)


async def test_a_closed_screen_leaves_the_run_and_another_shows_it(base: ModelRef, data: Path) -> None:
    gate, kept = Gate(20), []
    engine = player(gate)
    app = Host(FineTuneScreen(engine, base, keep=kept.append))
    async with app.run_test(size=(120, 40)) as pilot:
        run = await started(pilot, app, data)
        await until(pilot, lambda: run.step is not None)
        await pilot.press("escape")
        await until(pilot, lambda: app.closed)
        gate.open()
        await until(pilot, lambda: run.over)
        assert run.step is not None and run.step.step == 60
        app.under_test = FineTuneScreen(engine, base, run=kept[0])
        await app.push_screen(app.under_test)
        await until(pilot, lambda: app.under_test.view is not None and app.said("#training-banner"))
        assert app.under_test.query_one(Samples).option_count == 6


def test_the_screens_need_neither_mlx_nor_numpy(run_python: Any) -> None:
    code = (
        "import sys, macllm_tui.screens.finetune, macllm_tui.screens.compare;"
        "print([name for name in ('mlx', 'numpy', 'huggingface_hub') if name in sys.modules])"
    )
    assert run_python(code).strip() == "[]"
