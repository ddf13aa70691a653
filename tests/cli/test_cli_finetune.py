"""``macllm finetune`` as a user types it: what it writes, shows and refuses, and how it is stopped."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import chatty
import pytest

from macllm.adapters import kept
from macllm.cli import finetune
from macllm.cli.finetune_request import Request, request_from
from macllm.cli.main import CommandParser, main
from macllm.tune.recipe import read_recipe
from macllm.tune.settings import SETTINGS, Setting

QUICK = [
    "--iters",
    "4",
    "--learning-rate",
    "0.01",
    "--max-seq-length",
    "64",
    "--batch-size",
    "2",
    "--samples",
    "0",
]
ROWS = [{"prompt": f"{n} and {n}?", "completion": "ab" * (n % 5 + 1)} for n in range(24)]


@pytest.fixture
def model() -> Path:
    return chatty.folder("endless")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def run(*words: str | Path) -> int:
    return main(["finetune", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 2) -> str:
    assert run(*words) == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("macllm: ")]
    assert len(lines) == 1, err
    return lines[0]


def parsed(*words: str) -> Request:
    parser = CommandParser("macllm finetune", "")
    finetune.configure(parser)
    return request_from(parser.parse(["model", "--data", "rows.jsonl", *words]))


# -- a run -----------------------------------------------------------------------------------------------


def test_a_run_writes_what_the_contract_says(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "learned"
    assert (
        run(model, "--data", data, "--adapter-path", out, *QUICK, "--steps-per-eval", "2", "--samples", "1")
        == 0
    )
    told = capsys.readouterr()
    for name in ("adapters.safetensors", "adapter_config.json", "metrics.jsonl", "loss.svg", "state"):
        assert (out / name).exists(), name
    assert told.out.splitlines()[0].startswith(f"{out}: finished after 4 steps, loss ")
    assert told.out.splitlines()[1] == f"chat with it: macllm chat {model} --adapter {out}"
    lines = told.err.splitlines()
    assert lines[0] == f"writing to {out}"
    assert [line.split(":")[0] for line in lines if line.startswith("step ") and "loss" in line] == [
        f"step {step}/4" for step in range(1, 5)
    ]
    assert "step 2: saved" in lines and any(line.startswith("sample at step 4: ") for line in lines)
    assert sum("validation" in line and line.startswith("step ") for line in lines) == 3


def test_json_is_one_object(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, "--data", data, "--adapter-path", tmp_path / "out", *QUICK, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(tmp_path / "out") and found["reason"] == "finished" and found["steps"] == 4
    assert found["best_step"] == 4 and found["valid_loss"] < found["first_valid_loss"]
    assert found["tokens"] > found["supervised_tokens"] > 0 and found["tokens_per_s"] > 0
    assert found["peak_memory_bytes"] > 0 and found["wall_s"] > 0 and found["trainable_parameters"] > 0


def test_a_service_that_is_away_costs_nothing(
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def log(*words: object, **more: object) -> None:
        print("a service prints")
        raise OSError("the net is away")

    service = ModuleType("wandb")
    service.__dict__.update(init=lambda **more: None, log=log, finish=lambda: print("done"))
    monkeypatch.setitem(sys.modules, "wandb", service)
    words = ["--adapter-path", tmp_path / "out", *QUICK, "--report-to", "wandb,tensorboard", "--json"]
    assert run(model, "--data", data, *words) == 0
    told = capsys.readouterr()
    assert (
        json.loads(told.out)["steps"] == 4 and told.err.count("note: no more reports: the net is away") == 1
    )
    assert list((tmp_path / "out" / "tensorboard").iterdir())


def test_reports_are_means_over_so_many_steps(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--adapter-path", tmp_path / "out", *QUICK, "--steps-per-report", "2"]
    assert run(model, "--data", data, *words) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "/4: loss" in line]
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "metrics.jsonl").open()][1:]
    assert [line.split(":")[0] for line in lines] == ["step 1/4", "step 2/4", "step 4/4"]
    assert f"loss {sum(losses[2:]) / 2:.4f}" in lines[-1]


def test_without_a_folder_a_free_name_is_taken(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept.folder() / "rows").mkdir(parents=True)
    assert run(model, "--data", data, *QUICK) == 0
    assert (kept.folder() / "rows-2" / "adapters.safetensors").exists()
    assert str(kept.folder() / "rows-2") in capsys.readouterr().out


def test_what_was_learned_is_never_written_over(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (model, "--data", data, "--adapter-path", tmp_path / "out", *QUICK)
    assert run(*words) == 0
    before = (tmp_path / "out" / "adapters.safetensors").read_bytes()
    capsys.readouterr()
    assert str(tmp_path / "out") in refused(capsys, *words)
    assert (tmp_path / "out" / "adapters.safetensors").read_bytes() == before
    assert f"{data}: there is a file of this name" in refused(
        capsys, model, "--data", data, "--adapter-path", data
    )


def test_a_run_goes_on_by_its_folder_alone(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(model, "--data", data, "--adapter-path", out, *QUICK) == 0
    capsys.readouterr()
    assert run("--resume", out, "--iters", "6", "--json") == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["resumed_step"] == 4 and found["steps"] == 6 and found["base"] == str(model)
    assert "going on after step 4" in told.err and "step 5/6" in told.err and "step 4/6" not in told.err
    assert "rank=16" in refused(capsys, "--resume", out, "--rank", "16")
    assert "--adapter-path" in refused(capsys, "--resume", out, "--adapter-path", tmp_path / "other")
    assert "no run" in refused(capsys, "--resume", tmp_path / "nothing")
    told = refused(capsys, chatty.folder("short"), "--resume", out)
    assert f"its run teaches {model}, not " in told
    assert run("--resume", out, "--epochs", "1", "--plan", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == plan["batches_per_epoch"] and plan["resumed_step"] == 6
    assert any("teaches little" in note for note in plan["notes"])


@pytest.fixture
def started(model: Path, data: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    words = [model, "--data", data, "--adapter-path", tmp_path / "out", *QUICK, "--iters", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "macllm", "finetune", *map(str, words), "--steps-per-report", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    yield process
    process.kill()
    process.communicate()


def test_the_first_interrupt_saves_and_says_how_to_go_on(
    started: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("step 3/"):
            break
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    out_folder = tmp_path / "out"
    assert started.returncode == 130 and out == ""
    assert err.splitlines()[-1].startswith("macllm: stopped and saved after step ")
    assert err.rstrip().endswith(f"go on with `macllm finetune --resume {out_folder}`")
    step = int(err.split("saved after step ")[1].split()[0])
    assert run("--resume", out_folder, "--iters", str(step + 2), "--json") == 0
    assert json.loads(capsys.readouterr().out)["resumed_step"] == step


def test_on_a_terminal_it_draws_on_the_other_screen_and_leaves_the_last_picture(
    model: Path, data: Path, tmp_path: Path
) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    words = [model, "--data", data, "--adapter-path", tmp_path / "out", *QUICK, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(
        [sys.executable, "-m", "macllm", "finetune", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=follower,
        stdin=subprocess.DEVNULL,
        env=environment,
    ) as process:
        os.close(follower)
        shown = b""
        while part := _read(leader):
            shown += part
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["steps"] == 4  # nothing of the picture is there
    os.close(leader)
    assert process.returncode == 0
    drawn, _, left = shown.decode().rpartition("\x1b[?1049l")
    assert "\x1b[?1049h" in drawn and "step 4 of 4" in left and "⠤⠒⠤" in left
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", left)
    assert max(map(len, plain.splitlines())) <= 60


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux tells that nobody writes any more
        return b""


_TWICE = """
import hashlib
from macllm.cli.interrupts import Interrupts
with Interrupts(lambda: print("asked", flush=True), lambda: print("left", flush=True)):
    print("ready", flush=True)
    # in C without the interpreter's lock, as a step is: Python's own handlers wait for its end
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_the_second_interrupt_ends_at_once() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", _TWICE], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "left\n"
    assert process.returncode == 130


# -- data ------------------------------------------------------------------------------------------------


def test_every_bad_line_is_told_in_one_run(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write(tmp_path / "bad.jsonl", [ROWS[0], '{"a": ', {"text": ""}, *ROWS[1:], *["[]"] * 60])
    assert run(model, "--data", bad, *QUICK) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and not kept.folder().exists()
    assert lines[0].startswith("bad.jsonl:2: ") and lines[1].startswith("bad.jsonl:3: ")
    assert sum(line.startswith("bad.jsonl:") for line in lines) == 50
    assert lines[-2] == "... and 12 more"
    assert lines[-1].startswith(f"macllm: {bad}: 62 lines cannot be learned from")


def test_data_is_shown_with_what_is_learned(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, "--data", data, "--show-data", "--max-seq-length", "64") == 0
    out = capsys.readouterr().out
    assert "⟦ab" in out and "train" in out and "Packed: " in out and "% full" in out
    learned = out.split("⟦")[1].split("⟧")[0]
    assert learned.startswith("ab") and "and" not in learned
    assert run(model, "--data", data, "--show-data", "--no-pack", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"]["rows"] + found["valid"]["rows"] == len(ROWS) and found["packed_rows"] is None
    assert found["train"]["longest_at"].startswith("rows.jsonl:")
    pieces = found["example"][0]["pieces"]
    assert [piece["learned"] for piece in pieces] == [False, True]


def test_both_answers_of_a_preference_row_are_shown(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"{n}?", "chosen": "yes", "rejected": f"no {n}"} for n in range(9)]
    words = (
        model,
        "--data",
        write(tmp_path / "pairs.jsonl", rows),
        "--objective",
        "dpo",
        "--max-seq-length",
        "64",
    )
    assert run(*words, "--show-data") == 0
    out = capsys.readouterr().out
    assert (
        "Preferred: pairs.jsonl:" in out
        and "Rejected: pairs.jsonl:" in out
        and "⟦yes" in out
        and "⟦no " in out
    )
    assert re.search(r"train +8 ", out) and "Packed" not in out
    assert run(*words, "--plan", "--json") == 0
    assert json.loads(capsys.readouterr().out)["train"]["rows"] == 8


def test_a_plan_is_told_and_nothing_is_written(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (model, "--data", data, "--adapter-path", tmp_path / "out", *QUICK, "--plan")
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert "steps" in out and "weights that learn" in out and "Fits: " in out
    assert run(*words, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 4 and plan["train"]["tokens"] > 0 and plan["fits"]
    assert plan["settings"]["batch_size"] == 2 and plan["estimated_bytes"] > 0
    assert not (tmp_path / "out").exists()
    assert run(*(str(word) for word in words if word != "--plan"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["trainable_parameters"] == plan["trainable_parameters"]


def test_a_plan_that_does_not_fit_is_shown_and_refused(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (model, "--data", data, *QUICK, "--memory", "10kB")
    assert run(*words, "--plan", "--json") == 2
    out, err = capsys.readouterr()
    plan = json.loads(out)
    assert not plan["fits"] and plan["steps"] == 4
    assert err == f"macllm: {plan['refusal']}\n" and "only 10.0 kB may be taken" in err
    assert "only 10.0 kB may be taken" in refused(capsys, *words, code=1)


# -- options and recipes ---------------------------------------------------------------------------------


def another(setting: Setting) -> tuple[str, Any]:
    """A value that is not the default, as text and as it is kept."""
    if setting.choices:
        other = next(choice for choice in setting.choices if choice != setting.default)
        return other, other
    if setting.text:
        return "7GB", "7GB"
    number = 2 if setting.whole else 0.5
    while number == setting.default:
        number += 1 if setting.whole else 0.25
    number = max(number, setting.low)
    return setting.write(number), number


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_every_setting_has_an_option(setting: Setting) -> None:
    flag = f"--{setting.name.replace('_', '-')}"
    if setting.switch:
        assert parsed(flag).settings == {setting.name: True}
        assert parsed(flag.replace("--", "--no-")).settings == {setting.name: False}
    elif setting.name == "pack":
        assert parsed("--pack").settings == {"pack": "yes"} and parsed("--no-pack").settings == {"pack": "no"}
    else:
        text, value = another(setting)
        assert parsed(flag, text).settings == {setting.name: value}
    assert parsed().settings == {}


def test_options_that_cannot_be(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--iters and --epochs" in refused(capsys, "m", "--data", data, "--iters", "3", "--epochs", "1")
    assert "rank='0'" in refused(capsys, "m", "--data", data, "--rank", "0")
    assert "did you mean --rank" in refused(capsys, "m", "--data", data, "--rnak", "3")
    assert "no model" in refused(capsys, "--data", data)
    assert "--data" in refused(capsys, "m")
    assert "tensorboard, wandb" in refused(capsys, "m", "--data", data, "--report-to", "paper")


def test_options_go_over_a_recipe(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'model = "{model}"\ndata = "rows.jsonl"\nadapter_path = "out"\nepochs = 2\nrank = 4\nbatch_size = 2\n'
        "max_seq_length = 64\nsteps_per_report = 5\n"
    )
    assert run("-c", recipe, "--rank", "2", "--iters", "3", "--plan", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 3 and plan["settings"]["rank"] == 2 and plan["settings"]["batch_size"] == 2
    assert plan["adapter_path"] == str(tmp_path / "out") and plan["data"] == str(data)


def test_init_writes_a_recipe_that_runs_and_never_over_a_file(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    assert run(model, "--data", data, "--init", file) == 0
    text = file.read_text()
    assert str(file) in capsys.readouterr().out and "24 rows" not in text
    assert f"{24 - 1} rows of schema 'completion'" in text
    recipe = read_recipe(file)
    assert recipe.settings["max_seq_length"] == 512 and recipe.settings["objective"] == "sft"
    assert all(setting.name in text and setting.help in text for setting in SETTINGS)
    assert run("-c", file, "--plan", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["epochs"] == recipe.settings["epochs"]
    assert "there is a file already" in refused(capsys, model, "--data", data, "--init", file)
    assert file.read_text() == text


def test_init_keeps_the_keys_that_rows_are_read_under(tmp_path: Path) -> None:
    data, file = tmp_path / "rows.jsonl", tmp_path / "recipe.toml"
    rows = [{"question": f"{n}?", "good": "ab", "bad": "c"} for n in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = "question=prompt,good=chosen,bad=rejected"
    assert run(chatty.folder("endless"), "--data", data, "--keys", keys, "--init", file) == 0
    written = read_recipe(file).settings
    assert (written["objective"], written["keys"]) == ("dpo", keys)
    assert run("-c", file, "--plan") == 0


def test_several_bad_things_of_a_recipe_are_named_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.toml"
    file.write_text("# mine\nrank = 8\nrnak = 4\n")
    assert refused(capsys, "-c", file) == f"macllm: {file}:3: there is no setting 'rnak' (did you mean rank?)"
