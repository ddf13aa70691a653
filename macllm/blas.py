"""Gives MLX on Linux a fast BLAS: loads OpenBLAS before MLX binds its ``cblas_*`` symbols.

The Linux CPU wheel of MLX links the reference BLAS (5 GFLOP/s). Its symbols resolve from the global scope
first, so an OpenBLAS loaded there with ``RTLD_GLOBAL`` before ``import mlx`` takes its place (18 to 60 times
faster). ``MACLLM_BLAS=off`` leaves MLX as it comes. Importing ``macllm`` calls :func:`preload` once.
"""

import ctypes
import os
import platform
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

_FORTRAN_SONAME = b"libgfortran.so.5\0"
_state = "reference"


def name() -> str:
    """The BLAS that MLX uses in this process: ``openblas``, ``reference`` or ``accelerate``."""
    return "accelerate" if platform.system() == "Darwin" else _state


def preload() -> None:
    """Loads OpenBLAS on Linux; does nothing elsewhere, when switched off, or when MLX is already loaded."""
    global _state
    if sys.platform != "linux" or os.environ.get("MACLLM_BLAS") == "off" or "mlx.core" in sys.modules:
        return
    library = _site_file("cmeel", "cmeel.prefix/lib/libopenblas.so")
    if library is None:
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


def _site_file(package: str, relative: str) -> Path | None:
    """A file that lies beside an installed package, found without importing that package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))).parent / relative
    return path if path.exists() else None


def _load_bundled_fortran() -> None:
    """Loads the Fortran runtime inside MLX's own wheel under the name that OpenBLAS asks for.

    The wheel carries it as ``libgfortran-<hash>.so.5.0.0`` and the loader compares names, so a copy whose
    recorded name is ``libgfortran.so.5`` goes to the cache. Raises OSError where there is none.
    """
    folder = _site_file("mlx", "mlx_cpu.libs")
    bundled = sorted(folder.glob("libgfortran-*.so*")) if folder is not None else []
    if folder is None or not bundled:
        raise OSError("no Fortran runtime beside MLX")
    for dependency in sorted(folder.glob("libquadmath-*")):
        ctypes.CDLL(str(dependency), mode=ctypes.RTLD_GLOBAL)
    copy = _renamed_copy(bundled[0])
    ctypes.CDLL(str(copy), mode=ctypes.RTLD_GLOBAL)


def _renamed_copy(library: Path) -> Path:
    from macllm.paths import cache_dir

    target = cache_dir() / "blas" / library.name
    if target.exists():
        return target
    recorded = library.name.encode() + b"\0"
    data = library.read_bytes()
    if recorded not in data:
        raise OSError(f"{library.name} does not carry its own name")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(data.replace(recorded, _FORTRAN_SONAME.ljust(len(recorded), b"\0")))
    Path(file.name).replace(target)
    return target
