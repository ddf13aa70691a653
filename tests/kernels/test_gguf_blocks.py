"""GGUF's block types: their decoding, to the bit that of the ``gguf`` package, and what tells their kernels apart."""

import gguf
import mlx.core as mx
import numpy as np
import pytest
from gguf.quants import dequantize as library

from macllm.kernels.gguf_blocks import KERNELS, random_blocks
from macllm.kernels.gguf_decode import dequantize
from macllm.kernels.registry import KERNELS as ALL
from macllm.quantization import BLOCKS, Mode

SCALES = {
    "q2_k": (80, 82),
    "q3_k": (108,),
    "q6_k": (208,),
}  # offsets of a block's halves; else where it begins
WITH_MINIMUMS = ("q4_1", "q5_1", "q4_k", "q5_k")
KINDS = pytest.mark.parametrize("kind", BLOCKS)


def by_library(weight: mx.array, kind: Mode) -> np.ndarray:
    return library(np.array(weight), gguf.GGMLQuantizationType[kind.upper()])


def same_bits(found: mx.array, expected: np.ndarray) -> bool:
    return np.array_equal(np.array(found).view(np.uint32), expected.view(np.uint32))


@KINDS
def test_sizes_are_the_library_s(kind: Mode) -> None:
    form = BLOCKS[kind]
    assert (form.weights, form.nbytes) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.upper()]]


@KINDS
@pytest.mark.parametrize("extreme", [False, True])
def test_values_are_the_library_s_to_the_bit(kind: Mode, extreme: bool) -> None:
    weight = random_blocks(kind, (3, 50), 4 * BLOCKS[kind].weights, extreme)
    assert same_bits(dequantize(weight, kind), by_library(weight, kind))


@KINDS
def test_every_half_is_a_scale(kind: Mode) -> None:
    """All finite ones: zeros of both signs, subnormal ones, the largest; with a code and group scales of any kind."""
    halves = np.arange(0, 1 << 16, 7, np.uint16)
    halves = halves[np.isfinite(halves.view(np.float16))]
    blocks = np.array(random_blocks(kind, (len(halves),), BLOCKS[kind].weights))
    for at in SCALES.get(kind, (0, 2) if kind in WITH_MINIMUMS else (0,)):
        blocks[:, at : at + 2] = np.roll(halves, at)[:, None].view(np.uint8)
    assert same_bits(dequantize(mx.array(blocks), kind), by_library(mx.array(blocks), kind))


@KINDS
@pytest.mark.parametrize("byte", [0, 255])
def test_blocks_of_one_byte_only(kind: Mode, byte: int) -> None:
    blocks = np.full((2, BLOCKS[kind].nbytes), byte, np.uint8)
    for at in SCALES.get(kind, (0, 2)):
        blocks[:, at : at + 2] = np.array([-1.5], "<f2").view(np.uint8)
    assert same_bits(dequantize(mx.array(blocks), kind), by_library(mx.array(blocks), kind))


def test_a_text_has_one_name_and_a_name_one_text() -> None:
    """MLX compiles a name once; a verdict holds for one text."""
    bodies = {(kernel.body.name, kernel.body.digest) for kernel in ALL.values()}
    assert len(bodies) == len({name for name, _ in bodies}) == len({digest for _, digest in bodies})
    assert len({kernel.body.name for kernel in KERNELS}) == len(KERNELS)
    assert len({kernel.body.source for kernel in KERNELS}) == 2
