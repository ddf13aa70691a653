"""Is the harness itself right? MLX's own kernels, from the headers of its wheel, give what MLX gives in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import mlx.core as mx
import numpy as np
import pytest

from macllm.kernels.harness.calls import PASSES, Buffer, Call, run_program
from macllm.kernels.harness.compile import executable
from macllm.kernels.harness.program import UTILITIES, Function, parameters, program, with_includes
from macllm.kernels.harness.run import as_bytes, from_bytes
from macllm.kernels.samples import TOLERANCES, as_float64, random, relative_error

FOLDER = "mlx/backend/metal/kernels"
# in the order in which MLX puts them together when it compiles
QUANTIZED = (f"{FOLDER}/steel/gemm/gemm.h", f"{FOLDER}/quantized_utils.h", f"{FOLDER}/quantized.h")
FP_QUANTIZED = (f"{FOLDER}/steel/gemm/gemm.h", f"{FOLDER}/quantized_utils.h", f"{FOLDER}/fp_quantized.h")
ATTENTION = (f"{FOLDER}/sdpa_vector.h",)
NAMES = {mx.float32: "float", mx.float16: "float16_t", mx.bfloat16: "bfloat16_t"}
UNUSED = np.zeros(8, np.int64)  # sizes and strides of batches

# Clang has no cast from half to bfloat: by way of float, which holds both.
EDITS = (
    (
        "static_cast<bfloat16_t>(this->operator float16_t())",
        "static_cast<bfloat16_t>(float(this->operator float16_t()))",
    ),
)


@dataclass
class Given:
    """Arguments of a kernel of MLX's, in the order of its buffers."""

    inputs: Sequence[mx.array | np.ndarray | int | float | tuple[tuple[int, ...], mx.Dtype]]
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    templates: str


def run(headers: Sequence[str], name: str, given: Given, build: str) -> list[mx.array]:
    """The outputs of one kernel; a pair of shape and type stands for an output among ``inputs``."""
    seen: set[str] = set()
    with_includes(f'#include "{UTILITIES}"', seen)  # the prelude has them
    text = with_includes("".join(f'#include "{header}"\n' for header in headers), seen)
    for edit in EDITS:
        text = text.replace(*edit)
    function = Function(name, given.templates, parameters(text, name))
    buffers = tuple(_buffer(number, each) for number, each in enumerate(given.inputs))
    made = executable(program([text], [function]), build)
    (result,) = run_program(made, [Call(0, given.grid, given.threadgroup, buffers)], PASSES[build])
    assert result.fault == ""
    assert all(outputs == result.outputs[0] for outputs in result.outputs)
    shapes = [each for each in given.inputs if isinstance(each, tuple)]
    return [from_bytes(raw, *shape) for raw, shape in zip(result.outputs[0], shapes, strict=True)]


def _buffer(number: int, given: object) -> Buffer:
    name = f"buffer {number}"
    if isinstance(given, tuple):
        shape, dtype = given
        return Buffer(name, int(np.prod(shape)) * dtype.size)
    if isinstance(given, mx.array):
        contents = as_bytes(given)
    elif isinstance(given, int):
        contents = np.int32(given).tobytes()
    elif isinstance(given, float):
        contents = np.float32(given).tobytes()
    else:
        contents = given.tobytes()
    return Buffer(name, len(contents), contents)


def near(found: mx.array, expected: mx.array) -> None:
    # the order of summation is another one: a little above what one kernel of ours may differ by
    assert relative_error(found, as_float64(expected)) < 10 * TOLERANCES[found.dtype]


def quantized(shape: tuple[int, int], dtype: mx.Dtype, group: int, bits: int) -> tuple[mx.array, ...]:
    return tuple(mx.quantize((random(shape) * 0.05).astype(dtype), group_size=group, bits=bits))


def product(x: mx.array, stored: Sequence[mx.array], group: int, bits: int) -> mx.array:
    weight, scales, biases = stored
    wide = mx.float32
    return mx.quantized_matmul(
        x.astype(wide), weight, scales.astype(wide), biases.astype(wide), True, group_size=group, bits=bits
    )


def nibbles(words: np.ndarray) -> np.ndarray:
    return (words[..., None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).astype(int)


FORMS = [
    (mx.float32, 64, 4),
    (mx.float16, 32, 8),
    (mx.bfloat16, 128, 2),
    (mx.float16, 64, 6),
    (mx.float32, 64, 3),
]


@pytest.mark.parametrize(("dtype", "group", "bits"), FORMS)
def test_matvec_of_whole_blocks(dtype: mx.Dtype, group: int, bits: int) -> None:
    rows, outputs, inputs = 2, 64, 1024
    stored, x = quantized((outputs, inputs), dtype, group, bits), random((rows, inputs), dtype)
    given = Given(
        [*stored, x, ((rows, outputs), dtype), inputs, outputs, *[UNUSED] * 12],
        (32 * rows, outputs // 8 * 2, 1),
        (32, 2, 1),
        f"<{NAMES[dtype]}, {group}, {bits}, false>",
    )
    (found,) = run(QUANTIZED, "affine_qmv_fast", given, "fast")
    near(found, product(x, stored, group, bits))


@pytest.mark.parametrize(("dtype", "group", "bits"), FORMS[:3])
def test_matvec_of_any_size(dtype: mx.Dtype, group: int, bits: int) -> None:
    rows, outputs, inputs = 1, 100, 384
    stored, x = quantized((outputs, inputs), dtype, group, bits), random((rows, inputs), dtype)
    given = Given(
        [*stored, x, ((rows, outputs), dtype), inputs, outputs, *[UNUSED] * 12],
        (32 * rows, ceil(outputs / 8) * 2, 1),
        (32, 2, 1),
        f"<{NAMES[dtype]}, {group}, {bits}, false>",
    )
    (found,) = run(QUANTIZED, "affine_qmv", given, "fast")
    near(found, product(x, stored, group, bits))


def check_matmul(dtype: mx.Dtype, rows: int, outputs: int, inputs: int, build: str) -> None:
    stored, x = quantized((outputs, inputs), dtype, 64, 4), random((rows, inputs), dtype)
    aligned = "true" if outputs % 32 == 0 else "false"
    given = Given(
        [*stored, x, ((rows, outputs), dtype), inputs, outputs, rows, *[UNUSED] * 12],
        (ceil(outputs / 32) * 32, ceil(rows / 32) * 2, 2),
        (32, 2, 2),
        f"<{NAMES[dtype]}, 64, 4, {aligned}, false>",
    )
    (found,) = run(QUANTIZED, "affine_qmm_t", given, build)
    near(found, product(x, stored, 64, 4))


def check_attention(dtype: mx.Dtype, heads: int, shared: int, length: int, build: str) -> None:
    width = 128
    query = random((1, heads, 1, width), dtype)
    keys, values = random((1, shared, length, width), dtype), random((2, shared, length, width), dtype)[1:]
    strides = [np.uint64(length * width), np.uint64(width)] * 2
    output = ((1, heads, 1, width), dtype)
    given = Given(
        [query, keys, values, output, heads // shared, length, *strides, width**-0.5, *[UNUSED] * 7],
        (heads * 1024, 1, 1),
        (1024, 1, 1),
        f"<{NAMES[dtype]}, {width}>",
    )
    (found,) = run(ATTENTION, "sdpa_vector", given, build)
    wide = [each.astype(mx.float32) for each in (query, keys, values)]
    near(found, mx.fast.scaled_dot_product_attention(*wide, scale=width**-0.5))


@pytest.mark.parametrize(
    ("dtype", "rows", "outputs", "inputs"),
    [(mx.float32, 32, 64, 128), (mx.float16, 50, 96, 256), (mx.bfloat16, 33, 100, 128)],
)
def test_matmul_by_simdgroup_matrices(dtype: mx.Dtype, rows: int, outputs: int, inputs: int) -> None:
    check_matmul(dtype, rows, outputs, inputs, "fast")


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_attention_of_one_query(dtype: mx.Dtype) -> None:
    check_attention(dtype, 8, 2, 500, "fast")


@pytest.mark.slow
@pytest.mark.parametrize("build", ["address", "thread", "memory"])
def test_nothing_is_reported_of_kernels_that_are_right(build: str) -> None:
    check_matmul(mx.float16, 50, 96, 256, build)
    check_attention(mx.float16, 2, 1, 70, build)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_quantization(dtype: mx.Dtype) -> None:
    matrix = (random((64, 256)) * 0.05).astype(dtype)
    weight, scales, biases = mx.quantize(matrix, group_size=64, bits=4)
    outputs = [
        ((*weight.shape[:-1], weight.shape[-1] * 4), mx.uint8),
        (scales.shape, dtype),
        (biases.shape, dtype),
    ]
    count = matrix.size // 2  # threads: each takes group / 32 numbers
    given = Given([matrix, *outputs], (count, 1, 1), (1024, 1, 1), f"<{NAMES[dtype]}, 64, 4>")
    words, found_scales, found_biases = run(QUANTIZED, "affine_quantize", given, "fast")
    found_codes, codes = (nibbles(np.array(each)) for each in (words.view(mx.uint32), weight))
    # a quotient on the middle between two codes may be rounded either way
    assert np.abs(found_codes - codes).max() <= 1
    assert np.mean(found_codes == codes) > 0.99
    near(found_scales, scales)
    near(found_biases, biases)


@pytest.mark.parametrize(("mode", "group", "bits"), [("mxfp4", 32, 4), ("nvfp4", 16, 4), ("mxfp8", 32, 8)])
def test_matvec_of_small_floats(mode: str, group: int, bits: int) -> None:
    outputs, inputs, dtype = 64, 1024, mx.float16
    weight, scales = mx.quantize(random((outputs, inputs)) * 0.05, mode=mode)
    x = random((1, inputs), dtype)
    given = Given(
        [weight, scales, UNUSED, x, ((1, outputs), dtype), inputs, outputs, *[UNUSED] * 12],
        (32, outputs // 8 * 2, 1),
        (32, 2, 1),
        f"<{NAMES[dtype]}, {group}, {bits}, false>",
    )
    (found,) = run(FP_QUANTIZED, "fp_qmv_fast", given, "fast")
    near(found, x.astype(mx.float32) @ mx.dequantize(weight, scales, mode=mode, dtype=mx.float32).T)
