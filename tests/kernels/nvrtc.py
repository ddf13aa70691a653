"""NVRTC, NVIDIA's compiler of text at run time, out of its PyPI packages: it needs no GPU. And what MLX gives it.

MLX writes a CUDA kernel's text only where it has a CUDA device, so :func:`whole_text` wraps a body as MLX 0.32.4 does
(``mlx/backend/cuda/custom_kernel.cpp``): its header, the template arguments as constants, raw pointers, and its own
namespace. Of its ``utils.cuh`` only what a body sees is here: the two 16-bit types.
"""

import ctypes
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx

from macllm.kernels import cuda_text
from macllm.kernels.kernel import Launch

ARCHITECTURE = "sm_80"  # the oldest that has bfloat16
_MLX_HEADER = """\
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda/std/limits>
#include <cooperative_groups.h>
#define inf cuda::std::numeric_limits<float>::infinity()
"""
_TYPES = {
    mx.float32: "float",
    mx.float16: "__half",
    mx.bfloat16: "__nv_bfloat16",
    mx.uint8: "uint8_t",
    mx.uint16: "uint16_t",
    mx.uint32: "uint32_t",
    mx.int8: "int8_t",
    mx.int32: "int32_t",
    mx.bool_: "bool",
}


def toolkit() -> Path | None:
    """The folder with ``lib`` and ``include``; None where the packages are not installed."""
    package = find_spec("nvidia")
    for place in package.submodule_search_locations or () if package is not None else ():
        for library in Path(place).glob("*/lib/libnvrtc.so.*"):
            if (library.parent.parent / "include" / "cuda_fp16.h").is_file():
                return library.parent.parent
    return None


def whole_text(launches: Sequence[Launch]) -> str:
    """The text that NVRTC is given for launches of one body: a function each, where MLX has a text each."""
    body = launches[0].body
    functions = "".join(_function(f"custom_kernel_{body.name}_{i}", each) for i, each in enumerate(launches))
    return f"{_MLX_HEADER}{cuda_text.header(body)}namespace mlx::core::cu {{\n{functions}}}\n"


def _function(name: str, launch: Launch) -> str:
    body = launch.body
    inputs = [
        f"const {_TYPES[array.dtype]}* {x}" for x, array in zip(body.inputs, launch.inputs, strict=True)
    ]
    outputs = [f"{_TYPES[dtype]}* {y}" for y, dtype in zip(body.outputs, launch.output_dtypes, strict=True)]
    constants = "".join(_constant(*each) for each in cuda_text.template(launch).items())
    source = cuda_text.source(body, partial=cuda_text.is_partial(launch))
    return f"__global__ void {name}({', '.join([*inputs, *outputs])}) {{\n{constants}{source}\n}}\n"


def complaints(text: str) -> str:
    """What NVRTC says of a text that it does not compile; "" where it does."""
    home = toolkit()
    assert home is not None
    nvrtc = ctypes.CDLL(str(next((home / "lib").glob("libnvrtc.so.*"))))
    program = ctypes.c_void_p()
    assert nvrtcs(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"body.cu", 0, None, None))
    options = [f"--gpu-architecture={ARCHITECTURE}", f"--include-path={home / 'include'}"]
    options += [f"--include-path={found}" for found in home.glob("include/cccl")]
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    try:
        if nvrtcs(nvrtc.nvrtcCompileProgram(program, len(options), given)):
            return ""
        size = ctypes.c_size_t()
        assert nvrtcs(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
        log = ctypes.create_string_buffer(size.value)
        assert nvrtcs(nvrtc.nvrtcGetProgramLog(program, log))
        return "\n".join(line for line in log.value.decode().splitlines() if "error" in line)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def nvrtcs(result: int) -> bool:
    """Whether a call of NVRTC succeeded."""
    return result == 0


def _constant(name: str, value: int | bool | mx.Dtype) -> str:
    if isinstance(value, mx.Dtype):
        return f"  using {name} = {_TYPES[value]};\n"
    kind = "bool" if isinstance(value, bool) else "int"
    return f"  constexpr {kind} {name} = {str(value).lower()};\n"
