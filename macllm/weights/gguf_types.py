"""Turns GGUF tensors into MLX weights: repacked exactly where MLX's formats hold the type, else dequantized.

Repacked, codes untouched (QUANTIZATION.md, "GGUF into MLX"):

- Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: affine, 4, 4, 5, 5 and 8 bits, groups of 32. Scales are stored in float16, so
  float16 holds them exactly; the biases of the symmetric types are -8 d, -16 d and -128 d, exact too.
- Q4_K, Q5_K: affine, 4 and 5 bits, groups of 32, scale ``d * sc`` and bias ``-dmin * m``: exact with float32
  scales, a relative error of 7e-4 with float16 ones.
- MXFP4: MLX's mode ``mxfp4`` (the nibbles in another order).

Everything else becomes a plain array. Where a custom kernel multiplies a type, its matrices can also be kept as they
lie in the file, byte for byte (:func:`read_blocks`). Work is done a few rows at a time straight from the mapped file
into the result, on all cores, and the file's pages are given back at once: the peak is the result itself.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from macllm.errors import CheckpointError
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import BLOCKS, Quantization
from macllm.weights.gguf_blocks import UNPACKED_TYPES, mxfp4, pack, unpack
from macllm.weights.gguf_file import GGUFTensor

Array: TypeAlias = npt.NDArray[Any]

_AFFINE_BITS = {
    mode.upper(): each.affine_bits for mode, each in BLOCKS.items() if each.affine_bits is not None
}
_FLOAT32_SCALES = {"Q4_K", "Q5_K"}
_GROUP = 32
_PLAIN: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # NumPy has no bfloat16: its bits
    "F64": np.dtype("<f8"),
    "I8": np.dtype("<i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
_STORED = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}
_UNREADABLE = {"Q8_1", "Q8_K", "Q1_0"}  # never stored in model files, or without a decoder
KEPT = "kept as it lies in the file"  # what becomes of blocks that a kernel reads
_CHUNK = 1 << 18  # weights a step: few enough for the cache, enough to outweigh Python
_MAX_THREADS = 8


def placement(type_name: str, scale_dtype: mx.Dtype = mx.float16, dense_dtype: mx.Dtype = mx.float16) -> str:
    """What ``read`` makes of a matrix of a type, in words."""
    if type_name in _AFFINE_BITS:
        form = f"affine {_AFFINE_BITS[type_name]}-bit g{_GROUP}"
        exact = scale_dtype == mx.float32 or (scale_dtype == mx.float16 and type_name not in _FLOAT32_SCALES)
        return (
            f"repacked exactly as {form}" if exact else f"repacked as {form} with {_name(scale_dtype)} scales"
        )
    if type_name == "MXFP4":
        return "repacked exactly as mxfp4"
    if type_name == "F64":
        return "converted to float32"
    if type_name in _PLAIN:
        return "kept as stored"
    if type_name in _UNREADABLE:
        return "cannot be read"
    return f"dequantized to {_name(dense_dtype)}"


def packing(type_name: str) -> Quantization | None:
    """MLX's form of a matrix of a type, its codes untouched; None where MLX has none."""
    if type_name == "MXFP4":
        return Quantization(4, _GROUP, "mxfp4")
    bits = _AFFINE_BITS.get(type_name)
    return Quantization(bits, _GROUP) if bits is not None else None


def read(
    tensor: GGUFTensor, *, scale_dtype: mx.Dtype = mx.float16, dense_dtype: mx.Dtype = mx.float16
) -> Stored:
    """The tensor as MLX keeps it: packed where its type allows, else plain.

    ``scale_dtype`` is that of the scales and biases of affine matrices, ``dense_dtype`` that of what has to be
    dequantized: float32, float16 or bfloat16 (8 bits of precision: scales are better in float16). Plain tensors
    keep the type they are stored in, and a matrix whose scales float16 cannot hold gets float32 ones.
    Raises CheckpointError for a type that nothing can read.
    """
    is_matrix = len(tensor.shape) > 1  # MLX has no packed vectors
    if is_matrix and tensor.type_name in _AFFINE_BITS:
        return _read_affine(tensor, scale_dtype)
    if is_matrix and tensor.type_name == "MXFP4":
        return _read_mxfp4(tensor)
    if tensor.type_name in _PLAIN and tensor.type_name != "F64":
        return Dense(_read_plain(tensor))
    return Dense(read_dense(tensor, mx.float32 if tensor.type_name == "F64" else dense_dtype))


def read_dense(tensor: GGUFTensor, dtype: mx.Dtype = mx.float32) -> mx.array:
    """The tensor dequantized, in its own shape: float32, float16 or bfloat16 straight from the mapped bytes.

    In float32 the values are exactly those of ``gguf.quants.dequantize``.
    """
    if tensor.type_name in _STORED and _STORED[tensor.type_name] == dtype:
        return _read_plain(tensor)
    decode = _decoder(tensor)
    result, out = _allocate((tensor.rows, tensor.shape[-1] if tensor.shape else 1), dtype)

    def convert(start: int, stop: int) -> None:
        _store(decode(tensor.data(start, stop)), out[start:stop], dtype)

    _in_chunks(tensor, convert)
    return _typed(result, dtype).reshape(tensor.shape)


def blocks(type_name: str) -> Quantization | None:
    """The mode in which matrices of a type are kept as they lie in the file; None where there is none."""
    return Quantization.of_blocks(type_name.lower())


def read_blocks(tensor: GGUFTensor, mode: Quantization) -> Packed:
    """The tensor's own bytes: uint8 (..., O, row bytes)."""
    result, out = _allocate((tensor.rows, tensor.nbytes // tensor.rows), mx.uint8)

    def copy(start: int, stop: int) -> None:
        out[start:stop] = tensor.data(start, stop)

    _in_chunks(tensor, copy)
    return Packed(result.reshape(*tensor.shape[:-1], -1), None, None, mode)


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).rpartition(".")[2]


def _allocate(shape: tuple[int, ...], dtype: mx.Dtype) -> tuple[mx.array, Array]:
    """An MLX array and a NumPy view of its memory to fill it through (bfloat16 as uint16)."""
    array = mx.zeros(shape, mx.uint16 if dtype == mx.bfloat16 else dtype)
    mx.eval(array)
    return array, np.array(array, copy=False)


def _typed(array: mx.array, dtype: mx.Dtype) -> mx.array:
    """A filled array under its own type."""
    return array.view(mx.bfloat16) if dtype == mx.bfloat16 else array


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="macllm-gguf")


def _in_chunks(tensor: GGUFTensor, work: Callable[[int, int], None]) -> None:
    """Calls ``work(start, stop)`` on ranges of rows, on all cores, and gives each range's pages back after."""
    step = max(1, _CHUNK // (tensor.shape[-1] if tensor.shape else 1))

    def run(start: int) -> None:
        stop = min(start + step, tensor.rows)
        work(start, stop)
        tensor.release(start, stop)

    starts = range(0, tensor.rows, step)
    if len(starts) == 1:
        run(0)
    else:
        for _ in _pool().map(run, starts):
            pass
        tensor.release()  # touching a page maps its neighbours too, released ones among them


def _read_plain(tensor: GGUFTensor) -> mx.array:
    array = mx.array(tensor.data().view(_PLAIN[tensor.type_name]).reshape(tensor.shape))
    tensor.release()
    return array.view(mx.bfloat16) if tensor.type_name == "BF16" else array


def _read_affine(tensor: GGUFTensor, scale_dtype: mx.Dtype) -> Packed:
    bits, inputs = _AFFINE_BITS[tensor.type_name], tensor.shape[-1]
    weight, words = _allocate((tensor.rows, inputs * bits // 32), mx.uint32)
    scales, scales_out = _allocate((tensor.rows, inputs // _GROUP), scale_dtype)
    biases, biases_out = _allocate((tensor.rows, inputs // _GROUP), scale_dtype)

    def repack(start: int, stop: int) -> None:
        groups = unpack(tensor.data(start, stop), tensor.type_name)
        assert groups.biases is not None
        out = words[start:stop]
        out.view(np.uint8)[...] = pack(groups.codes, bits).reshape(stop - start, -1)
        _store(groups.scales, scales_out[start:stop], scale_dtype)
        _store(groups.biases, biases_out[start:stop], scale_dtype)

    _in_chunks(tensor, repack)
    if scale_dtype == mx.float16 and not (np.isfinite(scales_out).all() and np.isfinite(biases_out).all()):
        return _read_affine(tensor, mx.float32)  # float16 cannot hold them: rare, but never made infinite
    lead = tensor.shape[:-1]
    return Packed(
        weight.reshape(*lead, -1),
        _typed(scales, scale_dtype).reshape(*lead, -1),
        _typed(biases, scale_dtype).reshape(*lead, -1),
        Quantization(bits, _GROUP),
    )


def _read_mxfp4(tensor: GGUFTensor) -> Packed:
    inputs = tensor.shape[-1]
    weight, words = _allocate((tensor.rows, inputs // 8), mx.uint32)
    scales, scales_out = _allocate((tensor.rows, inputs // _GROUP), mx.uint8)

    def repack(start: int, stop: int) -> None:
        codes, exponents = mxfp4(tensor.data(start, stop))
        words[start:stop].view(np.uint8)[...] = codes.reshape(stop - start, -1)
        scales_out[start:stop] = exponents.reshape(stop - start, -1)

    _in_chunks(tensor, repack)
    lead = tensor.shape[:-1]
    return Packed(
        weight.reshape(*lead, -1), scales.reshape(*lead, -1), None, Quantization(4, _GROUP, "mxfp4")
    )


def _decoder(tensor: GGUFTensor) -> Callable[[Array], Array]:
    """Raw rows (n, row bytes) -> values, float32 or the plain type they are stored in."""
    name = tensor.type_name
    if name == "BF16":
        return lambda data: (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    if name in _PLAIN:
        return lambda data: data.view(_PLAIN[name])
    if name in UNPACKED_TYPES:
        return lambda data: _values(data, name)
    if name in _UNREADABLE:
        raise CheckpointError(
            f"{tensor.file.name}: tensor {tensor.name!r} is stored as {name}, which cannot be read; get the model "
            "in a common type such as Q4_K_M or Q8_0"
        )
    return _library_decoder(tensor)


def _values(data: Array, name: str) -> Array:
    groups = unpack(data, name)
    values = groups.codes.astype(np.float32)
    values *= groups.scales[:, None]
    if groups.biases is not None:
        values += groups.biases[:, None]
    return values


def _library_decoder(tensor: GGUFTensor) -> Callable[[Array], Array]:
    # 0.65 s to import and 6 times slower than the layouts here: for rare types only.
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.type.number)

    def decode(data: Array) -> Array:
        values: Array = dequantize(data, kind)
        return values

    return decode


def _store(values: Array, out: Array, dtype: mx.Dtype) -> None:
    """Writes values into a part of what ``_allocate`` gave, rounded to nearest, ties to even."""
    if dtype != mx.bfloat16:
        with np.errstate(over="ignore"):  # beyond float16 is infinite, as in any conversion
            out[...] = values.reshape(out.shape)
        return
    bits = values.astype(np.float32, copy=False).reshape(out.shape).view(np.uint32)
    upper = bits >> np.uint32(16)
    rounded = bits + (np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    is_nan = bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000)
    out[...] = np.where(is_nan, upper | np.uint32(0x40), rounded)
