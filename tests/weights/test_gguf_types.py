"""Every GGUF type against the library that defines it: exact where the design says exact."""

import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf_maker import decode, encode, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from macllm.errors import CheckpointError
from macllm.nn.stored import Dense, Packed
from macllm.quantization import Quantization
from macllm.weights import gguf_types
from macllm.weights.gguf_blocks import TYPES, BlockType
from macllm.weights.gguf_file import GGUFFile, GGUFTensor
from macllm.weights.gguf_types import placement, read, read_dense

EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
K_AFFINE = ("Q4_K", "Q5_K")
BITS = {"Q4_0": 4, "Q4_1": 4, "Q4_K": 4, "Q5_0": 5, "Q5_1": 5, "Q5_K": 5, "Q8_0": 8}
PLAIN = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")
UNREADABLE = ("Q8_1", "Q8_K", "Q1_0")
DECODED = tuple(kind.name for kind in TYPES.values() if kind.name not in (*PLAIN, *UNREADABLE))
SHAPE = (600, 512)  # more than one step of the reader


def made(path: Path, type_name: str, shape: tuple[int, ...] = SHAPE) -> tuple[GGUFTensor, np.ndarray]:
    """One tensor of a type in a file, and the values the library reads from it."""
    values = np.random.default_rng(1).normal(0, 0.1, shape).astype(np.float32)
    file = write_gguf(path / f"{type_name}.gguf", {"w": values}, {"w": type_name})
    return GGUFFile.open(file.path).tensors["w"], file.weights["w"]


def same(found: mx.array, expected: np.ndarray) -> bool:
    return np.array_equal(np.array(found.astype(mx.float32)), expected.astype(np.float32), equal_nan=True)


def test_type_table_is_that_of_the_library() -> None:
    ours = {(kind.number, kind.name): (kind.elements, kind.nbytes) for kind in TYPES.values()}
    assert ours == {(int(kind), kind.name): gguf.GGML_QUANT_SIZES[kind] for kind in Type}


@pytest.mark.parametrize("type_name", [*DECODED, "F32", "F16", "BF16"])
def test_dense_values_are_the_library_s(type_name: str, tmp_path: Path) -> None:
    tensor, expected = made(tmp_path, type_name)
    found = read_dense(tensor)
    assert found.dtype == mx.float32
    assert same(found, expected)


@pytest.mark.parametrize("type_name", EXACT)
def test_repacking_is_exact_with_float16_scales(type_name: str, tmp_path: Path) -> None:
    tensor, expected = made(tmp_path, type_name)
    packed = read(tensor)
    assert isinstance(packed, Packed)
    assert packed.quantization == Quantization(BITS[type_name], 32)
    assert packed.shape == SHAPE
    assert packed.scales.dtype == mx.float16
    assert same(packed.dequantize(mx.float32), expected)


@pytest.mark.parametrize("type_name", K_AFFINE)
def test_k_quants_repack_exactly_with_float32_scales(type_name: str, tmp_path: Path) -> None:
    tensor, expected = made(tmp_path, type_name)
    packed = read(tensor, scale_dtype=mx.float32)
    assert isinstance(packed, Packed)
    assert packed.quantization == Quantization(BITS[type_name], 32)
    assert same(packed.dequantize(mx.float32), expected)


@pytest.mark.parametrize("type_name", K_AFFINE)
def test_k_quants_with_float16_scales_are_close(type_name: str, tmp_path: Path) -> None:
    tensor, expected = made(tmp_path, type_name)
    packed = read(tensor, scale_dtype=mx.float16)
    assert isinstance(packed, Packed)
    error = np.array(packed.dequantize(mx.float32)) - expected
    assert 0 < np.sqrt((error**2).mean() / (expected**2).mean()) < 1e-3


@pytest.mark.parametrize("type_name", [*EXACT, *K_AFFINE, "MXFP4"])
def test_repacked_matrices_multiply_like_what_they_stand_for(type_name: str, tmp_path: Path) -> None:
    tensor, expected = made(tmp_path, type_name)
    packed = read(tensor, scale_dtype=mx.float32)
    assert isinstance(packed, Packed)
    x = mx.random.normal((3, SHAPE[1]), key=mx.random.key(0))
    q = packed.quantization
    found = mx.quantized_matmul(
        x, packed.weight, packed.scales, packed.biases, True, q.group_size, q.bits, q.mode
    )
    wanted = np.array(x).astype(np.float64) @ expected.T.astype(np.float64)
    np.testing.assert_allclose(np.array(found), wanted, atol=1e-4 * np.abs(wanted).max())


def test_mxfp4_repacks_exactly(tmp_path: Path) -> None:
    """Every code and every scale but 255, which the format defines as no number."""
    tensor, _ = made(tmp_path, "MXFP4", (255, 32))
    blocks = np.zeros((255, 17), np.uint8)
    blocks[:, 0] = np.arange(255)
    blocks[:, 1:] = np.random.default_rng(0).permutation(256)[:16]
    overwrite(tensor, blocks)
    packed = read(tensor)
    assert isinstance(packed, Packed)
    assert packed.quantization == Quantization(4, 32, "mxfp4")
    assert packed.biases is None
    assert same(packed.dequantize(mx.float32), decode(blocks, "MXFP4"))


def overwrite(tensor: GGUFTensor, blocks: np.ndarray) -> None:
    """Puts other bytes where a tensor's lie; its mapping shows them."""
    assert blocks.nbytes == tensor.nbytes
    with tensor.file.path.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(blocks.tobytes())


@settings(max_examples=15, deadline=None)
@given(
    type_name=st.sampled_from([*EXACT, *K_AFFINE, "Q2_K", "Q3_K", "Q6_K", "IQ4_NL", "IQ4_XS"]),
    seed=st.integers(0, 2**32),
)
def test_any_block_with_finite_scales_is_exact(
    type_name: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Scales over the whole range of float16, subnormal ones too, and every code."""
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("blocks") / "x.gguf"
    values = np.zeros((8, 512), np.float32)
    file = write_gguf(path, {"w": values}, {"w": type_name})
    tensor = GGUFFile.open(file.path).tensors["w"]
    blocks = rng.integers(0, 256, (tensor.nbytes // tensor.type.nbytes, tensor.type.nbytes), dtype=np.uint8)
    for offset in SCALE_OFFSETS[type_name]:
        scales = rng.integers(0, 0x7C00, len(blocks), dtype=np.uint16) | rng.choice([0, 0x8000], len(blocks))
        blocks[:, offset : offset + 2] = scales.astype("<u2").view(np.uint8).reshape(-1, 2)
    overwrite(tensor, blocks)
    expected = decode(blocks.reshape(8, -1), type_name)
    assert same(read_dense(tensor), expected)
    if type_name in BITS:
        packed = read(tensor, scale_dtype=mx.float32 if type_name in K_AFFINE else mx.float16)
        assert isinstance(packed, Packed)
        assert same(packed.dequantize(mx.float32), expected)


SCALE_OFFSETS = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}


def test_a_scale_beyond_float16_keeps_float32(tmp_path: Path) -> None:
    """A bias of -128 d overflows float16 from d = 512 on; the weights stay finite and exact."""
    values = np.full((2, 64), 1e5, np.float32)
    file = write_gguf(tmp_path / "big.gguf", {"w": values}, {"w": "Q8_0"})
    packed = read(GGUFFile.open(file.path).tensors["w"])
    assert isinstance(packed, Packed)
    assert packed.scales.dtype == mx.float32
    assert same(packed.dequantize(mx.float32), file.weights["w"])


@pytest.mark.parametrize("type_name", ["Q4_1", "Q6_K", "F32", "BF16", "F16", "IQ2_S"])
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_dense_in_half_precision_is_the_rounded_value(
    type_name: str, dtype: mx.Dtype, tmp_path: Path
) -> None:
    tensor, expected = made(tmp_path, type_name)
    found = read_dense(tensor, dtype)
    assert found.dtype == dtype
    assert mx.array_equal(found, mx.array(expected).astype(dtype))


def test_bfloat16_rounds_to_even_and_keeps_special_values(tmp_path: Path) -> None:
    bits = np.array(
        [0x3F808000, 0x3F818000, 0x3F808001, 0x7F800000, 0x7FC00000, 0x7FFFFFFF, 0xFF7FFFFF], "<u4"
    )
    file = write_gguf(tmp_path / "x.gguf", {"w": bits.view("<f4").reshape(1, -1)}, {"w": "F32"})
    found = read_dense(GGUFFile.open(file.path).tensors["w"], mx.bfloat16)
    expected = mx.array(bits.view("<f4").reshape(1, -1)).astype(mx.bfloat16)
    assert mx.array_equal(found, expected, equal_nan=True)


def test_bfloat16_scales_are_the_rounded_ones(tmp_path: Path) -> None:
    tensor, _ = made(tmp_path, "Q4_1")
    exact, rounded = read(tensor, scale_dtype=mx.float32), read(tensor, scale_dtype=mx.bfloat16)
    assert isinstance(exact, Packed)
    assert isinstance(rounded, Packed)
    assert exact.biases is not None
    assert rounded.biases is not None
    assert mx.array_equal(rounded.scales, exact.scales.astype(mx.bfloat16))
    assert mx.array_equal(rounded.biases, exact.biases.astype(mx.bfloat16))
    assert mx.array_equal(rounded.weight, exact.weight)


@pytest.mark.parametrize(
    ("type_name", "dtype"), [("F32", mx.float32), ("F16", mx.float16), ("BF16", mx.bfloat16)]
)
def test_plain_types_stay_as_stored(type_name: str, dtype: mx.Dtype, tmp_path: Path) -> None:
    tensor, expected = made(tmp_path, type_name)
    stored = read(tensor)
    assert isinstance(stored, Dense)
    assert stored.array.dtype == dtype
    assert same(stored.array, expected)


@pytest.mark.parametrize("kind", ["f8", "i1", "i2", "i4", "i8"])
def test_numbers_of_other_plain_types(kind: str, tmp_path: Path) -> None:
    values = np.arange(-6, 6).reshape(3, 4).astype(kind)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("w", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = GGUFFile.open(tmp_path / "x.gguf").tensors["w"]
    stored = read(tensor)
    assert isinstance(stored, Dense)
    assert stored.array.tolist() == values.tolist()
    assert same(read_dense(tensor), values)


@pytest.mark.parametrize("type_name", ["Q4_0", "Q5_K", "MXFP4", "Q6_K", "F16"])
@pytest.mark.parametrize("shape", [(3, 4, 256), (512,)])
def test_tensors_of_other_ranks_keep_their_shape(
    type_name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Stacked experts are packed; a vector is not, MLX has no packed vectors."""
    tensor, expected = made(tmp_path, type_name, shape)
    stored = read(tensor, scale_dtype=mx.float32, dense_dtype=mx.float32)
    values = stored.dequantize(mx.float32) if isinstance(stored, Packed) else stored.array
    assert isinstance(stored, Packed) == (len(shape) > 1 and type_name in ("Q4_0", "Q5_K", "MXFP4"))
    assert stored.shape == read_dense(tensor).shape == shape
    assert same(read_dense(tensor), expected)
    assert same(values, expected)


@pytest.mark.parametrize("kind", TYPES.values(), ids=lambda kind: kind.name)
def test_placement_says_what_reading_does(kind: BlockType, tmp_path: Path) -> None:
    said = placement(kind.name, mx.float16, mx.bfloat16)
    tensor = raw_tensor(tmp_path / "x.gguf", kind)
    if said == "cannot be read":
        for reader in (read, read_dense):
            with pytest.raises(CheckpointError, match=f"'w' is stored as {kind.name}"):
                reader(tensor)
        return
    stored = read(tensor, scale_dtype=mx.float16, dense_dtype=mx.bfloat16)
    if isinstance(stored, Packed):
        q = stored.quantization
        form = f"affine {q.bits}-bit g{q.group_size}" if q.mode == "affine" else q.mode
        assert said in (f"repacked exactly as {form}", f"repacked as {form} with float16 scales")
    elif said == "kept as stored":
        assert stored.nbytes == tensor.nbytes
    else:
        name = str(stored.array.dtype).removeprefix("mlx.core.")
        assert said in (f"dequantized to {name}", f"converted to {name}")


def raw_tensor(path: Path, kind: BlockType) -> GGUFTensor:
    """A tensor of zero bytes: any type can be stored, readable or not."""
    writer = gguf.GGUFWriter(path, "llama")
    data = np.zeros((2, kind.nbytes * (512 // kind.elements)), np.uint8)
    writer.add_tensor("w", data, raw_dtype=Type(kind.number))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GGUFFile.open(path).tensors["w"]


@pytest.mark.parametrize("type_name", [*EXACT, *K_AFFINE])
def test_placement_claims_exactness_only_where_it_holds(type_name: str) -> None:
    assert "exactly" in placement(type_name, mx.float32)
    assert ("exactly" in placement(type_name, mx.float16)) == (type_name in EXACT)
    assert "exactly" not in placement(type_name, mx.bfloat16)


def test_threads_and_steps_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor, expected = made(tmp_path, "Q5_K")
    whole = read(tensor)
    monkeypatch.setattr(gguf_types, "_CHUNK", 512 * 7)  # 600 rows are no multiple of 7
    assert same(read_dense(tensor), expected)
    stepwise = read(tensor)
    assert isinstance(whole, Packed)
    assert isinstance(stepwise, Packed)
    assert mx.array_equal(whole.weight, stepwise.weight)
    assert mx.array_equal(whole.scales, stepwise.scales)


def test_a_tensor_can_be_read_again(tmp_path: Path) -> None:
    tensor, expected = made(tmp_path, "Q4_0")
    assert same(read_dense(tensor), expected)
    assert same(read_dense(tensor), expected)


def test_common_types_need_no_gguf_package(tmp_path: Path, run_python: Callable[..., str]) -> None:
    """Importing it costs more than loading the starter."""
    common = ("F32", "F16", "BF16", *BITS, "Q2_K", "Q3_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4")
    weights = {name: np.zeros((2, 512), np.float32) for name in common}
    file = write_gguf(tmp_path / "all.gguf", weights, {name: name for name in common})
    code = f"""
import sys
from macllm.weights.gguf_file import GGUFFile
from macllm.weights.gguf_types import read, read_dense
for tensor in GGUFFile.open({str(file.path)!r}).tensors.values():
    read(tensor), read_dense(tensor)
print("gguf" in sys.modules)
"""
    assert run_python(code).strip() == "False"


@pytest.mark.starter
def test_starter_values_are_the_library_s(starter_gguf: Path) -> None:
    tensors = GGUFFile.open(starter_gguf).tensors
    for name in ("token_embd.weight", "blk.0.attn_q.weight", "blk.29.ffn_down.weight", "output_norm.weight"):
        tensor = tensors[name]
        rows = slice(0, 2000)
        expected = decode(tensor.data()[rows], tensor.type_name).reshape(-1, *tensor.shape[1:])[
            : tensor.shape[0]
        ]
        assert same(read_dense(tensor)[rows], expected[rows])
        stored = read(tensor)
        values = stored.dequantize(mx.float32) if isinstance(stored, Packed) else stored.array
        assert same(values[rows], expected[rows])


_PEAK = """
import resource, sys
import mlx.core as mx
from macllm.weights.gguf_file import GGUFFile
from macllm.weights.gguf_types import read
mx.eval(mx.zeros(1) + 1)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
file = GGUFFile.open({path!r})
opened = peak()
kept = [read(tensor) for tensor in file.tensors.values()]
print(opened - before, peak() - before, sum(stored.nbytes for stored in kept), file.path.stat().st_size)
"""


@pytest.mark.starter
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: peak memory in kilobytes")
def test_reading_a_model_needs_the_memory_that_it_keeps(
    starter_gguf: Path, run_python: Callable[..., str]
) -> None:
    opening, peak, kept, size = map(int, run_python(_PEAK.format(path=str(starter_gguf))).split())
    assert opening < size / 10  # nothing but the header
    assert peak < 1.15 * kept


def test_encode_is_what_the_library_writes() -> None:
    """The maker's own check: a quantized matrix comes back close to what went in."""
    values = np.random.default_rng(0).normal(0, 1, (4, 64)).astype(np.float32)
    back = decode(encode(values, "Q8_0", np.random.default_rng(0)), "Q8_0")
    assert np.abs(back - values).max() < 0.02
