"""Gives MLX on Linux a fast BLAS: loads OpenBLAS before MLX binds its ``cblas_*`` symbols.

The Linux CPU wheel of MLX links the reference BLAS (5 GFLOP/s). Its symbols resolve from the global scope
first, so an OpenBLAS loaded there with ``RTLD_GLOBAL`` before ``import mlx`` takes its place (18 to 60 times
faster). ``MACLLM_BLAS=off`` leaves MLX as it comes; ``OPENBLAS_NUM_THREADS`` sets its threads, as everywhere.
Importing ``macllm`` calls :func:`preload` once.
"""

import ctypes
import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

_FORTRAN_SONAME = b"libgfortran.so.5\0"
_state = "reference"


def name() -> str:
    """The BLAS that MLX uses in this process: ``openblas``, ``reference`` or ``accelerate``."""
    return "accelerate" if sys.platform == "darwin" else _state


def preload() -> None:
    """Loads OpenBLAS on Linux; does nothing elsewhere, when switched off, or when MLX is already loaded."""
    global _state
    if sys.platform != "linux" or os.environ.get("MACLLM_BLAS") == "off" or "mlx.core" in sys.modules:
        return
    library = _site_file("cmeel", "cmeel.prefix/lib/libopenblas.so")
    if library is None or not runs_here(platform.machine(), cpuinfo()):
        return
    try:
        try:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        except OSError:  # most often: this system has no libgfortran.so.5
            _load_bundled_fortran()
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return  # MLX works without, slowly; `macllm doctor` says so
    _state = "openblas"


def runs_here(machine: str, cpuinfo: str) -> bool:
    """Whether a processor has the instructions that the package's library is built for.

    On x86-64 it holds AVX-512 kernels and no others (``openblas_get_config``: SKYLAKEX): elsewhere its first
    product would end the process.
    """
    if machine != "x86_64":
        return True
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "").split()
    return {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"} <= set(flags)


def cpuinfo() -> str:
    """What Linux says of the processors; empty where it says nothing."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _site_file(package: str, relative: str) -> Path | None:
    """A file that lies beside an installed package, found without importing that package."""
    spec = find_spec(package)
    # mlx is a namespace package: any folder of that name on the path is one of its locations
    locations = spec.submodule_search_locations if spec is not None else None
    files = (Path(location).parent / relative for location in locations or ())
    return next((path for path in files if path.exists()), None)


def _load_bundled_fortran() -> None:
    """Loads the Fortran runtime inside MLX's own wheel under the name that OpenBLAS asks for.

    The wheel carries it as ``libgfortran-<hash>.so.5.0.0`` (on x86-64 with the ``libquadmath`` it needs), and
    the loader compares recorded names, so it loads a copy whose name is ``libgfortran.so.5``. Raises OSError
    where there is none.
    """
    folder = _site_file("mlx", "mlx_cpu.libs")
    bundled = sorted(folder.glob("libgfortran-*.so.5*")) if folder is not None else []
    if folder is None or not bundled:
        raise OSError("no Fortran runtime beside MLX")
    for dependency in sorted(folder.glob("libquadmath-*")):
        ctypes.CDLL(str(dependency), mode=ctypes.RTLD_GLOBAL)
    _load_renamed(bundled[0])


def _load_renamed(library: Path) -> None:
    """Loads a copy of ``library`` that records the plain name.

    The copy lives in anonymous memory: no folder has to be writable and no other process can see it half
    written. 3 MB take 2 ms.
    """
    recorded = library.name.encode() + b"\0"
    data = library.read_bytes()
    if recorded not in data:
        raise OSError(f"{library.name} does not carry its own name")
    data = data.replace(recorded, _FORTRAN_SONAME.ljust(len(recorded), b"\0"))
    with os.fdopen(os.memfd_create(library.name, os.MFD_CLOEXEC), "wb") as file:
        file.write(data)
        file.flush()
        ctypes.CDLL(f"/proc/self/fd/{file.fileno()}", mode=ctypes.RTLD_GLOBAL)
