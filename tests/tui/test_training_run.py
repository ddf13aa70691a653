"""A fine-tuning run without a screen: its history, its ends, and the form's content as a request."""

from dataclasses import replace
from pathlib import Path

from training_player import answering, fresh, play

from macllm.adapters import kept as adapters
from macllm.engine.events import Machine
from macllm.engine.protocol import ModelRef, Train
from macllm.engine.training_events import Planned, Preparing, Saved, Validation
from macllm.tune.settings import checked
from macllm_tui.screens.finetune_draft import Draft, free_name
from macllm_tui.screens.training_view import losses_line, memory_line, progress_line, speed_line
from macllm_tui.training import LONGEST_STOP_S, TrainingRun


async def test_an_engine_that_cannot_start_fails_the_run() -> None:
    class Dead:
        machine: Machine | None = None
        alive = False
        problem = ""

        async def start(self) -> None:
            from macllm.engine.death import EngineDied

            raise EngineDied("the engine was killed by the system")

    run = TrainingRun(Dead(), Train(ModelRef("", ""), "", ""))  # type: ignore[arg-type]
    await run.follow()
    assert run.state == "failed" and run.failed is not None and "killed" in run.failed.message


def test_a_run_keeps_its_history() -> None:
    run = play(fresh())
    assert run.state == "finished" and run.loss.length == 60 and run.valid_loss.length == 7
    assert (
        run.best is not None and run.best.step == 50 and [saved.step for saved in run.saved] == [20, 40, 60]
    )
    assert run.sampled == 6 and len(run.speeds) == 60


def test_a_resumed_run_forgets_what_came_after_its_last_save() -> None:
    run = play(fresh(), until_step=35).resumed()
    assert run.request.resume
    run.take(Planned("b", "a", 1, 1, 60, 1, 1, 1, resumed_step=20))
    assert run.loss.x_range == (1, 20) and run.valid_loss.x_range == (0, 20)
    assert [saved.step for saved in run.saved] == [20] and len(run.samples) == 2
    assert run.best is not None and run.best.step == 20


async def test_a_stream_that_ends_without_a_word_is_a_failure() -> None:
    run = TrainingRun(answering(Validation(0, 3.0, True), Saved(1, "/a")), fresh().request)
    await run.follow()
    assert run.state == "failed" and run.resumable


def test_a_draft_makes_the_request_it_came_from() -> None:
    request = fresh().request
    made = Draft.of(request).request()
    assert replace(made, settings=checked(made.settings)) == replace(
        request, settings=checked(request.settings)
    )
    by_epochs = Draft.of(request).with_text("iters", "").with_text("epochs", "1.5").request()
    assert by_epochs.settings["epochs"] == 1.5 and "iters" not in by_epochs.settings


def test_a_free_name_is_a_name(tmp_path: Path) -> None:
    for data in ("/a/My data (1).jsonl", "/a/b/", "…", "", "x" * 200):
        assert adapters.checked_name(free_name(data))


def test_how_far_answers_were_looked_at_is_told_until_the_plan() -> None:
    run = fresh()
    run.take(Preparing(30, 120))
    assert progress_line(run, 80).startswith("Looking at the answers before learning")
    assert progress_line(run, 80).endswith(" 25 %")
    run.take(Planned("b", "a", 8, 1, 60, 1, 1, 1))
    assert "60 steps" in progress_line(run, 80)


def test_lines_fit_what_they_are_given() -> None:
    run = play(fresh(), until_step=30)
    for width in (58, 78, 118):
        lines = progress_line(run, width), losses_line(run), speed_line(run, width), memory_line(run)
        assert all(0 < len(line) <= width for line in lines)
    assert memory_line(fresh()) == ""


def test_a_stop_takes_about_a_step() -> None:
    run = play(fresh(), until_step=30)
    assert run.step is not None and run.stops_within_s == 3 * run.step.elapsed_s / 30
    assert fresh().stops_within_s == 0.0 and play(fresh()).stops_within_s == 0.0
    run.take(replace(run.step, elapsed_s=1e6))
    assert run.stops_within_s == LONGEST_STOP_S
