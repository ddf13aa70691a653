"""The fine-tuning screen over the app's real engine process and a tiny model: run, stopped, resumed, refused."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import chatty
from simulated import opened, shown, texts, until
from textual.pilot import Pilot

from macllm.adapters import kept
from macllm.engine.client import EngineClient
from macllm_tui.app import MacllmApp, Start
from macllm_tui.screens.finetune import FineTuneScreen
from macllm_tui.training import TrainingRun
from macllm_tui.widgets.fields import Field

PATIENCE_S = 60.0


@asynccontextmanager
async def training(
    tmp_path: Path, rows: list[Any] | None = None, **fields: str
) -> AsyncIterator[tuple[MacllmApp, Pilot[None], TrainingRun]]:
    """The app with a run that was filled in and started."""
    data = tmp_path / "data.jsonl"
    content = rows or [{"prompt": f"{n} and {n}?", "completion": "ab" * (n % 5 + 1)} for n in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in content))
    filled = {"data": str(data), "learning_rate": "0.01", "max_seq_length": "64", "batch_size": "2", **fields}
    engine = EngineClient(worker="macllm.tune.worker")
    start = Start(sampling={"max_tokens": 5, "ignore_eos": True})
    async with opened(
        tmp_path / "chats.db", engine=engine, model=chatty.ref("endless"), size=(120, 50), start=start
    ) as (app, pilot):
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, FineTuneScreen) and app.screen.form)
        form = screen_of(app).form
        assert form is not None
        for name, value in filled.items():
            form.query_one(f"#field-{name}", Field).value = value
        await until(pilot, lambda: form.report is not None and form.draft.adapter)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.training is not None)
        assert app.training is not None
        yield app, pilot, app.training
        await engine.close()


def screen_of(app: MacllmApp) -> FineTuneScreen:
    assert isinstance(app.screen, FineTuneScreen)
    return app.screen


async def seen(pilot: Pilot[None], app: MacllmApp, *words: str) -> None:
    await reached(pilot, lambda: all(word in shown(app) for word in words))


async def reached(pilot: Pilot[None], true: Callable[[], object]) -> None:
    """Looks seldom: the engine needs the cores more."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.1)
    await pilot.pause()


async def test_a_run_is_started_watched_and_leaves_an_adapter(tmp_path: Path) -> None:
    async with training(tmp_path, iters="12", steps_per_eval="6", samples="1") as (app, pilot, run):
        await reached(pilot, lambda: run.over)
        assert run.state == "finished", run.failed
        await seen(pilot, app, "Finished at step 12", "--adapter", "step 12 of 12", "▸ step 12", "set aside")
        assert run.loss.length == 12 and run.valid_loss.length == 3 and run.sampled == 3
        assert run.validation is not None and run.best is not None
        assert (kept.folder() / "data" / kept.WEIGHTS).is_file()
        await pilot.press("c")  # and it answers at once
        await until(pilot, lambda: app.screen is app.chat_screen and app.loading is None)
        assert app.conversation.model is not None
        assert app.conversation.model.adapter == str(kept.folder() / "data")
        app.chat_screen.prompt.text = "Who are you?"
        await pilot.press("enter")
        await until(pilot, lambda: len(texts(app)) == 2 and not app.conversation.replies)
        assert app.conversation.branch[-1].state == "length"


async def test_it_is_stopped_with_s_goes_on_with_r_and_chats_are_told_meanwhile(tmp_path: Path) -> None:
    async with training(tmp_path, iters="5000", samples="0") as (app, pilot, run):
        await reached(pilot, lambda: run.step is not None)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat_screen)
        app.chat_screen.prompt.text = "Are you there?"
        await pilot.press("enter")
        await seen(pilot, app, "is being trained")
        assert app.conversation.branch[-1].state == "failed" and not run.over
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, FineTuneScreen) and app.screen.view)
        await pilot.press("s")
        await seen(pilot, app, "Stop the run?")
        await pilot.press("y")
        await reached(pilot, lambda: run.over)
        assert run.state == "stopped" and run.resumable and run.step is not None
        stopped = run.step.step
        await seen(pilot, app, f"Stopped at step {stopped}", "Press r to resume")
        await pilot.press("r")
        await reached(pilot, lambda: app.training is not run and app.training and app.training.step)
        resumed = app.training
        assert resumed is not None and resumed.planned is not None and resumed.planned.resumed_step == stopped
        await pilot.press("escape")
        resumed.stop()
        await reached(pilot, lambda: resumed.over)
        told = "Fine-tuning data was stopped; f3 shows it."
        await until(pilot, lambda: told in [notice.message for notice in app._notifications])
        app.chat_screen.prompt.text = "And now?"
        await pilot.press("enter")
        await until(pilot, lambda: len(texts(app)) >= 4 and not app.conversation.replies)
        assert app.conversation.branch[-1].state == "length"  # the model is loaded again, without a word


async def test_rows_that_no_token_is_learned_of_are_named(tmp_path: Path) -> None:
    long = {"prompt": "a" * 500, "completion": "b"}
    rows = [{"prompt": "a?", "completion": "b"}] * 5 + [long]
    async with training(tmp_path, rows) as (app, pilot, run):
        await reached(pilot, lambda: run.over)
        assert run.state == "failed" and not run.resumable
        await seen(pilot, app, "data.jsonl:6:", "Press e to change the form.")
        await pilot.press("e")
        await until(pilot, lambda: screen_of(app).form)


async def test_leaving_waits_for_the_step_under_way_and_its_save(tmp_path: Path) -> None:
    async with training(tmp_path, iters="5000", samples="0") as (app, pilot, run):
        await reached(pilot, lambda: run.step is not None)
        await pilot.press("ctrl+q")
        await seen(pilot, app, "being fine-tuned")
        await pilot.press("enter")
        await reached(pilot, lambda: not app.engine.alive)
        assert run.state == "stopped" and run.saved and run.step is not None
        assert run.saved[-1].step == run.step.step
