"""GGUF's block types: their decoding, to the bit that of the ``gguf`` package, and what tells their kernels apart."""

from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from gguf.quants import dequantize as library

from macllm.kernels import dispatch
from macllm.kernels.gguf_blocks import KERNELS, random_blocks
from macllm.kernels.gguf_decode import dequantize
from macllm.kernels.kernel import Launch
from macllm.kernels.permission import running_on
from macllm.kernels.registry import KERNELS as ALL
from macllm.kernels.verdicts import Verdict, Verdicts
from macllm.quantization import BLOCKS, Mode, Quantization

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


def never(_: Launch) -> list[mx.array]:
    raise AssertionError("no kernel is called here")


def learnt(**faster: bool) -> None:
    """Keeps verdicts in float16 by name of kernel: right and, with one row, faster or not; slower with eight rows."""
    known = Verdicts.load()
    for name, is_faster in faster.items():
        rival = 2e-3 if is_faster else 5e-4
        status = "faster" if is_faster else "slower"
        alone = Verdict(name, "float16", status, "", 0.0, (64, 256), 1, 1e-3, rival)
        several = Verdict(name, "float16", "slower", "", 0.0, (64, 256), 8, 1e-3, 5e-4)
        known.record(ALL[name], [alone, several])
    known.save()


def test_blocks_are_kept_where_both_of_their_kernels_were_found_faster(macllm_home: Path) -> None:
    learnt(
        q4_k_matvec=True,
        q4_k_dequantize=True,
        q6_k_matvec=True,
        q6_k_dequantize=False,
        q8_0_matvec=False,
        q8_0_dequantize=True,
    )
    with running_on(never):
        assert dispatch.kept_blocks(mx.float16) == {"q4_k"}
        assert dispatch.kept_blocks(mx.bfloat16) == frozenset()
    assert dispatch.kept_blocks(mx.float16) == frozenset()  # where nothing runs kernels


def test_kept_blocks_are_multiplied_by_their_kernel_however_many_rows_there_are(macllm_home: Path) -> None:
    """Its rival with more rows is a matrix that was not kept."""
    learnt(q4_k_matvec=True)
    q4_k = Quantization.of_blocks("q4_k")
    assert q4_k is not None
    with running_on(never):
        assert all(dispatch.choose("product", q4_k, mx.float16, rows) is not None for rows in range(1, 9))
