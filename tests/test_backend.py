"""The policy of every kind of machine, decided from plain facts, and this machine's own."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm import backend
from macllm.backend import Backend
from macllm.errors import MemoryLimitError, OptionError

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "device", "architecture", "expected"),
    [
        ("cpu", "Intel(R) Xeon(R)", "x86_64", "float32"),
        ("cpu", "Apple M4", "arm64", "float32"),
        ("cuda", "NVIDIA H100", "sm_90", "bfloat16"),
        ("metal", "Apple M1", "applegpu_g13g", "float16"),
        ("metal", "Apple M2 Ultra", "applegpu_g14d", "float16"),
        ("metal", "Apple M3 Max", "applegpu_g15s", "bfloat16"),
        ("metal", "Apple M4 Pro", "applegpu_g16s", "bfloat16"),
        ("metal", "Apple M10", "applegpu_g22g", "bfloat16"),
        ("metal", "Apple Paravirtual device", "applegpu_g13g", "float16"),
        ("metal", "Apple Paravirtual device", "applegpu_g16g", "bfloat16"),
        ("metal", "something new", "", "bfloat16"),
    ],
)
def test_compute_dtype_is_the_chips(
    name: backend.Name, device: str, architecture: str, expected: str
) -> None:
    assert backend.compute_dtype(name, device, architecture) == expected


def test_metal_says_how_much_a_model_may_take() -> None:
    assert backend.memory_limit("metal", 16 * GIB, 11 * GIB) == 11 * GIB


def test_elsewhere_a_model_leaves_a_fifth_of_the_memory() -> None:
    assert backend.memory_limit("cpu", 10 * GIB, 0) == 8 * GIB
    assert backend.memory_limit("metal", 10 * GIB, 0) == 8 * GIB  # a Metal that does not say


@given(
    name=st.sampled_from(["metal", "cpu", "cuda"]),
    memory=st.integers(0, 2**50),
    working=st.integers(0, 2**50),
)
def test_the_limit_is_never_above_the_memory(name: backend.Name, memory: int, working: int) -> None:
    assert 0 <= backend.memory_limit(name, memory, working) <= memory


@pytest.mark.parametrize(
    ("name", "macos", "expected"),
    [
        ("metal", "14.7.1", None),
        ("metal", "15.0", 7),
        ("metal", "26.1", 7),
        ("metal", "", None),
        ("cpu", "15.0", None),
        ("cuda", "", None),
    ],
)
def test_weights_are_wired_from_macos_15(name: backend.Name, macos: str, expected: int | None) -> None:
    assert backend.wired_limit(name, macos, 7) == expected


MEMINFO = "MemTotal:       16000000 kB\nMemFree:        22 kB\n"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([], 16_000_000 * 1024),
        (["max\n", ""], 16_000_000 * 1024),
        (["4000000000\n", "max\n"], 4_000_000_000),
        (["9223372036854771712\n"], 16_000_000 * 1024),  # version 1's way to say "no limit"
    ],
)
def test_a_container_sees_its_own_memory(limits: list[str], expected: int) -> None:
    assert backend.linux_memory(MEMINFO, limits) == expected


def test_limits_are_read_from_a_group_and_all_its_parents() -> None:
    found = [
        str(path)
        for path in backend.group_limit_files(
            "4:cpu,memory:/docker/abc\n3:cpuset:/x\n0::/user.slice/a:b.scope\n"
        )
    ]
    assert found == [
        "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/user.slice/a:b.scope/memory.max",
        "/sys/fs/cgroup/user.slice/memory.max",
        "/sys/fs/cgroup/memory.max",
    ]


def machine(limit: int) -> Backend:
    return Backend("metal", "Apple M2", limit + 4 * GIB, limit, "float16", "accelerate")


def test_what_fits_passes() -> None:
    backend.check_fits(8 * GIB, "qwen3-14b", machine(8 * GIB))


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(MemoryLimitError) as caught:
        backend.check_fits(40_200_000_000, "llama-70b", machine(11_000_000_000))
    message = str(caught.value)
    assert message.startswith(
        "llama-70b needs 40.2 GB, but models may take 11.0 GB of this machine's 15.3 GB"
    )
    assert "17.6 billion parameters in 4 bits or 9.32 billion in 8 bits" in message
    assert caught.value.exit_code == 1


def test_an_unknown_memory_refuses_nothing() -> None:
    backend.check_fits(10**15, "anything", machine(0))


@pytest.mark.parametrize(
    ("level", "name"), [(1, "normal"), (2, "warn"), (4, "critical"), (0, ""), (7, ""), (None, "")]
)
def test_memory_pressure_by_the_level_that_macos_counts(level: int | None, name: str) -> None:
    assert backend.pressure_name(level) == name


def test_memory_pressure_of_this_machine() -> None:
    said = backend.memory_pressure()
    assert said in backend.PRESSURE_LEVELS.values() if sys.platform == "darwin" else said == ""


def test_this_machine() -> None:
    here = backend.current()
    assert here.device
    assert 0 < here.memory_limit_bytes <= here.memory_bytes
    assert here.dtype == backend.compute_dtype(here.name, here.device, "")
    assert backend.current("float16").dtype == "float16"


def test_a_dtype_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match=r"int8.*expected one of float32"):
        backend.current("int8")
