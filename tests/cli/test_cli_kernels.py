"""``macllm kernels``: what it lists, and what a check prints and how it ends."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from macllm.cli import kernels as command
from macllm.cli.main import main
from macllm.kernels import verdicts
from macllm.kernels.harness.check import Row, edges
from macllm.kernels.registry import KERNELS
from macllm.kernels.verdicts import Verdict, Verdicts

COLUMNS = {"name", "modes", "dtypes", "rows", "twin", "verdict", "reason"}


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main(["kernels", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_kernel_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys)
    assert [row["name"] for row in rows] == list(KERNELS)
    for row in rows:
        assert set(row) == COLUMNS
        assert row["dtypes"] and row["modes"] and len(row["rows"]) == 2
        assert row["twin"].startswith("macllm.kernels.")


def test_the_table_names_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(KERNELS)


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("faster", "", ("faster", "2.00 times as fast in float16")),
        ("slower", "", ("slower", "2.00 times as fast in float16")),
        ("wrong", "error 0.5 at (8, 64)", ("wrong", "error 0.5 at (8, 64)")),
    ],
)
def test_a_verdict_that_was_kept_is_shown(
    capsys: pytest.CaptureFixture[str], status: verdicts.Status, reason: str, expected: tuple[str, str]
) -> None:
    known = Verdicts.load()
    found = Verdict("nf4_matvec", "float16", status, reason, shape=(64, 64), rows=1, kernel_s=1, rival_s=2)
    known.record(KERNELS["nf4_matvec"], [found])
    known.save()
    rows = {row["name"]: (row["verdict"], row["reason"]) for row in listed(capsys)}
    assert rows["nf4_matvec"] == expected
    assert rows["nf4_quantize"][0] == "untried"


def test_a_check_prints_its_cases_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    need_clang()
    assert main(["kernels", "check", "nf4_quantize", "--build", "fast", "--json"]) == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert {"kernel", "dtype", "shape", "rows", "build", "max_rel_error", "ok"} <= set(cases[0])
    assert {case["build"] for case in cases} == {"fast"}
    assert all(case["ok"] and case["max_rel_error"] == 0 for case in cases)
    assert main(["kernels", "check", "nf4_quantize", "--build", "lint"]) == 0
    count = str(len(edges(KERNELS["nf4_quantize"].cases())))
    assert capsys.readouterr().out.splitlines()[1].split() == ["nf4_quantize", "lint", count, "right"]


def test_a_case_that_fails_is_told_and_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    need_clang()
    row = Row("nf4_matvec", "all zeros", "float16", (8, 64), 1, "thread", None, False, "a data race")
    monkeypatch.setattr("macllm.kernels.harness.check.check", lambda kernels, builds: iter([row] * 12))
    words = ["kernels", "check", "nf4_matvec", "--build", "thread"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "12 FAIL" in out
    assert err.splitlines()[0] == "nf4_matvec, thread, all zeros, float16 (8, 64), 1 rows: a data race"
    assert err.splitlines()[-1] == "... and 2 more: see --json"
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["cases"][0]["reason"] == "a data race"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["check", "nf4_matvek"], "no kernel nf4_matvek"),
        (["--build", "fast"], "--build is for a check"),
        (["chek"], "chek"),
        (["check", "--build", "quick"], "quick"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert main(["kernels", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_without_clang_it_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MACLLM_CLANG", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["kernels", "check"]) == 2
    assert "apt-get install clang-19 libclang-rt-19-dev" in capsys.readouterr().err
    monkeypatch.setenv("MACLLM_CLANG", "clang-of-mine")
    assert main(["kernels", "check"]) == 2
    assert capsys.readouterr().err.startswith("macllm: MACLLM_CLANG=clang-of-mine is no program")


def test_elsewhere_than_on_linux_the_gpu_itself_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert main(["kernels", "check"]) == 2
    assert "macllm doctor" in capsys.readouterr().err


def test_the_builds_are_the_harness_own() -> None:
    from macllm.kernels.harness.compile import BUILDS

    assert command.BUILDS == BUILDS


def need_clang() -> None:
    if sys.platform != "linux":
        pytest.skip("needs Linux: the check compiles Metal text")
    if shutil.which("clang++-19") is None:
        pytest.skip("needs clang: the check compiles Metal text")
