"""A whole run: what it says, what it leaves, and that a stopped one goes on bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import chatty
import numpy as np
import pytest
from running import QUICK, assert_same, data, job, left, ran, rows

from macllm.adapters import files
from macllm.adapters.kept import STATE
from macllm.engine.loading import load_model
from macllm.engine.training_events import Planned, Saved, Trained, TrainingEvent, TrainStep, Validation
from macllm.errors import Cancelled, InputError, MacllmError, OptionError
from macllm.nn.adapted import adapters
from macllm.tune import state
from macllm.tune.loop import Diverged
from macllm.tune.metrics_file import read
from macllm.tune.run import train
from macllm.tune.setup import DataError
from macllm.tune.watch import far

METHODS = ["lora", "dora", "full"]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_lowers_the_loss_and_leaves_what_it_learned(method: str, tmp_path: Path) -> None:
    one = job(tmp_path, method=method, iters=16, steps_per_eval=8, save_every=5, samples=1)
    events = ran(one)
    assert isinstance(events[0], Planned) and events[0].steps == 16 and events[0].trainable_parameters > 0
    steps = [event for event in events if isinstance(event, TrainStep)]
    looks = [event for event in events if isinstance(event, Validation)]
    assert [event.step for event in steps] == list(range(1, 17))
    assert [event.step for event in looks] == [0, 8, 16]
    assert [event.step for event in events if isinstance(event, Saved)] == [5, 8, 10, 15, 16]
    assert looks[-1].loss < 0.8 * looks[0].loss and steps[-1].loss < steps[0].loss
    last = events[-1]
    assert isinstance(last, Trained) and last.reason == "finished"
    assert last.valid_loss == min(look.loss for look in looks[1:])
    table = read(one.folder)
    assert [row["step"] for row in table] == list(range(17))
    assert [row["step"] for row in table if row["val_loss"] is not None] == [0, 8, 16]
    assert table[-1]["supervised_tokens"] == steps[-1].supervised_tokens > 0
    assert sorted(path.name for path in (one.folder / STATE).iterdir()) == ["step-00000016"]


def test_the_adapter_on_disk_is_the_best_one(tmp_path: Path) -> None:
    one = job(tmp_path, iters=9, steps_per_eval=3, learning_rate=0.05)
    looks = [event for event in ran(one) if isinstance(event, Validation)]
    best = min(looks[1:], key=lambda look: look.loss)
    config = json.loads((one.folder / "adapter_config.json").read_text())
    assert (config["step"], config["val_loss"]) == (best.step, best.loss)
    loaded = load_model(one.base, dtype="float32")
    files.apply(loaded.model, files.read(one.folder, loaded.spec))
    assert len(list(adapters(loaded.model))) > 4


def test_looks_and_saves_change_nothing_of_what_is_learned(tmp_path: Path) -> None:
    few, many = (
        job(tmp_path / "a", dropout=0.1),
        job(tmp_path / "b", dropout=0.1, steps_per_eval=1, samples=1),
    )
    ran(few), ran(many)
    last = "state/step-00000008/trainable.safetensors"
    found = [
        {name: one for name, one in left(each.folder).items() if name.startswith(last)}
        for each in (few, many)
    ]
    assert found[0]
    assert_same(*found)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora", "dropout": 0.2, "grad_accumulation_steps": 2, "pack": "no"},
        {"method": "dora", "schedule": "cosine", "warmup": 2, "grad_checkpoint": True, "dropout": 0.2},
        {"method": "full", "optimizer": "muon"},
        {"method": "lora", "optimizer": "adafactor", "iters": None, "epochs": 2.5, "steps_per_eval": 3},
    ],
    ids=lambda settings: f"{settings['method']}-{settings.get('optimizer', 'adamw')}",
)
def test_a_stopped_run_goes_on_bit_for_bit(settings: dict, tmp_path: Path) -> None:
    settings = {name: value for name, value in {**QUICK, **settings}.items() if value is not None}
    whole = replace(job(tmp_path / "whole"), settings=settings)
    broken = replace(job(tmp_path / "broken"), settings=settings)
    ran(whole)
    stopped = ran(broken, stop_after=3)
    assert isinstance(stopped[-1], Trained) and stopped[-1].reason == "stopped" and stopped[-1].step == 3
    resumed = ran(replace(broken, settings={}, resume=True))
    assert isinstance(resumed[0], Planned) and resumed[0].resumed_step == 3
    assert_same(left(whole.folder), left(broken.folder))


@pytest.mark.parametrize("looked", [False, True], ids=["in the first look", "after it"])
def test_a_run_that_is_stopped_before_its_first_step_ends_at_once_and_can_be_begun_again(
    looked: bool, tmp_path: Path
) -> None:
    one, events = job(tmp_path), list[TrainingEvent]()

    def cancelled() -> bool:
        return any(isinstance(event, Validation if looked else Planned) for event in events)

    with pytest.raises(Cancelled, match=r"out: stopped before the first step; nothing was trained"):
        for event in train(one, cancelled=cancelled):
            events.append(event)
    assert any(isinstance(event, Validation) for event in events) == looked
    assert not any(isinstance(event, TrainStep) for event in events)
    ran(one)
    whole = job(tmp_path / "whole")
    ran(whole)
    assert_same(left(one.folder), left(whole.folder))


def test_what_a_run_goes_on_with_must_be_its_own(tmp_path: Path) -> None:
    one = job(tmp_path)
    with pytest.raises(InputError, match="no run has saved its state"):
        ran(replace(one, resume=True))
    ran(one, stop_after=2)
    with pytest.raises(InputError, match="there is an adapter already"):
        ran(one)
    again = replace(one, settings={}, resume=True)
    with pytest.raises(OptionError, match=r"rank=4 is not what the run .* began with"):
        ran(replace(again, settings={"rank": 4}))
    with pytest.raises(MacllmError, match=r"trainable\.safetensors: .* resume with the base"):
        ran(replace(again, base=chatty.folder("big")))
    other = data(tmp_path / "other", rows(9))
    with pytest.raises(InputError, match="the rows are others"):
        ran(replace(again, data=other))
    ended = ran(replace(again, settings={"iters": 4, "learning_rate": 1e-3}))
    assert isinstance(ended[-1], Trained) and ended[-1].step == 4


def test_every_line_that_cannot_be_learned_is_named_before_a_model_is_loaded(tmp_path: Path) -> None:
    data(tmp_path, [*rows(3), {"prompt": "a"}, {"text": "b"}, *rows(3), {"prompt": "c", "completion": ""}])
    with pytest.raises(
        DataError, match=r"data\.jsonl:4: .* \(and 2 more lines\); nothing was trained"
    ) as caught:
        ran(replace(job(tmp_path), base=chatty.folder("endless")))
    assert [problem.line for problem in caught.value.problems] == [4, 5, 9]
    assert not (tmp_path / "out").exists()


def test_a_run_that_gets_no_better_ends_early(tmp_path: Path) -> None:
    one = job(
        tmp_path, iters=50, steps_per_eval=1, learning_rate=1.0, early_stop=3, clip=0.0, optimizer="sgd"
    )
    last = ran(one)[-1]
    assert isinstance(last, Trained) and last.reason == "early_stop" and last.step < 50


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_state_before(tmp_path: Path) -> None:
    one = job(tmp_path, iters=200, learning_rate=1.0, clip=0.0, optimizer="sgd", scale=1e18)
    with pytest.raises(
        Diverged, match=r"step \d+: .*; the state of step \d+ is kept in .*lower the learning rate"
    ):
        ran(one)
    saved = state.newest(one.folder)
    assert saved is not None
    for values in (value for name, value in left(one.folder).items() if "trainable" in name):
        assert np.isfinite(values).all()


def test_one_far_loss_is_far_and_noise_is_not() -> None:
    calm = [2.0 + 0.3 * (-1) ** n for n in range(20)]
    assert far(9.0, calm) and not far(3.9, calm) and not far(9.0, calm[:3])
    assert far(0.5, [0.1] * 9) and not far(0.15, [0.1] * 9)


def test_a_disk_that_is_full_leaves_the_save_before(tmp_path: Path) -> None:
    one = job(tmp_path, save_every=2)
    script = (
        "import resource, signal, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from running import job\n"
        "from macllm.errors import MacllmError\n"
        "from macllm.tune.run import train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try:\n"
        "    for event in train(job(Path(sys.argv[1]), save_every=2)):\n"
        "        if type(event).__name__ == 'Saved':\n"
        "            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "except MacllmError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *_paths()], capture_output=True, text=True, check=True
    )
    assert "make room" in done.stdout, done.stderr
    saved = state.newest(one.folder)
    assert saved is not None and saved.progress.step == 2
    assert not list((one.folder / STATE).glob(".partial"))
    resumed = ran(replace(one, settings={}, resume=True))
    assert isinstance(resumed[-1], Trained) and resumed[-1].step == 8


def test_two_processes_are_one(tmp_path: Path) -> None:
    settings = {"batch_size": 3, "grad_accumulation_steps": 2, "optimizer": "sgd", "iters": 4}
    script = tmp_path / "one.py"
    script.write_text(
        f"import sys; sys.path[:0] = {_paths()}\n"
        "from pathlib import Path\n"
        "from running import job, ran\n"
        "for pack in ('no', 'yes'):\n"
        f"    ran(job(Path(sys.argv[1]) / pack, pack=pack, **{settings}))\n"
    )
    for pack in ("no", "yes"):
        data(tmp_path / "together" / pack)
        ran(job(tmp_path / "alone" / pack, pack=pack, **settings))
    launch = [str(Path(sys.executable).parent / "mlx.launch"), "-n", "2", sys.executable, str(script)]
    done = subprocess.run([*launch, str(tmp_path / "together")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for pack in ("no", "yes"):
        one, two = (left(tmp_path / how / pack / "out") for how in ("alone", "together"))
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def _paths() -> list[str]:
    tests = Path(__file__).parent.parent
    return [str(tests.parent), str(tests), str(tests / "tune")]


def _killed_run(folder: Path, resume: bool, seconds: float) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from running import job, ran\n"
        "one = job(Path(sys.argv[1]), iters=40, save_every=1, dropout=0.1)\n"
        "print('up', flush=True)\n"
        "ran(replace(one, settings={}, resume=True) if sys.argv[2] == '1' else one)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(int(resume)), *_paths()], stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def _survives(tmp_path: Path, kills: int, seed: int) -> None:
    whole = job(tmp_path / "whole", iters=40, save_every=1, dropout=0.1)
    ran(whole)
    broken = job(tmp_path / "broken", iters=40, save_every=1, dropout=0.1)
    chance = np.random.default_rng(seed)
    for _ in range(kills):
        _killed_run(tmp_path / "broken", state.newest(broken.folder) is not None, chance.uniform(0.1, 1.2))
    resume = state.newest(broken.folder) is not None
    for _ in train(replace(broken, settings={}, resume=True) if resume else broken):
        pass
    assert_same(left(whole.folder), left(broken.folder))


def test_a_run_killed_at_any_moment_is_the_run_that_was_not(tmp_path: Path) -> None:
    _survives(tmp_path, kills=3, seed=int(time.time()))


@pytest.mark.slow
def test_a_run_killed_fifty_times_is_the_run_that_was_not(tmp_path: Path) -> None:
    _survives(tmp_path, kills=50, seed=int(time.time()))
