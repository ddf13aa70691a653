"""The cost model: small specs by hand, real configs against their sizes, and what must hold of any."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from macllm import sizes
from macllm.families import spec_from_config
from macllm.kernels.cost import (
    KERNEL_ROWS,
    Cost,
    Setting,
    Work,
    expected_experts,
    pairs,
    prefill,
    step,
)
from macllm.kernels.launches import launches
from macllm.kernels.roofline import q4_k_m
from macllm.quantization import BLOCKS, Quantization
from macllm.spec import (
    MLP,
    Attention,
    GatedDelta,
    KeyValues,
    LatentAttention,
    Layer,
    ModelSpec,
    MoE,
    Norm,
    Rope,
    TensorSpec,
)
from macllm.weights.gguf_types import packing

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.json"))
ATTENTION = Attention(dim=64, heads=4, kv_heads=2, head_dim=16, scale=0.25, rope=Rope(16))
MATRICES = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 128 * 64  # q, k and v, o; gate, up, down


def dense(*attention: Attention, tied: bool = False) -> ModelSpec:
    layers = tuple(Layer(one, MLP(64, 128)) for one in attention)
    return ModelSpec("llama", vocab=256, dim=64, layers=layers, max_context=4096, tied=tied)


def in_format(spec: ModelSpec, quantization: Quantization | None) -> dict[str, Quantization | None]:
    return {
        tensor.name: quantization
        for tensor in spec.tensors()
        if tensor.quantizable and (quantization is None or tensor.shape[-1] % quantization.group_size == 0)
    }


def real(name: str) -> ModelSpec:
    return spec_from_config(json.loads((CONFIGS[0].parent / f"{name}.json").read_text()))


# -- by hand ---------------------------------------------------------------------------------------------------


def test_a_dense_layer_by_hand() -> None:
    cost = step(dense(ATTENTION), {}, context=10)
    assert cost.layers.read_bytes == 2 * (MATRICES + 3 * 64)  # two norms, and the last
    assert cost.layers.operations == 2 * MATRICES
    assert cost.embedding == Work(read_bytes=2 * 64)
    assert cost.head == Work(read_bytes=2 * 256 * 64, operations=2 * 256 * 64)
    values = 2 * 2 * 16  # keys and values of two heads
    assert cost.cache.read_bytes == 2 * values * 10
    assert cost.cache.written_bytes == 2 * values
    assert cost.cache.operations == 2 * 2 * 4 * 16 * 10  # scores and sums, each a multiply-add for each key


def test_a_tied_head_reads_the_embedding_once_more() -> None:
    tied, apart = (step(dense(ATTENTION, tied=tied), {}, context=10) for tied in (True, False))
    assert tied.total == apart.total


def test_a_window_reads_its_width() -> None:
    sliding = dense(replace(ATTENTION, window=8), ATTENTION)
    per_token = 2 * 2 * 2 * 16
    assert step(sliding, {}, context=100).cache.read_bytes == per_token * (8 + 100)
    assert step(sliding, {}, context=4).cache.read_bytes == per_token * (4 + 4)
    # four new tokens: the first of them sees eight, the last three more
    assert step(sliding, {}, context=100, tokens=4).cache.read_bytes == per_token * (8 + 3 + 100)


def test_a_layer_that_sees_anothers_keys_reads_them_again_and_writes_none() -> None:
    one = step(dense(ATTENTION), {}, context=50).cache
    shared = step(dense(ATTENTION, replace(ATTENTION, source=0)), {}, context=50).cache
    assert (shared.read_bytes, shared.written_bytes) == (2 * one.read_bytes, one.written_bytes)


def test_experts_count_as_many_as_are_chosen() -> None:
    moe = MoE(64, 128, experts=8, top_k=2, shared=MLP(64, 128))
    spec = ModelSpec("x", 256, 64, (Layer(ATTENTION, moe),), 4096)
    expert = 3 * 128 * 64
    rest = 2 * (MATRICES - expert + 3 * 64 + 8 * 64 + expert)  # attention, norms, router, what all go through
    one, eight = (step(spec, {}, context=20, tokens=tokens) for tokens in (1, 8))
    assert one.layers.read_bytes == rest + 2 * 2 * expert
    assert one.layers.operations == 2 * (MATRICES - expert + 8 * 64 + 3 * expert)
    assert eight.layers.read_bytes == round(rest + 2 * expert * 8 * (1 - 0.75**8))
    assert eight.layers.operations == 8 * one.layers.operations


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (1, 2), (2, 3.5), (1000, 8)])
def test_tokens_share_experts(tokens: int, expected: float) -> None:
    assert expected_experts(8, 2, tokens) == pytest.approx(expected)


def test_latent_attention_by_hand() -> None:
    mixer = LatentAttention(
        64, heads=4, q_rank=None, kv_rank=32, nope_dim=16, rope_dim=8, value_dim=16, scale=1.0, rope=Rope(8)
    )
    spec = ModelSpec("x", 256, 64, (Layer(mixer, MLP(64, 128)),), 4096)
    cost = step(spec, {}, context=100)
    assert cost.cache.read_bytes == 2 * (32 + 8) * 100  # one latent vector and one rotated key a token
    assert cost.cache.written_bytes == 2 * (32 + 8)
    assert cost.cache.operations == 2 * 4 * (32 + 8 + 32) * 100  # inside the latent space
    # in a prompt the heads' own keys and values are fewer operations
    whole = step(spec, {}, context=100, tokens=100)
    assert whole.cache.operations == 2 * 4 * (16 + 8 + 16) * (100 * 101 // 2)


def test_a_state_is_read_and_written_whatever_the_context() -> None:
    mixer = GatedDelta(64, key_heads=2, value_heads=4, key_dim=16, value_dim=16, width=4, norm=Norm())
    spec = ModelSpec("x", 256, 64, (Layer(mixer, MLP(64, 128)),), 4096)
    state = 3 * (2 * 2 * 16 + 4 * 16) * 2 + 4 * 16 * 16 * 4  # the convolution's tail; float32 sums
    for context in (1, 100, 4000):
        cache = step(spec, {}, context=context).cache
        assert (cache.read_bytes, cache.written_bytes) == (state, state)
        assert cache.operations == 6 * 4 * 16 * 16


@pytest.mark.parametrize(
    ("window", "context", "tokens"), [(None, 9, 1), (None, 9, 9), (4, 9, 3), (4, 5, 5), (4, 6, 4)]
)
def test_pairs_are_counted(window: int | None, context: int, tokens: int) -> None:
    counted = sum(min(last, window or last) for last in range(context - tokens + 1, context + 1))
    assert pairs(KeyValues(1, 1, 1, window), context, tokens) == counted


def test_quantized_keys_and_values() -> None:
    spec = dense(replace(ATTENTION, heads=1, kv_heads=1, head_dim=64))
    q8 = Quantization(8, 64)
    ours, mlxs = (step(spec, {}, 100, setting=Setting(kv=q8, way=way)).cache for way in ("kernels", "mlx"))
    assert ours.read_bytes == 100 * 2 * (64 + 4)
    assert ours.written_bytes == 2 * (64 + 4)
    copy = 100 * 2 * 64 * 2
    assert (mlxs.read_bytes, mlxs.written_bytes) == (ours.read_bytes + copy, ours.written_bytes + copy)
    # heads that are no whole groups stay plain
    assert step(dense(ATTENTION), {}, 100, setting=Setting(kv=q8)) == step(dense(ATTENTION), {}, 100)


def test_a_prompt_reads_the_weights_once_a_chunk_and_the_head_once() -> None:
    spec = dense(ATTENTION, ATTENTION)
    whole, chunks = prefill(spec, {}, 1000, chunk=1000), prefill(spec, {}, 1000, chunk=500)
    assert chunks.layers.read_bytes == 2 * whole.layers.read_bytes
    assert chunks.head == whole.head == step(spec, {}, 1).head
    assert chunks.total.operations == whole.total.operations
    assert whole.tokens == chunks.tokens == 1000
    assert chunks.cache.written_bytes == whole.cache.written_bytes


def test_time_is_that_of_the_slower_of_memory_and_arithmetic() -> None:
    cost = Cost(2, layers=Work(3 * 10**9, 10**9, 8 * 10**12, 100))
    assert cost.seconds(100) == pytest.approx(0.04)
    assert cost.seconds(100, tflops=100) == pytest.approx(0.08)
    assert cost.seconds(100, tflops=1000) == pytest.approx(0.04)
    assert cost.seconds(100, launch_us=10) == pytest.approx(0.041)
    assert cost.tokens_per_s(100) == pytest.approx(50)


def test_launches_of_a_dense_layer_by_hand() -> None:
    # norm, q k v, rope, keys, values, attention, o, sum; norm, gate and up, activation, down, sum
    assert launches(dense(ATTENTION, ATTENTION), {}) == 2 * 13 + 3
    apart = in_format(dense(ATTENTION), Quantization(4, 64)) | {
        "layers.0.mixer.v.weight": Quantization(6, 64)
    }
    together = in_format(dense(ATTENTION), Quantization(4, 64))
    assert launches(dense(ATTENTION), apart) == launches(dense(ATTENTION), together) + 3


# -- of any model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_what_holds_of_every_config(config: Path) -> None:
    spec = spec_from_config(json.loads(config.read_text()))
    four, eight = in_format(spec, Quantization(4, 64)), in_format(spec, Quantization(8, 64))
    plain, short, longer = step(spec, {}, 512), step(spec, four, 512), step(spec, four, 1024)
    assert short.total.read_bytes < step(spec, eight, 512).total.read_bytes < plain.total.read_bytes
    assert short.total.operations == plain.total.operations
    assert longer.cache.read_bytes >= short.cache.read_bytes
    assert longer.weights == short.weights
    shares = any(isinstance(m, Attention) and m.source is not None for x in spec.layers for m in x.mixers)
    read = sizes.kv_bytes(spec, 512) - (512 * 4 if spec.border else 0)  # ids are not read
    assert short.cache.read_bytes == read or (shares and short.cache.read_bytes > read)
    four_tokens = step(spec, four, 512, 4)
    assert short.weights.read_bytes <= four_tokens.weights.read_bytes <= 4 * short.weights.read_bytes
    assert four_tokens.layers.operations == pytest.approx(4 * short.layers.operations, rel=1e-9)
    if not any(isinstance(layer.channel, MoE) for layer in spec.layers):
        assert short.weights.read_bytes == sizes.weight_bytes(spec, four) - _tables(spec, four)


def test_nf4_is_multiplied_as_it_lies_or_expanded() -> None:
    """By MLX, and for more rows than the kernel is for, the matrix is read, written plain and read again."""
    spec = dense(ATTENTION)
    nf4 = Quantization(4, 64, "nf4")
    formats = in_format(spec, nf4)
    packed = sum(nf4.nbytes(tensor.size) for tensor in spec.tensors() if tensor.kind == "matrix")
    dense_values = sum(tensor.size for tensor in spec.tensors() if tensor.kind == "matrix")
    rest = 2 * 3 * 64 + nf4.nbytes(64)  # norms, a row of the table
    few, many = (step(spec, formats, 100, tokens, logits=tokens) for tokens in (1, KERNEL_ROWS + 1))
    mlxs = step(spec, formats, 100, setting=Setting(way="mlx"))
    assert few.weights.read_bytes == packed + rest
    assert mlxs.weights.read_bytes == packed + 2 * dense_values + rest
    assert mlxs.weights.written_bytes == 2 * dense_values
    assert mlxs.total.launches == few.total.launches + 8  # q, k, v, o, gate, up, down, head
    assert many.layers.written_bytes == mlxs.layers.written_bytes
    assert (many.head.read_bytes, many.head.written_bytes) == (mlxs.head.read_bytes, mlxs.head.written_bytes)


def _tables(spec: ModelSpec, formats: dict[str, Quantization | None]) -> int:
    """Bytes of the tables of which a token takes a row, less that row; a tied head reads its own whole, too."""

    def nbytes(tensor: TensorSpec, values: int) -> int:
        stored = formats.get(tensor.name)
        return stored.nbytes(values) if stored is not None else 2 * values

    tables = [tensor for tensor in spec.tensors() if tensor.kind == "embedding"]
    rows = sum(nbytes(tensor, tensor.shape[-1]) for tensor in tables)
    read = [tensor for tensor in tables if spec.tied and tensor.name == "embed.weight"]
    whole = sum(nbytes(tensor, tensor.size) for tensor in tables)
    return whole - sum(nbytes(tensor, tensor.size) for tensor in read) - rows


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_read_as_they_lie_or_as_the_loader_repacks_them(name: str) -> None:
    spec, blocks = real("llama-3.1-8b"), Quantization.of_blocks(name)
    kept, repacked = in_format(spec, blocks), in_format(spec, packing(name.upper()))
    expected = step(spec, repacked, 1).weights
    assert step(spec, kept, 1).weights.read_bytes <= expected.read_bytes
    found = step(spec, kept, 1, setting=Setting(way="mlx")).weights
    # but for the one row of the embedding
    assert found.read_bytes == pytest.approx(expected.read_bytes, rel=1e-5)
    assert found.operations == expected.operations


def test_the_model_needs_no_mlx() -> None:
    code = "import sys, macllm.kernels.cost, macllm.kernels.chips; sys.exit('mlx.core' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- the figures of Llama-3.1-8B -------------------------------------------------------------------------------

BANDWIDTHS = (120, 273, 400, 546, 819)


def milliseconds(cost: Cost) -> list[float]:
    return [round(cost.seconds(bandwidth) * 1e3, 1) for bandwidth in BANDWIDTHS]


def rates(cost: Cost) -> list[float]:
    return [round(cost.tokens_per_s(bandwidth), 1) for bandwidth in BANDWIDTHS]


def test_affine_four_bits_of_llama() -> None:
    spec = real("llama-3.1-8b")
    cost = step(spec, in_format(spec, Quantization(4, 64)), 1)
    assert milliseconds(cost) == [35.2, 15.5, 10.6, 7.7, 5.2]
    assert cost.weights.read_bytes == pytest.approx(4.222e9, rel=1e-3)


@pytest.mark.parametrize(
    ("kv", "gigabytes"), [(None, 4.29), (Quantization(8, 64), 2.28), (Quantization(4, 64), 1.21)]
)
def test_keys_and_values_of_llama_at_32k(kv: Quantization | None, gigabytes: float) -> None:
    cost = step(real("llama-3.1-8b"), {}, 32768, setting=Setting(kv=kv))
    assert cost.cache.read_bytes / 1e9 == pytest.approx(gigabytes, abs=0.006)


@pytest.mark.parametrize(("bits", "faster"), [(8, 1.31), (4, 1.57)])
def test_quantized_keys_and_values_of_llama_beside_plain_ones(bits: int, faster: float) -> None:
    spec = real("llama-3.1-8b")
    formats = in_format(spec, Quantization(4, 64))
    packed = step(spec, formats, 32768, setting=Setting(kv=Quantization(bits, 64)))
    assert packed.tokens_per_s(100) / step(spec, formats, 32768).tokens_per_s(100) == pytest.approx(
        faster, abs=5e-3
    )


def test_nf4_of_llama_against_expanding_it() -> None:
    """KERNELS: 4.13 bits a weight, 8 % less than affine, 8.8 times less than dequantizing each time."""
    spec = real("llama-3.1-8b")
    formats = in_format(spec, Quantization(4, 64, "nf4"))
    ours, mlxs = (step(spec, formats, 1, setting=Setting(way=way)) for way in ("kernels", "mlx"))
    affine = step(spec, in_format(spec, Quantization(4, 64)), 1)
    weights = ours.total.operations / 2 - ours.cache.operations / 2
    assert 8 * ours.weights.read_bytes / weights == pytest.approx(4.129, abs=2e-3)
    assert milliseconds(ours) == [32.3, 14.2, 9.7, 7.1, 4.7]
    assert rates(ours) == [31.0, 70.5, 103.3, 140.9, 211.4]
    assert rates(mlxs) == [3.5, 8.1, 11.8, 16.1, 24.2]
    assert mlxs.total.moved_bytes / ours.total.moved_bytes == pytest.approx(8.75, abs=0.02)
    assert ours.weights.read_bytes / affine.weights.read_bytes == pytest.approx(0.918, abs=1e-3)


def test_q4_k_m_of_llama_as_it_lies_and_repacked() -> None:
    """KERNELS counts more bits in 12 of the 32 layers (4.55 GB); by llama.cpp's rule it is 16.

    Repacked it says 5.33 GB, with Q6_K in 9 bits; the loader expands Q6_K to 16, which is 6.80.
    """
    spec = real("llama-3.1-8b")
    formats = q4_k_m(spec)
    assert formats is not None
    six = {name for name, each in formats.items() if each == Quantization.of_blocks("q6_k")}
    layers = [int(name.split(".")[1]) for name in sorted(six) if name.endswith(".v.weight")]
    assert sorted(layers) == [*range(4), *range(6, 28, 3), *range(28, 32)]
    ours, mlxs = (step(spec, formats, 1, setting=Setting(way=way)) for way in ("kernels", "mlx"))
    assert ours.weights.read_bytes == pytest.approx(4.617e9, rel=1e-4)
    assert mlxs.weights.read_bytes == pytest.approx(6.797e9, rel=1e-4)
    assert 16 * ours.weights.read_bytes / ours.weights.operations == pytest.approx(4.92, abs=0.005)
    assert rates(ours) == [26.0, 59.1, 86.6, 118.3, 177.4]
    assert rates(mlxs) == [17.7, 40.2, 58.8, 80.3, 120.5]
    few = {
        name: Quantization.of_blocks("q4_k")
        if name in six and name.split(".")[1] in ("6", "12", "18", "24")
        else each
        for name, each in formats.items()
    }
    assert step(spec, few, 1).weights.read_bytes == pytest.approx(4.55e9, rel=1e-3)
    nine = {name: Quantization(8, 32) if name in six else Quantization(4, 32) for name in few}
    nine |= {name: Quantization(4, 32) for name in six if few[name] != formats[name]}
    assert step(spec, nine, 1).weights.read_bytes == pytest.approx(5.33e9, rel=1e-3)


def test_the_mix_is_told_of_dense_models_only() -> None:
    assert q4_k_m(real("qwen3-30b-a3b")) is None
    assert q4_k_m(real("mamba2-130m-hf")) is None
    tied = q4_k_m(real("qwen3-0.6b"))
    assert tied is not None
    assert tied["embed.weight"] == Quantization.of_blocks("q6_k")
    narrow = q4_k_m(real("smollm2-135m"))  # 576 wide
    assert narrow is not None
    assert narrow["layers.0.mixer.q.weight"] == Quantization.of_blocks("q5_0")
