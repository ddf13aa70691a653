"""A GGUF's blocks kept as they lie in the file: the same answers as expanded, in exactly the file's bytes."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from gguf_maker import make_gguf, write_gguf
from tiny import config_of, difference, tokens

from macllm.backend import Backend
from macllm.engine.loading import load_model
from macllm.engine.placement import plan
from macllm.errors import InputError
from macllm.explain import explain
from macllm.families import spec_from_config
from macllm.kernels import dispatch
from macllm.kernels.harness.compile import find_clang
from macllm.kernels.harness.run import runner
from macllm.kernels.kernel import Launch
from macllm.kernels.permission import running_on
from macllm.nn.decoder import Decoder
from macllm.nn.stored import Dense, Packed
from macllm.quantization import BLOCKS, MLX_MODES, Mode
from macllm.weights.gguf.metadata import describe
from macllm.weights.gguf.names import gguf_naming
from macllm.weights.model_files import open_model
from macllm.weights.parameters import CPU_DENSE_ROWS, CheckpointParameters, Placement

KINDS = pytest.mark.parametrize("kind", BLOCKS)
TOLERANCE = 2e-5  # sums in another order
IDS = mx.array([tokens(10)])
Q4_K_M = {  # llama.cpp's mix
    "*norm.weight": "F32",
    "output.weight": "Q6_K",
    "blk.0.attn_v.weight": "Q6_K",
    "blk.0.ffn_down.weight": "Q6_K",
    "*.weight": "Q4_K",
}
MIXTURE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 256,
    "num_hidden_layers": 1,
    "head_dim": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CPU = Backend("cpu", "x86_64", 24 * 10**9, 19 * 10**9, "float32", "openblas")


@pytest.fixture(autouse=True)
def wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", "on")


def model(path: Path, kept: frozenset[Mode], **placement: Any) -> Decoder:
    files, placed = open_model(path), Placement(mx.float32, **placement)
    checkpoint = files.checkpoint(mx.float32, kept)
    return Decoder(files.spec, CheckpointParameters(files.spec, checkpoint, files.naming, placed))


def kept(path: Path, **placement: Any) -> Decoder:
    return model(path, dispatch.kept_blocks(mx.float32), **placement)


def expanded(path: Path) -> Decoder:
    return model(path, frozenset(), expand=True)


def logits(decoder: Decoder, ids: mx.array = IDS) -> np.ndarray:
    return np.array(decoder(ids))


def stored_bytes(path: Path) -> dict[str, bytes]:
    """The matrices of a file, by name."""
    file = open_model(path).gguf
    assert file is not None
    return {name: t.data().tobytes() for name, t in file.tensors.items() if len(t.shape) > 1}


def written_back(path: Path, decoder: Decoder) -> dict[str, bytes]:
    """The matrices under the file's names, as the model gives its tensors back."""
    files = open_model(path)
    tensors = dict(decoder.tensors())
    found = {}
    for relation in files.naming.relations():
        if relation.canonical[0].quantizable and all(t.name in tensors for t in relation.canonical):
            parts = relation.store([tensors[t.name] for t in relation.canonical])
            for name, part in zip(relation.stored, parts, strict=True):
                array = part.weight if isinstance(part, Packed) else part.array
                found[name] = np.array(array).tobytes()
    return found


def mixture(path: Path, kind: str, variant: str = "qwen3-moe", **changes: Any) -> Path:
    """A tiny random mixture of experts, all matrices but the routers of one type."""
    spec = spec_from_config(config_of(variant) | MIXTURE | changes)
    rng, description = np.random.default_rng(0), describe(spec)
    weights = {
        name: rng.normal(1.0 if "norm" in name else 0.0, 0.05, shape).astype(np.float32)
        for relation in gguf_naming(spec, description.architecture).relations()
        for name, shape in zip(relation.stored, relation.stored_shapes(), strict=True)
    }
    types = {"*norm.weight": "F32", "*gate_inp.weight": "F32", "*.weight": kind}
    keys = {key: value for key, value in description.keys.items() if key != "general.architecture"}
    return write_gguf(path, weights, types, arch=description.architecture, keys=keys).path


@KINDS
def test_answers_are_those_of_the_expanded_model(kind: Mode, tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "x.gguf", "llama", kind.upper(), tied=True, layers=1).path
    assert difference(logits(kept(path)), logits(expanded(path))) < TOLERANCE


@KINDS
def test_memory_is_exactly_the_file_s(kind: Mode, tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "x.gguf", "llama", kind.upper(), layers=1).path
    packed = [one for _, one in kept(path).tensors() if isinstance(one, Packed)]
    stored = stored_bytes(path)
    assert len(packed) == len(stored)
    assert {one.quantization.mode for one in packed} == {kind}
    assert sum(one.nbytes for one in packed) == sum(map(len, stored.values()))
    assert sum(one.quantization.nbytes(int(np.prod(one.shape))) for one in packed) == sum(
        one.nbytes for one in packed
    )


@KINDS
def test_blocks_come_back_byte_for_byte(kind: Mode, tmp_path: Path) -> None:
    """Through permuted heads, joined projections and the tied head."""
    path = make_gguf(tmp_path / "x.gguf", "llama", kind.upper(), tied=True, layers=1).path
    assert written_back(path, kept(path)) == stored_bytes(path)


@KINDS
def test_stacks_of_experts_stay_blocks(kind: Mode, tmp_path: Path) -> None:
    path = mixture(tmp_path / "x.gguf", kind.upper())
    decoder = kept(path)
    assert difference(logits(decoder), logits(expanded(path))) < TOLERANCE
    assert difference(logits(decoder, IDS[:, :1]), logits(expanded(path), IDS[:, :1])) < TOLERANCE
    experts = [one for name, one in decoder.tensors() if ".experts." in name and name.endswith("weight")]
    assert experts
    assert all(isinstance(one, Packed) and one.quantization.mode == kind for one in experts)
    back = written_back(path, decoder)
    assert back == {name: stored_bytes(path)[name] for name in back}


def test_experts_in_mxfp4_stay_in_the_mode_that_mlx_has(tmp_path: Path) -> None:
    path = mixture(tmp_path / "x.gguf", "MXFP4")
    experts = [one for name, one in kept(path).tensors() if ".experts." in name and name.endswith("weight")]
    assert experts
    assert all(isinstance(one, Packed) and one.quantization.mode == "mxfp4" for one in experts)
    assert difference(logits(kept(path)), logits(expanded(path))) < TOLERANCE


def test_a_mix_of_types_keeps_each(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "x.gguf", "llama", Q4_K_M).path
    decoder = kept(path, dense_rows=CPU_DENSE_ROWS)
    for length in (1, 3, 10):
        assert (
            difference(logits(decoder, IDS[:, :length]), logits(expanded(path), IDS[:, :length])) < TOLERANCE
        )
    assert written_back(path, decoder) == stored_bytes(path)
    packed = [one for _, one in decoder.tensors() if isinstance(one, Packed)]
    assert {one.quantization.mode for one in packed} == {"q4_k", "q6_k"}


def test_types_without_a_kernel_are_read_as_ever(tmp_path: Path) -> None:
    types = {"*norm.weight": "F32", "*ffn*": "IQ3_S", "*attn*": "F16", "*.weight": "Q8_0"}
    path = make_gguf(tmp_path / "x.gguf", "llama", types).path
    tensors = dict(kept(path).tensors())
    assert isinstance(tensors["layers.0.channel.down.weight"], Dense)
    assert isinstance(tensors["layers.0.mixer.o.weight"], Dense)
    assert isinstance(tensors["embed.weight"], Packed)
    assert difference(logits(kept(path)), logits(expanded(path))) < TOLERANCE


@pytest.mark.parametrize("setting", ["off", "auto"])
def test_blocks_are_kept_only_where_kernels_are_wanted_or_known(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a device nothing is known of kernels: MLX's own modes, as ever."""
    monkeypatch.setenv("MACLLM_KERNELS", setting)
    path = make_gguf(tmp_path / "x.gguf", "llama", Q4_K_M).path
    modes = {one.quantization.mode for _, one in kept(path).tensors() if isinstance(one, Packed)}
    assert modes == {"affine"} <= MLX_MODES


def test_the_estimate_and_explain_count_the_file_s_bytes(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "x.gguf", "llama", Q4_K_M).path
    files, stored = open_model(path), stored_bytes(path)
    assert files.gguf is not None
    vectors = sum(t.nbytes for t in files.gguf.tensors.values() if len(t.shape) == 1)  # in 32 bits
    checkpoint = files.checkpoint(mx.float32, dispatch.kept_blocks(mx.float32))
    placed = plan(files.spec, checkpoint, files.naming, CPU)
    assert not placed.placement.expand
    assert placed.weight_bytes == sum(map(len, stored.values())) + vectors
    placements = {each.format: each.placement for each in explain(files).placements}
    assert placements == {
        "Q4_K": "kept as it lies in the file",
        "Q6_K": "kept as it lies in the file",
        "F32": "kept as stored",
    }


def test_a_whole_load_keeps_blocks(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "x.gguf", "llama", Q4_K_M).path
    loaded = load_model(path, dtype="float32").model
    assert isinstance(loaded, Decoder)
    assert difference(logits(loaded), logits(expanded(path))) < TOLERANCE
    assert written_back(path, loaded) == stored_bytes(path)


def test_a_model_of_blocks_runs_as_metal(tmp_path: Path) -> None:
    """A token, a few drafted ones and a prompt, through the very text that a Mac compiles."""
    try:
        find_clang()
    except InputError as error:
        pytest.skip(f"needs clang: {error}")
    path = make_gguf(tmp_path / "x.gguf", "llama", Q4_K_M, layers=1).path
    expected, run, ran = expanded(path), runner(), set[str]()

    def noting(launch: Launch) -> list[mx.array]:
        ran.add(launch.body.name)
        return run(launch)

    with running_on(noting):
        decoder = kept(path)
        for length in (1, 3, 10):
            ids = IDS[:, :length]
            assert difference(logits(decoder, ids), logits(expected, ids)) < TOLERANCE
    wanted = {"q4_k_matvec", "q4_k_dequantize", "q6_k_matvec", "q6_k_dequantize"}
    assert wanted <= ran
