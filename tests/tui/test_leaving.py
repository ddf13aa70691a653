"""Leaving the app while it teaches a model: it asks, and what was learned is stopped rather than killed."""

from pathlib import Path

from simulated import opened, shown, until
from training_player import Gate, fresh, player

from macllm_tui.training import TrainingRun


async def test_leaving_asks_before_it_stops_a_fine_tuning_run(tmp_path: Path) -> None:
    gate = Gate()
    engine = player(gate)
    async with opened(tmp_path / "chats.db", engine=engine, model=None) as (app, pilot):
        await pilot.press("escape")  # the welcome
        await until(pilot, lambda: type(app.screen).__name__ == "ChatScreen")
        gate.left = 12
        app.training = run = TrainingRun(engine, fresh().request)
        app.run_worker(run.follow(), group="training")
        await until(pilot, lambda: run.step is not None)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: "being fine-tuned" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: type(app.screen).__name__ == "ChatScreen")
        assert run.state == "running" and engine.alive
        await pilot.press("ctrl+q")
        await until(pilot, lambda: "being fine-tuned" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: not engine.alive)
        assert run.state == "stopped"
