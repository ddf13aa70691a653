"""Parameters from a checkpoint: what does not fit the config is named; placement and progress."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tiny import decoder, reference, write_with_mlx_lm

from macllm.errors import CheckpointError
from macllm.nn.decoder import Decoder
from macllm.nn.stored import Dense, Packed
from macllm.weights.model_files import open_model
from macllm.weights.parameters import CheckpointParameters, Placement

Arrays = dict[str, mx.array]


def altered(folder: Path, change: Callable[[Arrays], Any], variant: str = "llama") -> Path:
    """The variant's folder with other tensors."""
    copy = shutil.copytree(reference(variant).folder, folder / "model")
    file = copy / "model.safetensors"
    arrays = mx.load(str(file))
    assert isinstance(arrays, dict)
    mx.eval(arrays)
    change(arrays)
    mx.save_safetensors(str(file), arrays)
    return copy


@pytest.mark.parametrize("variant", ["llama", "qwen2", "qwen3", "gemma3"])
def test_every_missing_tensor_is_named(variant: str, tmp_path: Path) -> None:
    names = [
        n for n in reference(variant).model.state_dict() if n.startswith(("model.layers.1.", "model.norm"))
    ]
    for index, name in enumerate(names):
        folder = altered(tmp_path / str(index), lambda arrays, name=name: arrays.pop(name), variant)
        with pytest.raises(CheckpointError, match=f"tensor '{name}' is missing"):
            decoder(folder)
        shutil.rmtree(folder)


def test_many_missing_tensors_are_counted(tmp_path: Path) -> None:
    def drop(arrays: Arrays) -> None:
        for name in [name for name in arrays if ".layers.2." in name]:
            del arrays[name]

    with pytest.raises(CheckpointError, match=r"9 tensors \('model\.layers\.2\..*, \.\.\.\) are missing"):
        decoder(altered(tmp_path, drop))


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_norm.weight", "model.layers.3.input_layernorm.weight", "visual.proj"]
)
def test_an_unexpected_tensor_is_named(name: str, tmp_path: Path) -> None:
    folder = altered(tmp_path, lambda arrays: arrays.update({name: mx.zeros((8,))}))
    with pytest.raises(CheckpointError, match=f"tensor '{name}' is not known to family 'llama'"):
        decoder(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    ],
)
def test_a_tensor_of_another_shape_is_named_with_both_shapes(name: str, tmp_path: Path) -> None:
    folder = altered(tmp_path, lambda arrays: arrays.update({name: arrays[name][:-1]}))
    with pytest.raises(CheckpointError, match=f"{name} has shape .* where the config asks for"):
        decoder(folder)


def test_what_checkpoints_carry_besides_is_passed_over(tmp_path: Path) -> None:
    def add(arrays: Arrays) -> None:
        arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = mx.zeros((4,))
        arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"]

    decoder(altered(tmp_path, add, "llama-tied"))


def test_a_config_of_another_model_is_noticed(tmp_path: Path) -> None:
    folder = shutil.copytree(reference("llama").folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for key, value, named in (
        ("num_hidden_layers", 4, "9 tensors"),
        ("num_hidden_layers", 2, "9 tensors"),
        ("vocab_size", 100, "shape"),
        (
            "tie_word_embeddings",
            True,
            None,
        ),  # the stored head is not the embedding's twin, but cannot be told
        ("attention_bias", True, "self_attn.q_proj.bias"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        if named is None:
            decoder(folder)
            continue
        with pytest.raises(CheckpointError, match=named):
            decoder(folder)


@pytest.mark.parametrize("quantization", [{}, {"bits": 4}])
@pytest.mark.parametrize("expand", [False, True])
def test_progress_counts_every_byte_once(quantization: dict[str, int], expand: bool, tmp_path: Path) -> None:
    write_with_mlx_lm("qwen2-tied", tmp_path, **quantization)
    files = open_model(tmp_path)
    checkpoint = files.checkpoint(mx.float32)
    seen: list[tuple[int, int]] = []
    placement = Placement(mx.float32, expand)
    Decoder(
        files.spec,
        CheckpointParameters(
            files.spec, checkpoint, files.naming, placement, lambda done, total: seen.append((done, total))
        ),
    )
    total = sum(checkpoint.nbytes(name) for name in checkpoint.names())
    done = [bytes_ for bytes_, _ in seen]
    assert {whole for _, whole in seen} == {total}
    assert done == sorted(done)
    assert done[-1] == total
    assert len(done) > 5


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("expand", [False, True])
def test_everything_is_placed_in_the_compute_type(dtype: mx.Dtype, expand: bool, tmp_path: Path) -> None:
    write_with_mlx_lm("gemma3", tmp_path, dtype="bfloat16", bits=4)
    model = decoder(tmp_path, dtype=dtype, expand=expand)
    for name, stored in model.tensors():
        if isinstance(stored, Packed):
            assert not expand
            assert stored.biases is not None
            assert {stored.scales.dtype, stored.biases.dtype} == {dtype}, name
        else:
            assert isinstance(stored, Dense)
            assert stored.array.dtype == dtype, name


def test_scales_of_the_eight_bit_float_modes_stay_bytes(tmp_path: Path) -> None:
    write_with_mlx_lm("llama", tmp_path, mode="mxfp8")
    packed = [
        stored for _, stored in decoder(tmp_path, dtype=mx.float16).tensors() if isinstance(stored, Packed)
    ]
    assert packed
    assert all(stored.scales.dtype == mx.uint8 and stored.biases is None for stored in packed)
