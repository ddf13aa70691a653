"""``macllm doctor``: the report as JSON and text, and the advice for every kind of machine."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import macllm
from macllm.cli.doctor import Facts, advice
from macllm.cli.main import main

ROOT = Path(macllm.__file__).parent.parent
LINUX = Facts(
    system="Linux",
    machine="x86_64",
    macos="",
    backend="cpu",
    blas="openblas",
    blas_switch="",
    openblas_installed=True,
    openblas_runs=True,
    nvidia=False,
    free_disk_bytes=100 * 10**9,
    models_dir="/home/me/models",
)
MAC = replace(LINUX, system="Darwin", machine="arm64", macos="15.1", backend="metal", blas="accelerate")


def doctor(*options: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "macllm", "doctor", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_json_has_the_promised_keys() -> None:
    report = json.loads(doctor("--json"))
    assert list(report) == [
        "backend",
        "device",
        "memory_bytes",
        "memory_limit_bytes",
        "dtype",
        "blas",
        "mlx_version",
        "kernels",
    ]
    assert report["backend"] in ("metal", "cpu", "cuda")
    assert report["dtype"] in ("float32", "float16", "bfloat16")
    assert 0 < report["memory_limit_bytes"] <= report["memory_bytes"]
    assert report["blas"] in ("openblas", "reference", "accelerate")
    assert report["mlx_version"][0].isdigit()
    assert report["kernels"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: elsewhere there is no other BLAS")
def test_a_slow_blas_is_named_with_its_remedy() -> None:
    assert json.loads(doctor("--json", MACLLM_BLAS="off"))["blas"] == "reference"
    assert "MACLLM_BLAS=off asks for it; unset it." in doctor(MACLLM_BLAS="off")
    assert "reference BLAS" not in doctor()


def test_text_shows_where_models_go(macllm_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert str(macllm_home / "models") in out
    assert sys.executable in out
    assert not macllm_home.exists()  # looking changes nothing


@pytest.mark.parametrize("facts", [LINUX, MAC, replace(LINUX, backend="cuda", nvidia=True, blas="reference")])
def test_a_good_machine_gets_no_advice(facts: Facts) -> None:
    assert advice(facts) == []


@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        (replace(LINUX, blas="reference", blas_switch="off"), "unset it"),
        (replace(LINUX, blas="reference", openblas_installed=False), "pip install cmeel-openblas"),
        (replace(LINUX, blas="reference", openblas_runs=False), "AVX-512"),
        (replace(LINUX, blas="reference"), "libgfortran.so.5"),
        (replace(LINUX, nvidia=True), 'pip install "macllm[cuda]"'),
        (replace(LINUX, free_disk_bytes=10**9), "macllm rm"),
        (replace(MAC, macos="13.6"), "update to macOS 14"),
        (replace(MAC, macos="14.7"), "macOS 15 or newer"),
        (replace(MAC, machine="x86_64", backend="cpu"), "arm64 Python"),
        (replace(MAC, backend="cpu"), "virtual machine"),
    ],
)
def test_each_weakness_has_one_sentence_with_its_remedy(facts: Facts, remedy: str) -> None:
    found = advice(facts)
    assert len(found) == 1
    assert remedy in found[0]


def test_on_a_cpu_kernels_need_a_gpu_and_twins_run() -> None:
    assert "none, because they need a GPU; their twins in plain MLX run" in doctor(MACLLM_KERNELS="auto")
    assert "off, because MACLLM_KERNELS=off asks for it" in doctor(MACLLM_KERNELS="off")


def test_a_wrong_setting_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", "yes")
    assert main(["doctor"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "macllm: MACLLM_KERNELS='yes' is not supported (expected off, on or auto)\n"


def test_the_report_is_written_where_there_is_no_gpu_too(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert main(["doctor", "--report", str(file)]) == 0
    assert json.loads(file.read_text())["kernels"] == []
    assert list(tmp_path.iterdir()) == [file]


def test_a_report_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--report", str(tmp_path / "no" / "report.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["doctor", "--report", str(tmp_path)]) == 2
    assert "this is a folder" in capsys.readouterr().err
