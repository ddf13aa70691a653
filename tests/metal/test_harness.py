"""Metal's own functions as the harness has them, and what it says of a kernel that misbehaves."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from small_kernels import WrittenBody

from macllm.kernels.harness.compile import cache_dir, executable
from macllm.kernels.harness.program import program
from macllm.kernels.harness.run import KernelFault, outcomes, runner
from macllm.kernels.kernel import Launch

THREADS = 64  # two simdgroups
LANES = 32
SOURCE = program([""], [])  # of no kernel: as short as a program is
_PLACE = "const uint i = thread_position_in_grid.x; const uint lane = thread_index_in_simdgroup;"
_FOUND: dict[tuple[str, ...], dict[str, np.ndarray]] = {}


def launch(text: str, *inputs: mx.array, out: mx.Dtype = mx.float32, size: int = THREADS) -> Launch:
    names = ("a", "b", "c")[: len(inputs)]
    body = WrittenBody("metal", names, ("y",), text=f"{_PLACE}\n{text}")
    return Launch(body, inputs, {}, (THREADS, 1, 1), (THREADS, 1, 1), ((size,),), (out,))


def run(text: str, *inputs: mx.array, out: mx.Dtype = mx.float32) -> np.ndarray:
    (found,) = runner()(launch(text, *inputs, out=out))
    return np.array(found)


def all_of(calls: tuple[str, ...], values: mx.array) -> dict[str, np.ndarray]:
    """What each call gives for ``values``, named v in it: one program for all."""
    if calls not in _FOUND:
        names = tuple(f"y{number}" for number in range(len(calls)))
        lines = [f"{name}[i] = {call};" for name, call in zip(names, calls, strict=True)]
        text = "\n".join([_PLACE, "const T v = a[i];", *lines])
        body = WrittenBody("calls", ("a",), names, text=text)
        shapes, dtypes = ((THREADS,),) * len(calls), (values.dtype,) * len(calls)
        whole = (THREADS, 1, 1)
        found = runner()(Launch(body, (values,), {"T": values.dtype}, whole, whole, shapes, dtypes))
        _FOUND[calls] = dict(zip(calls, map(np.array, found), strict=True))
    return _FOUND[calls]


VALUES = np.random.default_rng(0).integers(1, 100, THREADS)
GROUPS = VALUES.reshape(-1, LANES)


def of_lanes(pick: Callable[[np.ndarray], np.ndarray | int]) -> np.ndarray:
    """What ``pick`` makes of each simdgroup's values, for every lane."""
    return np.concatenate([np.broadcast_to(pick(group), LANES) for group in GROUPS])


LANE = np.arange(LANES)


OF_LANES = {
    "simd_sum(v)": lambda g: g.sum(),
    "simd_max(v)": lambda g: g.max(),
    "simd_min(v)": lambda g: g.min(),
    "simd_xor(v)": np.bitwise_xor.reduce,
    "simd_or(v)": np.bitwise_or.reduce,
    "simd_and(v)": np.bitwise_and.reduce,
    "simd_broadcast(v, 5)": lambda g: g[5],
    "simd_broadcast_first(v)": lambda g: g[0],
    "simd_shuffle(v, 31 - lane)": lambda g: g[::-1],
    "simd_shuffle_xor(v, 9)": lambda g: g[LANE ^ 9],
    "simd_shuffle_down(v, 3)": lambda g: g[np.where(LANE + 3 < LANES, LANE + 3, LANE)],
    "simd_shuffle_up(v, 3)": lambda g: g[np.where(LANE >= 3, LANE - 3, LANE)],
    "simd_shuffle_rotate_down(v, 3)": lambda g: np.roll(g, -3),
    "simd_shuffle_rotate_up(v, 3)": lambda g: np.roll(g, 3),
    "simd_shuffle_and_fill_down(v, v + 7, 3)": lambda g: np.concatenate([g[3:], g[:3] + 7]),
    "simd_shuffle_and_fill_up(v, v + 7, 3)": lambda g: np.concatenate([g[-3:] + 7, g[:-3]]),
    "simd_prefix_inclusive_sum(v)": np.cumsum,
    "simd_prefix_exclusive_sum(v)": lambda g: np.cumsum(g) - g,
    "quad_sum(v)": lambda g: g.reshape(-1, 4).sum(1).repeat(4),
    "quad_broadcast(v, 2)": lambda g: g.reshape(-1, 4)[:, 2].repeat(4),
    "quad_shuffle_xor(v, 1)": lambda g: g[LANE ^ 1],
    "int(simd_any(v > 98))": lambda g: int((g > 98).any()),
    "int(simd_all(v > 0))": lambda g: int((g > 0).all()),
    "int(popcount(uint(ulong(simd_ballot(v % 2 == 1)))))": lambda g: (g % 2).sum(),
    "int(simd_is_first())": lambda g: (LANE == 0).astype(int),
}


@pytest.mark.parametrize("call", OF_LANES)
def test_lanes_hand_values_to_each_other(call: str) -> None:
    found = all_of(tuple(OF_LANES), mx.array(VALUES.astype(np.int32)))
    np.testing.assert_array_equal(found[call], of_lanes(OF_LANES[call]))


def test_lanes_that_returned_take_no_part() -> None:
    text = "y[i] = 0; if (lane % 2) return; y[i] = simd_sum(a[i]);"
    found = run(text, mx.array(VALUES.astype(np.int32)), out=mx.int32)
    even = of_lanes(lambda group: group[::2].sum())
    np.testing.assert_array_equal(found, np.where(np.arange(THREADS) % 2, 0, even))


OF_INTEGERS = {
    "popcount(v)": lambda v: v.bit_count(),
    "clz(v)": lambda v: 32 - v.bit_length(),
    "ctz(v)": lambda v: (v & -v).bit_length() - 1 if v else 32,
    "extract_bits(v, 5, 9)": lambda v: v >> 5 & 511,
    "insert_bits(v, 1023u, 4, 3)": lambda v: v & ~0x70 | 0x70,
    "reverse_bits(v)": lambda v: int(f"{v:032b}"[::-1], 2),
    "mulhi(v, 4000000000u)": lambda v: v * 4000000000 >> 32,
    "rotate(v, 7u)": lambda v: (v << 7 | v >> 25) & 0xFFFFFFFF,
    "as_type<uint>(as_type<float>(v & 0x3FFFFFFFu))": lambda v: v & 0x3FFFFFFF,
    "min(v, 77u) + max(v, 5u) * 0u": lambda v: min(v, 77),
    "clamp(v, 10u, 1000u)": lambda v: min(max(v, 10), 1000),
    "uint(abs(int(v)))": lambda v: abs(v if v < 2**31 else v - 2**32),
    "select(1u, 2u, v > 5u)": lambda v: 2 if v > 5 else 1,
    "uint4(v, 1, 2, 3).x + uint4(uint2(4, 5), 6, 7).z * 0u": lambda v: v,
    "uint(float4(2).w) + uint(dot(float2(3, 4), float2(1, 2)))": lambda v: 13,
}


@pytest.mark.parametrize("call", OF_INTEGERS)
def test_integers_are_computed_as_metal_does(call: str) -> None:
    values = [0, 1, 2, 255, 65536, 0x80000000, 0xFFFFFFFF, *map(int, VALUES[7:])]
    found = all_of(tuple(OF_INTEGERS), mx.array(values, mx.uint32))
    assert found[call].tolist() == [OF_INTEGERS[call](value) for value in values]


OF_FLOATS = {
    "metal::exp(v)": math.exp,
    "metal::precise::exp(v)": math.exp,
    "metal::fast::log2(v)": math.log2,
    "metal::rsqrt(v)": lambda v: v**-0.5,
    "metal::tanh(v)": math.tanh,
    "metal::pow(v, 1.5f)": lambda v: v**1.5,
    "metal::fma(v, 2.0f, 1.0f)": lambda v: 2 * v + 1,
    "metal::fract(v)": lambda v: v % 1,
    "metal::ldexp(v, 3)": lambda v: v * 8,
    "metal::mix(v, 2.0f, 0.25f)": lambda v: v * 0.75 + 0.5,
    "metal::saturate(v)": lambda v: min(v, 1.0),
    "v * 0.1": lambda v: v * 0.1,  # a literal is a float
}


@pytest.mark.parametrize("call", OF_FLOATS)
def test_floats_are_computed_as_metal_does(call: str) -> None:
    values = (VALUES / 25).astype(np.float32)
    found = all_of(tuple(OF_FLOATS), mx.array(values))
    expected = [OF_FLOATS[call](float(value)) for value in values]
    np.testing.assert_allclose(found[call], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_small_floats_round_after_each_operation(dtype: mx.Dtype) -> None:
    a, b = mx.array(VALUES / 7).astype(dtype), mx.array(VALUES[::-1] / 3).astype(dtype)
    (found,) = runner()(launch("y[i] = a[i] * b[i] + a[i];", a, b, out=dtype))
    assert mx.array_equal(found, a * b + a)


def test_atomics_add_up() -> None:
    text = """
      threadgroup atomic_int sum;
      if (i == 0) atomic_store_explicit(&sum, 0, memory_order_relaxed);
      threadgroup_barrier(mem_flags::mem_threadgroup);
      atomic_fetch_add_explicit(&sum, a[i], memory_order_relaxed);
      threadgroup_barrier(mem_flags::mem_threadgroup);
      y[i] = atomic_load_explicit(&sum, memory_order_relaxed);
    """
    found = run(text, mx.array(VALUES.astype(np.int32)), out=mx.int32)
    assert set(found.tolist()) == {VALUES.sum()}


def test_arrays_may_be_declared_together() -> None:
    text = """
      threadgroup float one[64], two[2][64], three;
      one[i] = a[i]; two[1][i] = 2 * a[i];
      if (i == 0) three = 3;
      threadgroup_barrier(mem_flags::mem_threadgroup);
      y[i] = one[63 - i] + two[1][63 - i] + three;
    """
    found = run(text, mx.array(VALUES.astype(np.float32)))
    np.testing.assert_array_equal(found, 3 * VALUES[::-1] + 3)


def test_shapes_strides_and_scalars_reach_the_kernel() -> None:
    text = "y[i] = a_shape[1] * 100 + int(a_strides[0]) + a_ndim * 10000 + b;"
    found = run(text, mx.zeros((4, 6)), mx.array(7, mx.int32), out=mx.int32)
    assert set(found.tolist()) == {20613}


def test_an_input_that_is_not_contiguous_is_copied_as_mlx_does() -> None:
    rows = mx.arange(2 * THREADS).reshape(THREADS, 2)
    found = run("y[i] = a[i];", rows.T, out=mx.int32)
    np.testing.assert_array_equal(found, np.array(rows.T).reshape(-1)[:THREADS])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("y[i + 1] = 0;", "'y' is touched 0 bytes past its end"),
        ("y[i] = a[int(i) - 1];", "'a' is touched 4 bytes before its start"),
        ("if (i < 60) y[i] = 0;", "4 of 64 elements are never written.*first 60"),
        ("y[0] = i; if (i) y[i] = 0;", "depend on the order of threads"),
        ("threadgroup float t[64]; y[i] = t[i] * 0 + 1;", "memory that was never written"),
        ("threadgroup float t[64]; t[i + 1] = 0; y[i] = 0;", "threadgroup memory is written past the end"),
        (
            "threadgroup float t[64]; t[i] = 0; y[i] = t[i + 1] + 1;",
            "1 of 64 elements are never written, or come from what was not",
        ),
        ("if (i < 32) threadgroup_barrier(mem_flags::mem_none); y[i] = 0;", "not reached by every thread"),
        ("if (lane < 9) y[i] = 1 / 0; x;", "does not compile"),
    ],
)
def test_what_a_kernel_does_wrong_is_said_with_the_place(text: str, said: str) -> None:
    with pytest.raises(KernelFault, match=said):
        run(text, mx.array(VALUES.astype(np.float32)))


def test_a_fault_ends_only_its_own_launch() -> None:
    def of(size: int) -> Launch:
        return launch("y[i] = a[i];", mx.arange(THREADS, dtype=mx.float32), size=size)

    found = outcomes([of(THREADS), of(THREADS - 1), of(THREADS)])
    assert [bool(each.fault) for each in found] == [False, True, False]
    assert mx.array_equal(found[2].outputs[0], mx.arange(THREADS))


def test_threadgroups_at_the_edge_are_smaller() -> None:
    body = WrittenBody("edge", (), ("y",), text="y[thread_position_in_grid.x] = threads_per_threadgroup.x;")
    (found,) = runner()(Launch(body, (), {}, (100, 1, 1), (64, 1, 1), ((100,),), (mx.uint32,)))
    assert found.tolist() == [64] * 64 + [36] * 36


def test_a_threadgroup_has_at_most_1024_threads() -> None:
    body = WrittenBody("large", (), ("y",), text="y[thread_position_in_grid.x] = 0;")
    with pytest.raises(KernelFault, match="more than 1024 threads"):
        runner()(Launch(body, (), {}, (2048, 1, 1), (2048, 1, 1), ((2048,),), (mx.uint32,)))


def test_what_was_used_longest_ago_leaves_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACLLM_CACHE", str(tmp_path))
    executable(SOURCE, "fast")
    folder = cache_dir()
    for number in range(3):
        file = folder / f"older-{number}"
        file.write_bytes(bytes(1000))
        os.utime(file, (number, number))
    made = {file.name for file in folder.iterdir() if not file.name.startswith("older")}
    size = sum(file.stat().st_size for file in folder.iterdir())
    monkeypatch.setattr("macllm.kernels.harness.compile._KEPT_BYTES", size - 1500)
    executable(SOURCE + "// another\n", "fast")
    left = {file.name for file in folder.iterdir()}
    assert made <= left
    assert {name for name in left if name.startswith("older")} == {"older-2"}


def test_the_same_text_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACLLM_CACHE", str(tmp_path))
    made = executable(SOURCE, "fast")
    written = made.stat().st_ino
    assert executable(SOURCE, "fast") == made
    assert made.stat().st_ino == written
    assert executable(SOURCE, "address") != made
