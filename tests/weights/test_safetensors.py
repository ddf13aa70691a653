"""Safetensors folders: what mlx-lm writes is read with equal logits; damage is named and never crashes."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import config_of, decoder, difference, reference, tokens, write_with_mlx_lm

from macllm.errors import CheckpointError, ConfigError, InputError, SourceError
from macllm.weights.model_files import open_model
from macllm.weights.safetensors import SafetensorsCheckpoint

TOLERANCE = 2e-5
IDS = tokens(8)  # shorter than every window: mlx-lm has no sliding layers for some families
INDEX = "model.safetensors.index.json"


def same_logits_as_mlx_lm(folder: Path, model: Any) -> None:
    expected = model(mx.array([IDS]))
    assert difference(decoder(folder)(mx.array([IDS])), expected) < TOLERANCE


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_affine_folders_of_mlx_lm(bits: int, group_size: int, tmp_path: Path) -> None:
    model = write_with_mlx_lm("llama", tmp_path, bits=bits, group_size=group_size)
    same_logits_as_mlx_lm(tmp_path, model)


@pytest.mark.parametrize("variant", ["llama", "qwen2-tied"])
@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_other_modes_of_mlx_lm(variant: str, mode: str, tmp_path: Path) -> None:
    same_logits_as_mlx_lm(tmp_path, write_with_mlx_lm(variant, tmp_path, mode=mode))


FAMILIES = [
    "llama-biases",
    "llama-tied",
    "llama3-rope",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3-tied",
    "gemma3-pattern",
]


@pytest.mark.parametrize("variant", FAMILIES)
@pytest.mark.parametrize("quantization", [{}, {"bits": 4, "group_size": 32}], ids=["plain", "packed"])
def test_every_family_as_mlx_lm_writes_it(variant: str, quantization: dict[str, int], tmp_path: Path) -> None:
    same_logits_as_mlx_lm(tmp_path, write_with_mlx_lm(variant, tmp_path, **quantization))


def by_layer(path: str, module: object) -> bool | dict[str, Any]:
    if "layers.0" in path:
        return {"bits": 8, "group_size": 32, "mode": "affine"}
    if path.endswith(("q_proj", "embed_tokens")):
        return {"bits": 4, "group_size": 32, "mode": "mxfp4"}
    return not path.endswith(("k_proj", "down_proj"))


@pytest.mark.parametrize("variant", ["llama", "qwen2-tied", "gemma3-pattern"])
def test_bits_and_modes_by_layer(variant: str, tmp_path: Path) -> None:
    model = write_with_mlx_lm(variant, tmp_path, bits=3, group_size=64, predicate=by_layer)
    same_logits_as_mlx_lm(tmp_path, model)
    checkpoint = open_model(tmp_path).checkpoint(mx.float32)
    assert {checkpoint.placement(name) for name in checkpoint.names()} == {
        "affine 8-bit, groups of 32",
        "affine 3-bit, groups of 64",
        "mxfp4 4-bit, groups of 32",
        "f32",
    }


@pytest.mark.parametrize("quantization", [{}, {"bits": 4}], ids=["plain", "packed"])
def test_shards_are_one_model(
    quantization: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_lm import utils

    whole = utils.make_shards
    monkeypatch.setattr(utils, "make_shards", lambda weights: [dict([pair]) for pair in weights.items()])
    model = write_with_mlx_lm("qwen2", tmp_path / "many", **quantization)
    monkeypatch.setattr(utils, "make_shards", whole)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 20
    same_logits_as_mlx_lm(tmp_path / "many", model)


def test_sizes_are_those_of_the_file(tmp_path: Path) -> None:
    write_with_mlx_lm("llama", tmp_path, bits=4)
    checkpoint = open_model(tmp_path).checkpoint(mx.float32)
    total = json.loads((tmp_path / INDEX).read_text())["metadata"]["total_size"]
    assert sum(checkpoint.nbytes(name) for name in checkpoint.names()) == total
    assert all(checkpoint.read(n).shape == checkpoint.shape(n) for n in checkpoint.names())
    assert all(checkpoint.read_dense(n, mx.float16).dtype == mx.float16 for n in checkpoint.names())


def test_other_weights_beside_the_model_are_left_alone(tmp_path: Path) -> None:
    folder = shutil.copytree(reference("llama").folder, tmp_path / "model")
    mx.save_safetensors(str(folder / "consolidated.safetensors"), {"layers.0.wq": mx.zeros((2, 2))})
    assert "layers.0.wq" not in open_model(folder).checkpoint(mx.float32).names()
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(folder / "model.safetensors", only / "weights.safetensors")
    assert "model.norm.weight" in SafetensorsCheckpoint(only, {}).names()


# -- damage ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    arrays = {
        "model.norm.weight": mx.arange(16, dtype=mx.float32),
        "a.weight": mx.ones((4, 8), mx.bfloat16),
        "b.weight": mx.zeros((3, 3), mx.float16),
    }
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "mlx"})
    return folder


def read_all(folder: Path) -> None:
    checkpoint = SafetensorsCheckpoint(folder, {})
    for name in checkpoint.names():
        mx.eval(checkpoint.read_dense(name, mx.float32))


FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_named(whole: Path, tmp_path: Path, share: float) -> None:
    raw = (whole / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*download it again"):
        SafetensorsCheckpoint(tmp_path, {})


@FUZZ
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_header_is_read_or_refused(whole: Path, tmp_path: Path, place: int, change: int) -> None:
    raw = bytearray((whole / "model.safetensors").read_bytes())
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    raw[place % header] ^= change
    (tmp_path / "model.safetensors").write_bytes(raw)
    try:
        read_all(tmp_path)
    except InputError as error:
        assert str(tmp_path) in str(error) or "model.safetensors" in str(error)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}},
        {"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "data_offsets": [0, 4]}},
        {"a": {"dtype": "NEW", "shape": [1], "data_offsets": [0, 4]}},
        {"a": 5},
        [1, 2],
    ],
)
def test_a_header_that_lies_is_refused(header: Any, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_all(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_with_mlx_lm("llama", tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "model-00002-of-00002.safetensors"
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        decoder(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"a": 1}}', "\udcff"])
def test_an_index_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=rf"{INDEX}: this is not an index"):
        SafetensorsCheckpoint(tmp_path, {})


def test_a_folder_without_weights_or_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no \.safetensors file"):
        SafetensorsCheckpoint(tmp_path, {})
    with pytest.raises(ConfigError, match=r"there is no config\.json"):
        open_model(tmp_path)
    with pytest.raises(SourceError, match="there is no such file or folder"):
        open_model(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="this is not a model"):
        open_model(tmp_path / "notes.txt")


def test_a_gguf_beside_a_config_is_the_model_where_there_is_nothing_else(tmp_path: Path) -> None:
    from gguf_maker import make_gguf

    made = make_gguf(tmp_path / "tiny.gguf").path
    assert open_model(tmp_path).gguf is not None
    (tmp_path / "config.json").write_text(json.dumps(config_of("qwen2")))
    assert open_model(tmp_path).gguf is not None
    shutil.copy(reference("llama").folder / "model.safetensors", tmp_path)
    assert open_model(tmp_path).gguf is None
    assert open_model(made).gguf is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '"llama"', "\udcff\udcfe"])
def test_a_config_that_is_no_json_object_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"config\.json: this is not .*JSON"):
        open_model(tmp_path)


# -- quantization that does not go with the weights -----------------------------------------------------------


def with_config(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors"])
def test_another_tools_quantization_is_refused_by_name(method: str, tmp_path: Path) -> None:
    entry = {"quant_method": method, "bits": 4, "group_size": 128}
    folder = shutil.copytree(reference("llama").folder, tmp_path / "model")
    with pytest.raises(ConfigError, match=f"quantization '{method}' cannot be read"):
        decoder(with_config(folder, quantization_config=entry))


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"group_size": 64, "bits": 7}, "bits=7"),
        ({"group_size": 48, "bits": 4}, "group_size=48"),
        ({"group_size": 64, "bits": 4, "mode": "int4"}, "mode='int4'"),
        ({"group_size": 64, "bits": 4, "mode": "mxfp4"}, "mxfp4"),
        ({"group_size": 64, "bits": 4, "model.norm": {"bits": 9, "group_size": 64}}, "model.norm: bits=9"),
        ({"bits": 4}, "quantization"),
        ("4bit", "'4bit'"),
        ([4], "[4]"),
    ],
)
def test_a_quantization_that_mlx_lacks_is_refused_by_value(entry: Any, named: str, tmp_path: Path) -> None:
    folder = shutil.copytree(reference("llama").folder, tmp_path / "model")
    with pytest.raises(ConfigError) as caught:
        decoder(with_config(folder, quantization=entry))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [{"group_size": 64, "bits": 8}, {"group_size": 32, "bits": 4}, {"group_size": 32, "mode": "mxfp4"}],
)
def test_a_config_of_another_packing_is_noticed(entry: dict[str, Any], tmp_path: Path) -> None:
    write_with_mlx_lm("llama", tmp_path, bits=4, group_size=64)
    with pytest.raises(CheckpointError, match="take the config"):
        decoder(with_config(tmp_path, quantization=entry))


def test_packed_weights_without_a_word_in_the_config(tmp_path: Path) -> None:
    write_with_mlx_lm("llama", tmp_path, bits=4)
    with pytest.raises(CheckpointError, match=r"is quantized but config\.json says nothing"):
        decoder(with_config(tmp_path, quantization=None, quantization_config=None))


def test_integer_weights_are_not_taken_for_numbers(tmp_path: Path) -> None:
    folder = shutil.copytree(reference("llama").folder, tmp_path / "model")
    file = folder / "model.safetensors"
    arrays = mx.load(str(file))
    name = "model.layers.0.mlp.down_proj.weight"
    arrays[name] = mx.zeros(arrays[name].shape, mx.int8)
    mx.eval(arrays)
    mx.save_safetensors(str(file), arrays)
    with pytest.raises(CheckpointError, match=f"{name} is stored as I8"):
        decoder(folder)


def test_a_tensor_is_read_once_and_can_be_read_again(whole: Path) -> None:
    checkpoint = SafetensorsCheckpoint(whole, {})
    first, second = (np.array(checkpoint.read_dense("model.norm.weight", mx.float32)) for _ in range(2))
    assert (first == second).all()
    with pytest.raises(CheckpointError, match="tensor 'nothing' is missing"):
        checkpoint.read("nothing")


def test_the_config_form_of_mlx_lm_is_the_repositories(tmp_path: Path) -> None:
    write_with_mlx_lm("qwen3", tmp_path, bits=4)
    spec = open_model(tmp_path).spec
    assert spec.dim == config_of("qwen3", wide=True)["hidden_size"]
    assert set(open_model(tmp_path).formats()) == {t.name for t in spec.tensors() if t.quantizable}


def test_missing_scales_are_named(tmp_path: Path) -> None:
    write_with_mlx_lm("llama", tmp_path, bits=4, group_size=64)
    file = tmp_path / "model.safetensors"
    arrays = mx.load(str(file))
    assert isinstance(arrays, dict)
    name = "model.layers.1.mlp.up_proj.scales"
    kept = {key: array for key, array in arrays.items() if key != name}
    mx.save_safetensors(str(tmp_path / "kept.safetensors"), kept)
    (tmp_path / "kept.safetensors").replace(file)
    with pytest.raises(CheckpointError, match=rf"tensor '{name}' is missing"):
        decoder(tmp_path)
