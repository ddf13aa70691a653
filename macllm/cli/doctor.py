"""``macllm doctor``: what this machine offers, what macllm makes of it, and what would improve it."""

import argparse
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from macllm import __version__, blas, paths
from macllm.cli import doctor_kernels
from macllm.cli.options import add_json
from macllm.cli.output import print_json
from macllm.errors import MacllmError
from macllm.units import size

HELP = (
    "Show the device, memory, compute type and libraries that macllm uses here, and what to improve. On a GPU, try"
    " each custom kernel beside plain MLX: only what is right and faster is used (MACLLM_KERNELS=off: none, =on: all)."
)
PACKAGES = ("mlx", "mlx-lm", "numpy", "huggingface-hub", "tokenizers", "gguf")
LOW_DISK_BYTES = 5e9  # one 8-billion-parameter model in 4 bits
OLDEST_MACOS = 14
FIRST_MACOS_THAT_WIRES = 15


@dataclass(frozen=True)
class Facts:
    """What :func:`advice` judges; plain, so that every machine's case is tested on one."""

    system: str  # Darwin, Linux
    machine: str  # arm64, x86_64
    macos: str  # "15.1", empty elsewhere
    backend: str
    blas: str
    blas_switch: str  # MACLLM_BLAS
    openblas_installed: bool
    openblas_runs: bool  # the processor has the instructions it is built for
    nvidia: bool  # a driver is loaded
    free_disk_bytes: int
    models_dir: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="time the kernels at the shapes of this model (default: those of Llama 3.1 8B)",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="write what was found of the kernels to FILE, to share: no names or folders of yours are in it",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Shows the report."""
    report = inspect()
    if args.report is not None:
        doctor_kernels.check_target(args.report)
    work = doctor_kernels.workload(
        args.model
    )  # a model that is not there is said where no kernel is tried, too
    none = doctor_kernels.reason_for_none()
    verdicts = [] if none else doctor_kernels.tried(work)
    if args.report is not None:
        doctor_kernels.write_report(args.report, verdicts)
    if args.json:
        print_json({**report, "kernels": doctor_kernels.rows(verdicts)})
        return 0
    _show(report, none or f"{len({each.kernel for each in verdicts})} tried, see below")
    if verdicts:
        print()
        doctor_kernels.show(verdicts)
    return 0


def _show(report: dict[str, Any], kernels: str) -> None:
    """Prints the facts and what to improve."""
    folder, free = paths.models_dir(), paths.free_bytes(paths.models_dir())
    rows = [
        ("backend", report["backend"]),
        ("device", report["device"]),
        ("memory", size(report["memory_bytes"])),
        ("models may take", size(report["memory_limit_bytes"])),
        ("computes in", report["dtype"]),
        ("BLAS", report["blas"]),
        ("kernels", kernels),
        ("system", platform.platform()),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("macllm", __version__),
        *((package, _version(package)) for package in PACKAGES),
        ("models", f"{folder} ({size(free)} free)"),
    ]
    for label, value in rows:
        print(f"{label:16} {value}")
    sentences = advice(_facts(report, folder, free))
    print()
    print("\n".join(f"- {sentence}" for sentence in sentences) if sentences else "Nothing to improve.")


def inspect() -> dict[str, Any]:
    """The report as JSON data. Raises MacllmError if MLX cannot be loaded at all."""
    try:
        from macllm import backend

        here = backend.current()
    except ImportError as error:
        what = " ".join(str(error).split())
        raise MacllmError(
            f"MLX cannot be loaded ({what}); install macllm again: pip install -U macllm"
        ) from error
    return {
        "backend": here.name,
        "device": here.device,
        "memory_bytes": here.memory_bytes,
        "memory_limit_bytes": here.memory_limit_bytes,
        "dtype": here.dtype,
        "blas": here.blas,
        "mlx_version": _version("mlx"),
        "kernels": [],
    }


def advice(facts: Facts) -> list[str]:
    """One sentence with a remedy for each thing that could be better."""
    found = []
    if facts.system == "Darwin":
        found += _macos_advice(facts)
    elif facts.backend == "cpu" and facts.nvidia:
        found.append('An NVIDIA driver is loaded but MLX computes on the CPU: pip install "macllm[cuda]".')
    if facts.blas == "reference" and facts.backend == "cpu":
        found.append(_blas_advice(facts))
    if facts.free_disk_bytes < LOW_DISK_BYTES:
        found.append(
            f"Only {size(facts.free_disk_bytes)} are free in {facts.models_dir}: "
            "remove models with `macllm rm`, or point MACLLM_HOME at another disk."
        )
    return found


def _macos_advice(facts: Facts) -> list[str]:
    if facts.machine == "x86_64":
        return [
            "This Python runs under Rosetta or on an Intel Mac: MLX needs Apple Silicon and an arm64 Python."
        ]
    major = int(facts.macos.split(".")[0]) if facts.macos[:1].isdigit() else 0
    if major < OLDEST_MACOS:
        return [
            f"macOS {facts.macos} is older than what MLX supports: update to macOS {OLDEST_MACOS} or newer."
        ]
    if facts.backend != "metal":
        return ["Metal is not available here (a virtual machine, perhaps): models run on the CPU, slowly."]
    if major < FIRST_MACOS_THAT_WIRES:
        return [
            f"macOS {facts.macos} cannot keep a model's weights in memory between messages: "
            f"macOS {FIRST_MACOS_THAT_WIRES} or newer answers faster after a pause."
        ]
    return []


def _blas_advice(facts: Facts) -> str:
    slow = "MLX uses its slow reference BLAS, so prompts are read about 20 times slower"
    if facts.blas_switch == "off":
        return f"{slow}: MACLLM_BLAS=off asks for it; unset it."
    if not facts.openblas_installed:
        return f"{slow}: pip install cmeel-openblas."
    if not facts.openblas_runs:
        return f"{slow}: the installed OpenBLAS needs AVX-512, which this processor lacks; there is no remedy yet."
    return (
        f"{slow}: OpenBLAS is installed but cannot be loaded; install the Fortran runtime (libgfortran.so.5)."
    )


def _facts(report: dict[str, Any], folder: Path, free: int) -> Facts:
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        macos=platform.mac_ver()[0],
        backend=report["backend"],
        blas=report["blas"],
        blas_switch=os.environ.get("MACLLM_BLAS", ""),
        openblas_installed=_version("cmeel-openblas") != "not installed",
        openblas_runs=blas.runs_here(platform.machine(), blas.cpuinfo()),
        nvidia=Path("/proc/driver/nvidia/version").exists(),
        free_disk_bytes=free,
        models_dir=str(folder),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
