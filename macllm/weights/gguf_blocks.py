"""How GGUF's quantized types lay out their blocks: sizes of all types, codes and scales of the common ones.

``unpack`` turns raw blocks into groups of small whole numbers with one scale and, for some types, one bias a
group: ``weight = scale * code + bias``. The arithmetic is that of llama.cpp, and exact in float32 for every type
here but for one rounding where a bias is added, so the same numbers serve a repacked and a dequantized weight.
NumPy only; the functions release the GIL while they work, so rows can be shared out over threads.

Source: the block structs of ggml (ggml-common.h, ggml-quants.c). K-quants have 256 weights a block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class BlockType:
    """A storage type: ``elements`` weights in ``nbytes`` bytes."""

    number: int
    name: str
    elements: int
    nbytes: int


@dataclass(frozen=True)
class Groups:
    """Unpacked weights: codes (G, group) in uint8 or int8, scales (G,) and biases (G,) in float32."""

    codes: Array
    scales: Array
    biases: Array | None = None


_TYPES = [
    BlockType(0, "F32", 1, 4),
    BlockType(1, "F16", 1, 2),
    BlockType(2, "Q4_0", 32, 18),
    BlockType(3, "Q4_1", 32, 20),
    BlockType(6, "Q5_0", 32, 22),
    BlockType(7, "Q5_1", 32, 24),
    BlockType(8, "Q8_0", 32, 34),
    BlockType(9, "Q8_1", 32, 40),
    BlockType(10, "Q2_K", 256, 84),
    BlockType(11, "Q3_K", 256, 110),
    BlockType(12, "Q4_K", 256, 144),
    BlockType(13, "Q5_K", 256, 176),
    BlockType(14, "Q6_K", 256, 210),
    BlockType(15, "Q8_K", 256, 292),
    BlockType(16, "IQ2_XXS", 256, 66),
    BlockType(17, "IQ2_XS", 256, 74),
    BlockType(18, "IQ3_XXS", 256, 98),
    BlockType(19, "IQ1_S", 256, 50),
    BlockType(20, "IQ4_NL", 32, 18),
    BlockType(21, "IQ3_S", 256, 110),
    BlockType(22, "IQ2_S", 256, 82),
    BlockType(23, "IQ4_XS", 256, 136),
    BlockType(24, "I8", 1, 1),
    BlockType(25, "I16", 1, 2),
    BlockType(26, "I32", 1, 4),
    BlockType(27, "I64", 1, 8),
    BlockType(28, "F64", 1, 8),
    BlockType(29, "IQ1_M", 256, 56),
    BlockType(30, "BF16", 1, 2),
    BlockType(34, "TQ1_0", 256, 54),
    BlockType(35, "TQ2_0", 256, 66),
    BlockType(39, "MXFP4", 32, 17),
    BlockType(40, "NVFP4", 64, 36),
    BlockType(41, "Q1_0", 128, 18),
]
TYPES = {kind.number: kind for kind in _TYPES}


def _struct(*fields: tuple[str, str, int]) -> np.dtype[Any]:
    return np.dtype([(name, kind, (count,)) if count > 1 else (name, kind) for name, kind, count in fields])


_LAYOUTS = {
    "Q4_0": _struct(("d", "<f2", 1), ("qs", "u1", 16)),
    "Q4_1": _struct(("d", "<f2", 1), ("m", "<f2", 1), ("qs", "u1", 16)),
    "Q5_0": _struct(("d", "<f2", 1), ("qh", "u1", 4), ("qs", "u1", 16)),
    "Q5_1": _struct(("d", "<f2", 1), ("m", "<f2", 1), ("qh", "u1", 4), ("qs", "u1", 16)),
    "Q8_0": _struct(("d", "<f2", 1), ("qs", "u1", 32)),
    "Q2_K": _struct(("sc", "u1", 16), ("qs", "u1", 64), ("d", "<f2", 1), ("m", "<f2", 1)),
    "Q3_K": _struct(("qh", "u1", 32), ("qs", "u1", 64), ("sc", "u1", 12), ("d", "<f2", 1)),
    "Q4_K": _struct(("d", "<f2", 1), ("m", "<f2", 1), ("sc", "u1", 12), ("qs", "u1", 128)),
    "Q5_K": _struct(("d", "<f2", 1), ("m", "<f2", 1), ("sc", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)),
    "Q6_K": _struct(("ql", "u1", 128), ("qh", "u1", 64), ("sc", "i1", 16), ("d", "<f2", 1)),
    "IQ4_NL": _struct(("d", "<f2", 1), ("qs", "u1", 16)),
    "IQ4_XS": _struct(("d", "<f2", 1), ("sh", "<u2", 1), ("sl", "u1", 4), ("qs", "u1", 128)),
    "MXFP4": _struct(("e", "u1", 1), ("qs", "u1", 16)),
}

# The 16 values of IQ4_NL and IQ4_XS (kvalues_iq4nl) and of FP4 E2M1, doubled to be whole (kvalues_mxfp4).
_IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.int8
)
_FP4_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.int8)


def blocks(data: Array, name: str) -> Array:
    """The structured blocks (N,) of raw bytes of that type."""
    return data.reshape(-1).view(_LAYOUTS[name])


def unpack(data: Array, name: str) -> Groups:
    """Codes, scales and biases of raw bytes holding whole blocks. KeyError for a type without a layout here."""
    return _UNPACK[name](blocks(data, name))


def _float(field: Array) -> Array:
    return field.astype(np.float32)


def _shifted(packed: Array, bits: int, parts: int, width: int) -> Array:
    """Codes of ``bits`` bits: each run of ``width`` bytes holds ``parts`` runs of codes, lowest bits first.

    (N, bytes) -> (N, bytes / width, parts, width) in uint8.
    """
    runs = packed.reshape(len(packed), -1, 1, width)
    codes = np.empty((len(packed), runs.shape[1], parts, width), np.uint8)
    mask = np.uint8((1 << bits) - 1)
    for part in range(parts):
        np.right_shift(runs[:, :, 0], np.uint8(part * bits), out=codes[:, :, part])
    return np.bitwise_and(codes, mask, out=codes)


def _nibbles(packed: Array) -> Array:
    """(N, 16) bytes -> (N, 32) codes: all low halves, then all high halves."""
    codes = np.empty((len(packed), 32), np.uint8)
    np.bitwise_and(packed, np.uint8(15), out=codes[:, :16])
    np.right_shift(packed, np.uint8(4), out=codes[:, 16:])
    return codes


def _with_fifth_bit(codes: Array, high: Array) -> Array:
    """Adds bit 4 of 32 codes from 4 bytes (N, 4), least significant bit first."""
    bits = np.unpackbits(high, axis=-1, bitorder="little")
    bits <<= np.uint8(4)
    codes |= bits
    return codes


def _q4_0(b: Array) -> Groups:
    scales = _float(b["d"])
    return Groups(_nibbles(b["qs"]), scales, scales * np.float32(-8))


def _q4_1(b: Array) -> Groups:
    return Groups(_nibbles(b["qs"]), _float(b["d"]), _float(b["m"]))


def _q5_0(b: Array) -> Groups:
    scales = _float(b["d"])
    return Groups(_with_fifth_bit(_nibbles(b["qs"]), b["qh"]), scales, scales * np.float32(-16))


def _q5_1(b: Array) -> Groups:
    return Groups(_with_fifth_bit(_nibbles(b["qs"]), b["qh"]), _float(b["d"]), _float(b["m"]))


def _q8_0(b: Array) -> Groups:
    scales = _float(b["d"])
    return Groups(b["qs"] ^ np.uint8(128), scales, scales * np.float32(-128))


def _q2_k(b: Array) -> Groups:
    codes = _shifted(b["qs"], 2, 4, 32).reshape(-1, 16)
    scales = _float(b["d"])[:, None] * (b["sc"] & np.uint8(15))
    biases = -_float(b["m"])[:, None] * (b["sc"] >> np.uint8(4))
    return Groups(codes, scales.reshape(-1), biases.reshape(-1))


def _q3_k(b: Array) -> Groups:
    codes = _shifted(b["qs"], 2, 4, 32).reshape(len(b), 8, 32)
    # Bit j of byte i stands for code 32 j + i; where it is 0, 4 is taken off.
    high = _shifted(b["qh"], 1, 8, 32).reshape(len(b), 8, 32)
    codes |= high << np.uint8(2)
    packed = b["sc"]
    low = np.concatenate([packed[:, :8] & np.uint8(15), packed[:, :8] >> np.uint8(4)], axis=1)  # (N, 16)
    top = _shifted(packed[:, 8:], 2, 4, 4).reshape(-1, 16)
    factors = (low | top << np.uint8(4)).astype(np.int8) - np.int8(32)
    scales = (_float(b["d"])[:, None] * factors).reshape(-1)
    return Groups(codes.reshape(-1, 16), scales, scales * np.float32(-4))


def _k_scales(packed: Array) -> tuple[Array, Array]:
    """The eight 6-bit scales and eight 6-bit minimums (N, 8) of Q4_K and Q5_K from their 12 bytes."""
    low, mid, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    six, two, four = np.uint8(63), np.uint8(2), np.uint8(4)
    scales = np.concatenate([low & six, high & np.uint8(15) | low >> two & np.uint8(0x30)], axis=1)
    minimums = np.concatenate([mid & six, high >> four | mid >> two & np.uint8(0x30)], axis=1)
    return scales, minimums


def _k_groups(b: Array, codes: Array) -> Groups:
    factors, minimums = _k_scales(b["sc"])
    scales = _float(b["d"])[:, None] * factors
    biases = -_float(b["m"])[:, None] * minimums
    return Groups(codes.reshape(-1, 32), scales.reshape(-1), biases.reshape(-1))


def _q4_k(b: Array) -> Groups:
    return _k_groups(b, _shifted(b["qs"], 4, 2, 32))


def _q5_k(b: Array) -> Groups:
    codes = _shifted(b["qs"], 4, 2, 32).reshape(len(b), 8, 32)
    high = _shifted(b["qh"], 1, 8, 32).reshape(len(b), 8, 32)
    high <<= np.uint8(4)
    codes |= high
    return _k_groups(b, codes)


def _q6_k(b: Array) -> Groups:
    codes = _shifted(b["ql"], 4, 2, 64).reshape(len(b), 8, 32)
    codes |= _shifted(b["qh"], 2, 4, 32).reshape(len(b), 8, 32) << np.uint8(4)
    codes -= np.uint8(32)  # wraps round to the signed code
    scales = _float(b["d"])[:, None] * b["sc"]
    return Groups(codes.view(np.int8).reshape(-1, 16), scales.reshape(-1))


def _iq4_nl(b: Array) -> Groups:
    return Groups(_IQ4_VALUES[_nibbles(b["qs"])], _float(b["d"]))


def _iq4_xs(b: Array) -> Groups:
    codes = _IQ4_VALUES[_shifted(b["qs"], 4, 2, 16).reshape(-1, 32)]
    low = _shifted(b["sl"], 4, 2, 1).reshape(len(b), 8)
    high = b["sh"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16) & np.uint16(3)
    factors = (low | high.astype(np.uint8) << np.uint8(4)).astype(np.int8) - np.int8(32)
    return Groups(codes, (_float(b["d"])[:, None] * factors).reshape(-1))


def _mxfp4(b: Array) -> Groups:
    # The codes are doubled, so the scale is 2 ** (e - 128); the two smallest are subnormal in float32.
    exponent = b["e"].astype(np.uint32)
    bits = np.where(
        exponent < 2, np.uint32(0x00200000) << exponent, (exponent - np.uint32(1)) << np.uint32(23)
    )
    return Groups(_FP4_VALUES[_nibbles(b["qs"])], bits.view(np.float32))


_UNPACK: dict[str, Callable[[Array], Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
}
UNPACKED_TYPES = frozenset(_UNPACK)


def pack(codes: Array, bits: int) -> Array:
    """Codes (..., n) below 2 ** bits as bytes (..., n * bits / 8), each code's lowest bit first: MLX's layout.

    For 4, 5 or 8 bits; n is a multiple of 8.
    """
    if bits == 8:
        return codes
    if bits == 4:
        pairs = codes.view("<u2")
        joined: Array = (pairs | pairs >> np.uint16(4)).astype(np.uint8)
        return joined
    # Eight codes lie in one 64-bit word, 8 bits apart: close the gaps of pairs, then of fours, then of the eight.
    words = codes.view("<u8")
    for width, gap, low in ((8, 3, 0x001F001F001F001F), (16, 6, 0x000003FF000003FF), (32, 12, 0xFFFFF)):
        words = words & np.uint64(low) | (words & np.uint64(low << width)) >> np.uint64(gap)
    packed: Array = words.view(np.uint8).reshape(*words.shape, 8)[..., :5].reshape(*codes.shape[:-1], -1)
    return packed


def mxfp4(data: Array) -> tuple[Array, Array]:
    """MXFP4 blocks in the order of MLX's own mode: bytes of two codes each (N, 16), exponents (N,)."""
    b = blocks(data, "MXFP4")
    return pack(_nibbles(b["qs"]), 4), b["e"]
