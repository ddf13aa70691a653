"""Small kernels that use what none of macllm's own may use: each is right, and bugs are planted into it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import mlx.core as mx
import numpy as np

from macllm.kernels.kernel import Body, Case, Kernel, Launch
from macllm.kernels.samples import TOLERANCES, as_float64, random


@dataclass(frozen=True)
class WrittenBody(Body):
    """A body whose text is here and not in a file."""

    text: str = ""
    prologue: str = ""

    @cached_property
    def source(self) -> str:
        return self.text

    @cached_property
    def header(self) -> str:
        return self.prologue


def with_text(kernel: Kernel, change: Callable[[str], str]) -> Kernel:
    """The same kernel with another text of its bodies, and of their headers."""

    def bind(**arguments: Any) -> Launch:
        launch = kernel.bind(**arguments)
        body = launch.body
        written = WrittenBody(
            body.name, body.inputs, body.outputs, text=change(body.source), prologue=change(body.header)
        )
        return replace(launch, body=written)

    return replace(kernel, bind=bind)


_NORM = """
  // Root mean square norm: a threadgroup of 128 a row.
  threadgroup float sums[4];
  const uint row = threadgroup_position_in_grid.x;
  const uint t = thread_position_in_threadgroup.x;
  float sum = 0;
  for (uint i = t; i < D; i += 128) {
    const float value = float(x[row * D + i]);
    sum += value * value;
  }
  sum = simd_sum(sum);
  if (thread_index_in_simdgroup == 0) sums[simdgroup_index_in_threadgroup] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float whole = 0;
  for (uint i = 0; i < 4; i++) whole += sums[i];
  const float factor = metal::rsqrt(whole / D + 1e-5f);
  for (uint i = t; i < D; i += 128) y[row * D + i] = T(float(x[row * D + i]) * factor * float(w[i]));
"""

_TILES = """
  // Eight rows of x (8, K) times w (N, K) by 8x8 tiles, K shared out among four simdgroups.
  threadgroup T tile[4][64];
  threadgroup float parts[4][64];
  const uint lane = thread_index_in_simdgroup;
  const uint group = simdgroup_index_in_threadgroup;
  const uint first = threadgroup_position_in_grid.x * 8;
  simdgroup_matrix<float, 8, 8> sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (uint k = group * 8; k < K; k += 32) {
    for (uint i = lane; i < 64; i += 32) tile[group][i] = w[(first + i % 8) * K + k + i / 8];
    simdgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_matrix<T, 8, 8> a, b;
    simdgroup_load(a, x + k, K);
    simdgroup_load(b, &tile[group][0], 8);
    simdgroup_multiply_accumulate(sum, a, b, sum);
    simdgroup_barrier(mem_flags::mem_threadgroup);  // before the tile is filled again
  }
  simdgroup_store(sum, &parts[group][0], 8);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = thread_index_in_threadgroup; i < 64; i += 128) {
    float whole = 0;
    for (uint s = 0; s < 4; s++) whole += parts[s][i];
    y[(i / 8) * N + first + i % 8] = T(whole);
  }
"""

_BYTES = """
  // 32-bit words that lie at odd places among bytes, and their upper bits.
  const uint i = thread_position_in_grid.x;
  const uint place = 1 + 5 * i;
  uint word = uint(x[place]) | uint(x[place + 1]) << 8 | uint(x[place + 2]) << 16 | uint(x[place + 3]) << 24;
  const uint other = simd_shuffle_xor(word, 1);
  y[i] = (word >> shifts[0]) + other;
"""

_SCAN = """
  // Sums of all numbers before and at each place, by doubling, in one threadgroup.
  threadgroup float sums[D];
  const uint t = thread_position_in_threadgroup.x;
  sums[t] = float(x[t]);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint step = 1; step < D; step *= 2) {
    const float before = t >= step ? sums[t - step] : 0.0f;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    sums[t] += before;
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  y[t] = T(sums[t]);
"""


def _norm(x: mx.array, w: mx.array) -> Launch:
    body = WrittenBody("small_norm", ("x", "w"), ("y",), text=_NORM)
    size = x.shape[1]
    return Launch(
        body,
        (x, w),
        {"T": x.dtype, "D": size},
        (128 * x.shape[0], 1, 1),
        (128, 1, 1),
        (x.shape,),
        (x.dtype,),
    )


def _tiles(x: mx.array, w: mx.array) -> Launch:
    body = WrittenBody("small_tiles", ("x", "w"), ("y",), text=_TILES)
    outputs, inputs = w.shape
    return Launch(
        body,
        (x, w),
        {"T": x.dtype, "K": inputs, "N": outputs},
        (outputs // 8 * 128, 1, 1),
        (128, 1, 1),
        ((8, outputs),),
        (x.dtype,),
    )


def _bytes(x: mx.array, shifts: mx.array) -> Launch:
    body = WrittenBody("small_bytes", ("x", "shifts"), ("y",), text=_BYTES)
    count = x.size // 5
    return Launch(body, (x, shifts), {}, (count, 1, 1), (64, 1, 1), ((count,),), (mx.uint32,))


def _scan(x: mx.array) -> Launch:
    body = WrittenBody("small_scan", ("x",), ("y",), text=_SCAN)
    return Launch(
        body, (x,), {"T": x.dtype, "D": x.size}, (x.size, 1, 1), (x.size, 1, 1), (x.shape,), (x.dtype,)
    )


def _norm_cases() -> Iterator[Case]:
    for dtype in TOLERANCES:
        x, w = random((3, 500), dtype), random((500,), dtype)

        def reference(x: mx.array = x, w: mx.array = w) -> tuple[np.ndarray]:
            wide = as_float64(x)
            return (wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5) * as_float64(w),)

        yield Case("norm", {"x": x, "w": w}, reference, TOLERANCES[dtype], dtype, x.shape, 3)


def _tiles_cases() -> Iterator[Case]:
    for dtype in TOLERANCES:
        x, w = random((8, 96), dtype), random((24, 96), dtype)
        reference = partial(lambda x, w: (as_float64(x) @ as_float64(w).T,), x, w)
        yield Case("tiles", {"x": x, "w": w}, reference, TOLERANCES[dtype], dtype, w.shape, 8)


def _bytes_cases() -> Iterator[Case]:
    x = mx.array(np.random.default_rng(0).integers(0, 256, 5 * 96, np.uint8))
    shifts = mx.array([3], mx.uint32)

    def reference() -> tuple[np.ndarray]:
        rows = np.array(x).reshape(-1, 5)[:, 1:].astype(np.uint32)
        words = rows[:, 0] | rows[:, 1] << 8 | rows[:, 2] << 16 | rows[:, 3] << 24
        others = words.reshape(-1, 2)[:, ::-1].reshape(-1)
        return (((words >> np.uint32(3)) + others).astype(np.float64),)

    yield Case("bytes", {"x": x, "shifts": shifts}, reference, 0, mx.uint8, x.shape, 1)


def _scan_cases() -> Iterator[Case]:
    for dtype in TOLERANCES:
        x = random((128,), dtype)
        reference = partial(lambda x: (np.cumsum(as_float64(x)),), x)
        yield Case("scan", {"x": x}, reference, TOLERANCES[dtype], dtype, x.shape, 1)


def _none(**arguments: mx.array) -> tuple[mx.array, ...]:
    raise AssertionError(f"the cases of {list(arguments)} have references")


def _kernel(bind: Callable[..., Launch], cases: Callable[[], Iterator[Case]]) -> Kernel:
    launch = bind(**next(cases()).arguments)
    return Kernel(
        name=launch.body.name,
        role="fusion",  # as good as any: nothing is dispatched to these
        body=launch.body,
        modes=("none",),
        rows=(1, 8),
        bind=bind,
        twin=_none,
        cases=cases,
    )


SMALL = {
    kernel.name: kernel
    for kernel in (
        _kernel(_norm, _norm_cases),
        _kernel(_tiles, _tiles_cases),
        _kernel(_bytes, _bytes_cases),
        _kernel(_scan, _scan_cases),
    )
}
