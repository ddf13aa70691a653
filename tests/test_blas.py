"""The BLAS that MLX really uses, seen from fresh processes: it is bound once and cannot change in this one."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: elsewhere MLX has a fast BLAS")

# where the symbol that MLX binds to comes from, and whether its product is right
CODE = """
import ctypes, json
import macllm
from macllm import blas
import mlx.core as mx
import numpy as np

maps = [line.split() for line in open("/proc/self/maps")]
symbol = ctypes.cast(ctypes.CDLL(None).cblas_sgemm, ctypes.c_void_p).value if blas.name() == "openblas" else None
home = ""
for words in maps:
    start, end = (int(word, 16) for word in words[0].split("-"))
    if symbol is not None and start <= symbol < end:
        home = words[-1]
rng = np.random.default_rng(0)
a, b = (rng.standard_normal((1024, 1024)).astype(np.float32) for _ in range(2))
error = np.abs(np.array(mx.array(a) @ mx.array(b)) - a.astype(np.float64) @ b).max()
print(json.dumps([blas.name(), home, float(error)]))
"""


@pytest.mark.parametrize("home", ["writable", "read-only"])
def test_openblas_takes_the_place_of_the_reference(run_python: Callable[..., str], home: str) -> None:
    folder = (
        {} if home == "writable" else {"HOME": "/nonexistent", "MACLLM_HOME": "/proc/nothing-to-write-here"}
    )
    name, library, error = json.loads(run_python(CODE, **folder))
    assert name == "openblas"
    assert "libopenblas" in library
    assert error < 1e-3  # of sums of 1024 products: float32 rounding


def test_switched_off_it_is_the_reference(run_python: Callable[..., str]) -> None:
    name, library, error = json.loads(run_python(CODE, MACLLM_BLAS="off"))
    assert (name, library) == ("reference", "")
    assert error < 1e-3


def test_its_threads_are_the_usual_variables(run_python: Callable[..., str]) -> None:
    code = """
import ctypes, macllm
from macllm import blas
library = blas._site_file("cmeel", "cmeel.prefix/lib/libopenblas.so")
print(ctypes.CDLL(str(library)).openblas_get_num_threads())
"""
    assert run_python(code, OPENBLAS_NUM_THREADS="1").strip() == "1"


def test_an_mlx_that_is_there_already_keeps_its_own(run_python: Callable[..., str]) -> None:
    code = "import mlx.core; import macllm; from macllm import blas; print(blas.name())"
    assert run_python(code).strip() == "reference"


def test_a_folder_named_mlx_does_not_hide_the_runtime(
    run_python: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlx").mkdir()
    monkeypatch.chdir(tmp_path)  # `python -c` puts it first on the path, and mlx is a namespace package
    assert run_python("from macllm import blas; print(blas.name())").strip() == "openblas"


@pytest.mark.parametrize(
    ("machine", "flags", "runs"),
    [
        ("x86_64", "fpu avx2 fma avx512f avx512dq avx512cd avx512bw avx512vl", True),
        ("x86_64", "fpu avx2 fma", False),
        ("x86_64", "fpu avx2 fma avx512f avx512cd avx512er avx512pf", False),
        ("aarch64", "fp asimd", True),
    ],
)
def test_openblas_is_left_out_where_its_instructions_are_missing(
    machine: str, flags: str, runs: bool
) -> None:
    from macllm.blas import runs_here

    assert runs_here(machine, f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n") is runs
