"""The policy of the machine: which device computes, in which type, and how much memory a model may take.

What to do is decided by pure functions of plain facts, so that a Mac's cases are tested anywhere; only
:func:`current` and :func:`apply_limits` ask MLX and the system.
"""

import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal

from macllm import blas
from macllm.errors import MemoryLimitError, OptionError
from macllm.units import size

Name = Literal["metal", "cpu", "cuda"]

DTYPES = ("float32", "float16", "bfloat16")
LAST_CHIP_WITHOUT_BFLOAT16 = 2  # M1 and M2 emulate it
LAST_GPU_WITHOUT_BFLOAT16 = 14  # the same chips by the name of their GPU: applegpu_g13, applegpu_g14
FIRST_MACOS_WITH_WIRED_LIMIT = 15
USABLE_SHARE = 0.8  # of the memory where no device names its own limit
# of the limit that MLX may keep of freed buffers: a prefill chunk's worth, not a model's
CACHE_SHARE = 1 / 16
PRESSURE_LEVELS = {1: "normal", 2: "warn", 4: "critical"}  # what macOS counts them as
BYTES_PER_WEIGHT = {4: 4.5 / 8, 8: 8.5 / 8}  # affine with groups of 64: a 16-bit scale and bias each


@dataclass(frozen=True)
class Backend:
    """Where a model runs here."""

    name: Name
    device: str  # the chip, as the system names it
    memory_bytes: int  # all there is for this process
    memory_limit_bytes: int  # what models may take of it
    dtype: str  # type to compute in
    blas: str


def current(dtype: str | None = None) -> Backend:
    """The backend of this process. ``dtype`` overrides the type to compute in. Raises OptionError."""
    if dtype is not None and dtype not in DTYPES:
        raise OptionError(f"dtype={dtype!r} is not supported (expected one of {', '.join(DTYPES)})")
    name, info = _device()
    memory = _memory_bytes(name, info)
    device = str(info.get("device_name", platform.machine()))
    return Backend(
        name=name,
        device=device,
        memory_bytes=memory,
        memory_limit_bytes=memory_limit(name, memory, int(info.get("max_recommended_working_set_size", 0))),
        dtype=dtype or compute_dtype(name, device, str(info.get("architecture", ""))),
        blas=blas.name(),
    )


def compute_dtype(name: Name, device: str, architecture: str) -> str:
    """The fastest type to compute in: not the checkpoint's business, but the chip's.

    ``device`` and ``architecture`` are what Metal says: ``Apple M2 Pro``, ``applegpu_g14s``.
    """
    if name == "cpu":
        return "float32"  # MLX emulates half precision on the CPU: 7 to 30 times slower
    if name == "cuda":
        return "bfloat16"
    chip = re.search(r"\bM(\d+)", device)
    if chip is not None:
        return "float16" if int(chip[1]) <= LAST_CHIP_WITHOUT_BFLOAT16 else "bfloat16"
    gpu = re.search(r"_g(\d+)", architecture)  # a virtual machine hides the chip's name
    if gpu is not None and int(gpu[1]) <= LAST_GPU_WITHOUT_BFLOAT16:
        return "float16"
    return "bfloat16"


def memory_limit(name: Name, memory_bytes: int, working_set_bytes: int) -> int:
    """What models may take: Metal's recommended working set, elsewhere a share of all memory."""
    if name == "metal" and working_set_bytes > 0:
        return min(working_set_bytes, memory_bytes)
    return int(memory_bytes * USABLE_SHARE)


def wired_limit(name: Name, macos: str, limit_bytes: int) -> int | None:
    """Bytes to keep resident, so that weights are not paged out between two messages; None: not there."""
    major = int(macos.split(".")[0]) if macos[:1].isdigit() else 0
    return limit_bytes if name == "metal" and major >= FIRST_MACOS_WITH_WIRED_LIMIT else None


def linux_memory(meminfo: str, group_limits: Sequence[str]) -> int:
    """Bytes for this process: the machine's (``/proc/meminfo``) or less where a control group says so."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    known = [int(total[1]) * 1024] if total is not None else []
    known += [int(text) for text in group_limits if text.strip().isdigit()]  # else "max"
    return min(known, default=0)


def group_limit_files(cgroup: str) -> Iterator[PurePosixPath]:
    """Where the memory limits of this process lie, from its ``/proc/self/cgroup``: each group and its parents."""
    for line in cgroup.splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            root, file = PurePosixPath("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, file = PurePosixPath("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        place = PurePosixPath(group)
        for folder in (place, *place.parents):
            yield root / str(folder).lstrip("/") / file


def check_fits(needed_bytes: int, what: str, backend: Backend) -> None:
    """Raises MemoryLimitError, saying what would fit, if ``what`` needs more than this machine allows."""
    limit = backend.memory_limit_bytes
    if needed_bytes <= limit or limit == 0:  # 0: this system does not say
        return
    # the rest is the KV cache's
    four, eight = (limit * 0.9 / each / 1e9 for each in BYTES_PER_WEIGHT.values())
    raise MemoryLimitError(
        f"{what} needs {size(needed_bytes)}, but models may take {size(limit)} of this machine's "
        f"{size(backend.memory_bytes)}: what fits is about {four:.3g} billion parameters in 4 bits or "
        f"{eight:.3g} billion in 8 bits, or the same model with fewer bits or a shorter context"
    )


def apply_limits(backend: Backend) -> None:
    """Tells MLX to keep the weights resident (Metal, macOS 15 or later) and to hoard few freed buffers."""
    import mlx.core as mx

    if backend.name == "cpu":
        return  # MLX's own choice there is a cache of 32 MB and no wired memory
    mx.set_cache_limit(int(backend.memory_limit_bytes * CACHE_SHARE))
    wired = wired_limit(backend.name, platform.mac_ver()[0], backend.memory_limit_bytes)
    if wired is not None:
        mx.set_wired_limit(wired)


def parse_gpu_cores(registry: str) -> int | None:
    """The number of GPU cores in what macOS's ``ioreg`` prints of the accelerator; None where it is not there."""
    found = re.search(r'"gpu-core-count" = (\d+)', registry)
    return int(found[1]) if found is not None else None


def gpu_cores() -> int | None:
    """How many cores this Mac's GPU has; None elsewhere."""
    if platform.system() != "Darwin":
        return None
    done = subprocess.run(
        ["/usr/sbin/ioreg", "-rc", "AGXAccelerator", "-d", "1"], capture_output=True, text=True, check=False
    )
    return parse_gpu_cores(done.stdout)


def pressure_name(level: int | None) -> str:
    """How short memory is on the whole machine: normal, warn, critical; "" where the system does not say."""
    return PRESSURE_LEVELS.get(level, "") if level is not None else ""


def memory_pressure() -> str:
    """The machine's :func:`pressure_name` now. Costs microseconds."""
    return pressure_name(_pressure_level())


def _pressure_level() -> int | None:
    """The level that macOS keeps; None elsewhere."""
    if platform.system() != "Darwin":
        return None
    import ctypes

    level, length = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    failed = ctypes.CDLL(None).sysctlbyname(
        b"kern.memorystatus_vm_pressure_level",
        ctypes.byref(level),
        ctypes.byref(length),
        None,
        ctypes.c_size_t(0),
    )
    return None if failed else level.value


@cache
def _device() -> tuple[Name, dict[str, str | int]]:
    import mlx.core as mx

    device = mx.default_device()
    info = mx.device_info(device)
    if device.type == mx.DeviceType.cpu:
        return "cpu", info
    return ("metal" if mx.metal.is_available() else "cuda"), info


def _memory_bytes(name: Name, info: dict[str, str | int]) -> int:
    device_memory = int(info.get("total_memory", info.get("memory_size", 0)))
    if name != "cpu" and device_memory:
        return device_memory
    if platform.system() == "Darwin":
        return _sysctl_memory()
    groups = _read(PurePosixPath("/proc/self/cgroup"))
    return linux_memory(
        _read(PurePosixPath("/proc/meminfo")), [_read(file) for file in group_limit_files(groups)]
    )


def _sysctl_memory() -> int:
    """MLX's CPU device on a Mac does not say how much memory there is."""
    done = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "hw.memsize"], capture_output=True, text=True, check=False
    )
    if done.stdout.strip().isdigit():
        return int(done.stdout)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read(path: PurePosixPath) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""  # another kernel, or a container that hides it
