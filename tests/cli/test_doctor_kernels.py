"""``macllm doctor`` where kernels run: the table, the JSON, the report, and what dispatch makes of the verdicts."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mlx.core as mx
import pytest
import tiny

from macllm.cli.main import main
from macllm.kernels import dispatch, permission, registry, trial_process
from macllm.kernels.examination import without_names
from macllm.kernels.kernel import Launch
from macllm.kernels.verdicts import Status, Verdict, Verdicts
from macllm.quantization import Quantization

WORKER = Path(__file__).parent.parent / "trial_worker.py"
NF4 = Quantization(4, 64, "nf4")
WIDE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "vocab_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
}


def never(launch: Launch) -> list[mx.array]:
    raise AssertionError("trials run in another process")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Sets up a machine whose kernels are of some kind, see trial_worker.py."""
    two = {name: registry.KERNELS[name] for name in ("nf4_matvec", "nf4_dequantize")}
    monkeypatch.setattr(registry, "KERNELS", two)
    monkeypatch.delenv("MACLLM_KERNELS", raising=False)
    with ExitStack() as stack:
        stack.enter_context(permission.running_on(never))

        def of(kind: str) -> None:
            monkeypatch.setattr(trial_process, "COMMAND", (sys.executable, str(WORKER), kind))

        yield of


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A model with matrices that NF4 holds; its shapes are all that is asked of it."""
    (tmp_path / "config.json").write_text(json.dumps({**tiny.config_of("llama"), **WIDE}))
    return str(tmp_path)


def test_the_table_shows_what_was_tried_and_timed(machine, model, capsys) -> None:
    machine("right")
    assert main(["doctor", "--model", model]) == 0
    out, err = capsys.readouterr()
    header = next(line for line in out.splitlines() if line.startswith("KERNEL "))
    assert header.split() == "KERNEL TYPE SHAPE ROWS ERROR KERNEL TIME RIVAL TIME RATIO VERDICT".split()
    rows = [line.split() for line in out.splitlines() if line.startswith("nf4_matvec ")]
    timed = [row for row in rows if row[1] == "float32"]
    assert {" ".join(row[2:5]) for row in timed} >= {"128 x 128", "256 x 128", "512 x 128"}
    assert {row[5] for row in timed} == {"1", "2", "4", "8"}
    assert {row[-1] for row in timed} <= {"faster", "slower"}
    assert {row[-1] for row in rows if row[1] == "bfloat16"} == {"right"}  # computed in float32 here
    assert "kernels          2 tried, see below" in out
    assert "2 of 2: nf4_dequantize: right, " in err


def test_json_has_a_row_a_verdict(machine, model, capsys) -> None:
    machine("right")
    assert main(["doctor", "--model", model, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["kernels"]
    assert {row["kernel"] for row in rows} == {"nf4_matvec", "nf4_dequantize"}
    assert list(rows[0]) == "kernel dtype shape rows error kernel_s rival_s ratio verdict reason".split()


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [("wrong", "wrong", "is off by"), ("fails", "failed", "error:"), ("dies", "failed", "signal 6")],
)
def test_a_bad_kernel_is_shown_with_its_reason_and_is_not_used(
    machine, model, capsys, kind: str, status: str, words: str
) -> None:
    machine(kind)
    assert main(["doctor", "--model", model]) == 0
    out = capsys.readouterr().out
    assert any(line.startswith("nf4_matvec ") and line.endswith(status) for line in out.splitlines())
    assert any(line.startswith("nf4_matvec, float32: ") and words in line for line in out.splitlines())
    assert dispatch.choose("product", NF4, mx.float32, 1) is None


def test_verdicts_are_kept_and_trusted(machine, model, macllm_home: Path) -> None:
    machine("right")
    assert main(["doctor", "--model", model]) == 0
    assert len(list((macllm_home / "kernels").iterdir())) == 1
    verdict = Verdicts.load().of(registry.KERNELS["nf4_matvec"], mx.float32)
    assert verdict.status in ("faster", "slower")
    chosen = dispatch.choose("product", NF4, mx.float32, 1)
    assert (chosen is not None) == (verdict.status == "faster")


@pytest.mark.parametrize(
    ("status", "setting", "used"),
    [
        ("faster", "auto", True),
        ("slower", "auto", False),
        ("right", "auto", False),
        ("wrong", "auto", False),
        ("failed", "auto", False),
        (None, "auto", False),
        ("faster", "off", False),
        ("slower", "on", True),
        (None, "on", True),
    ],
)
def test_a_kernel_runs_where_setting_and_verdict_allow(
    machine, monkeypatch: pytest.MonkeyPatch, status: Status | None, setting: str, used: bool
) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", setting)
    kernel, known = registry.KERNELS["nf4_matvec"], Verdicts.load()
    if status is not None:
        seconds = {"faster": (1.0, 2.0), "slower": (2.0, 1.0)}.get(status, (0.0, 0.0))
        known.record(
            kernel,
            [Verdict(kernel.name, "float32", status, rows=1, kernel_s=seconds[0], rival_s=seconds[1])],
        )
        known.save()
    permission.changed()
    permit = permission.permitted(kernel, mx.float32)
    assert (permit is not None) == used
    if permit is not None:
        assert permit.ratio == (2.0 if setting == "auto" else 1.0)


def test_the_report_tells_nothing_of_its_owner(machine, model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "sam.jones"))
    monkeypatch.setenv("LOGNAME", "sam.jones")
    machine("right")
    file = tmp_path / "report.json"
    assert main(["doctor", "--model", model, "--report", str(file)]) == 0
    text = file.read_text()
    assert json.loads(text)["kernels"]
    assert "sam.jones" not in text
    assert str(tmp_path) not in text


def test_names_are_taken_out_of_reasons() -> None:
    private = {"/Users/sam": "~", "sam": "USER", "sams-mac.local": "HOST", "sams-mac": "HOST", "": "?"}
    said = "no /Users/sam/Library/x.metallib on sams-mac.local for sam: the same sample, /var/folders/q1/T/a.metal"
    assert without_names(said, private) == (
        "no .../x.metallib on HOST for USER: the same sample, .../a.metal"
    )


def test_a_model_without_shapes_is_refused(machine, tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    assert main(["doctor", "--model", str(tmp_path)]) == 2
    assert "leave --model out" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_said_where_no_kernel_is_tried(capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "--model", "no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err
