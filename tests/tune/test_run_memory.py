"""A run fits itself into memory before it starts, says what it chose, and keeps the steps that were asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
from running import job, ran

from macllm.engine.training_events import Planned
from macllm.errors import MemoryLimitError
from macllm.tune.planner import NothingFits
from macllm.tune.setup import plan_of, set_up
from macllm.units import size


def test_a_run_chooses_what_fits_and_says_so(tmp_path: Path) -> None:
    usual = set_up(job(tmp_path, iters=2, samples=0))
    assert not usual.settings["grad_checkpoint"]
    lengths = [len(example) for example in (*usual.data.train, *usual.data.valid)]

    def takes(**changes: object) -> int:
        settings = {**usual.settings, **changes}
        return plan_of(usual.job, settings, usual.spec, lengths, usual.objective, given=settings).needed_bytes

    whole, checkpointed = takes(), takes(grad_checkpoint=True)
    assert checkpointed < whole
    memory = f"{(checkpointed + whole) / 2000:.0f}kB"
    events = ran(job(tmp_path, iters=2, samples=0, memory=memory))
    planned = events[0]
    assert isinstance(planned, Planned) and planned.steps == 2
    assert any("activations are computed twice (grad_checkpoint)" in note for note in planned.notes)
    assert planned.estimated_bytes <= planned.memory_limit_bytes
    assert not set_up(job(tmp_path, iters=2, memory=memory, grad_checkpoint=False)).settings[
        "grad_checkpoint"
    ]


def test_a_run_that_goes_on_keeps_its_settings_or_is_refused(tmp_path: Path) -> None:
    one = job(tmp_path, iters=1, samples=0, batch_size=4)
    ran(one)
    setup = set_up(one)
    lengths = [len(example) for example in (*setup.data.train, *setup.data.valid)]
    takes = [
        plan_of(
            one, {**setup.settings, "batch_size": rows}, setup.spec, lengths, setup.objective, ()
        ).needed_bytes
        for rows in (4, 1)
    ]
    assert takes[1] < takes[0]
    again = replace(one, resume=True, settings={"iters": 2, "memory": f"{sum(takes) / 2000:.0f}kB"})
    with pytest.raises(
        MemoryLimitError, match=r"fits with batch_size=[12]; start a new run with that, or raise memory"
    ):
        ran(again)


def test_a_run_that_cannot_fit_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    one = job(tmp_path, iters=2, memory="2kB")
    with pytest.raises(MemoryLimitError, match=r"only 2\.0 kB may be taken; choose a smaller base"):
        ran(one)
    assert not one.folder.exists()


def test_a_refusal_speaks_of_the_least_that_the_run_could_be_made_to_take(tmp_path: Path) -> None:
    setup = set_up(job(tmp_path, iters=2, memory="2kB"))
    assert setup.settings["grad_checkpoint"] and setup.settings["batch_size"] == 1
    lengths = [len(example) for example in (*setup.data.train, *setup.data.valid)]
    free = {**setup.settings, "memory": "10GB"}
    least = plan_of(setup.job, free, setup.spec, lengths, setup.objective, given=free).needed_bytes
    with pytest.raises(NothingFits, match=f"takes at least {size(least)} with"):
        plan_of(setup.job, setup.settings, setup.spec, lengths, setup.objective, given=setup.settings)
