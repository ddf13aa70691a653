"""gpt-oss as it is published: experts in blocks of MXFP4, read as MLX packs them, against transformers and mlx-lm."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from tiny import decoder, difference, read_config, tokens

from macllm.errors import CheckpointError, ConfigError
from macllm.nn.stored import Packed
from macllm.quantization import Quantization
from macllm.sizes import weight_bytes
from macllm.weights.model_files import open_model

VARIANT = "gpt-oss-truncated-yarn"  # mlx-lm always truncates YaRN's ramp
TOLERANCE = 5e-5  # measured: 2e-5; the clamped gate lets values grow to hundreds before the last norm
MXFP4 = Quantization(4, 32, "mxfp4")
PUBLISHED = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
}
IDS = [tokens(20), tokens(20, seed=1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small gpt-oss as its authors published theirs."""
    source, target = tiny.reference(VARIANT, wide=True).folder, tmp_path_factory.mktemp("published")
    weights: dict[str, mx.array] = {}
    for name, array in mx.load(str(source / "model.safetensors")).items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            packed, scales = mx.quantize(array.swapaxes(-1, -2), mode="mxfp4")
            weights[f"{name}_blocks"] = packed.view(mx.uint8).reshape(*scales.shape, 16)
            weights[f"{name}_scales"] = scales
        else:
            weights[name] = array
    mx.save_safetensors(str(target / "model.safetensors"), weights, {"format": "pt"})
    config = {**tiny.config_of(VARIANT, wide=True), "quantization_config": PUBLISHED}
    (target / "config.json").write_text(json.dumps(config))
    return target


def dequantized(folder: Path) -> dict[str, Any]:
    """The experts of the folder as transformers expands them, under their names in its model."""
    import torch
    from safetensors.torch import load_file
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    stored = load_file(folder / "model.safetensors")
    return {
        name.removesuffix("_blocks"): convert_moe_packed_tensors(
            blocks, stored[name.replace("_blocks", "_scales")], dtype=torch.float32
        ).numpy()
        for name, blocks in stored.items()
        if name.endswith("_blocks")
    }


def test_experts_stay_packed_and_mean_what_transformers_expands(folder: Path) -> None:
    model = decoder(folder)
    expected = dequantized(folder)
    found = {name: stored for name, stored in model.tensors() if ".experts." in name and "weight" in name}
    assert len(found) == 3 * len(model.spec.layers)
    for name, stored in found.items():
        assert isinstance(stored, Packed)
        assert stored.quantization == MXFP4
        layer, kind = name.split(".")[1], name.split(".")[4]
        whole = expected[f"model.layers.{layer}.mlp.experts.{'down' if kind == 'down' else 'gate_up'}_proj"]
        rows = {"gate": whole[..., ::2], "up": whole[..., 1::2], "down": whole}[kind].swapaxes(1, 2)
        assert np.array_equal(np.array(stored.dequantize(mx.float32)), rows)


def test_logits_equal_transformers(folder: Path) -> None:
    import torch

    original = tiny.write_model(tiny.config_of(VARIANT, wide=True), folder.parent / "same")
    with torch.no_grad():
        for name, values in dequantized(folder).items():
            original.get_parameter(name).copy_(torch.as_tensor(values))
        expected = original(torch.tensor(IDS)).logits.numpy()
    for placement in ({}, {"expand": True}):
        assert difference(decoder(folder, **placement)(mx.array(IDS)), expected) < TOLERANCE


def test_mlx_lm_reads_the_same_and_what_it_saves_is_read(folder: Path, tmp_path: Path) -> None:
    from mlx_lm.utils import load_model, save_config, save_model

    theirs, config = load_model(folder)
    expected = np.array(theirs(mx.array(IDS)))
    save_model(tmp_path, theirs)
    save_config(config, tmp_path / "config.json")
    for each in (folder, tmp_path):
        assert difference(decoder(each)(mx.array(IDS)), expected) < TOLERANCE


def test_bytes_are_known_from_the_config(folder: Path) -> None:
    files = open_model(folder)
    formats = files.formats()
    assert {name for name, packing in formats.items() if packing == MXFP4} == {
        tensor.name
        for tensor in files.spec.tensors()
        if ".experts." in tensor.name and tensor.kind == "stack"
    }
    checkpoint = files.checkpoint(mx.float32)
    assert weight_bytes(files.spec, formats, 4) == sum(map(checkpoint.nbytes, checkpoint.names()))


def test_missing_scales_are_named(folder: Path, tmp_path: Path) -> None:
    weights = mx.load(str(folder / "model.safetensors"))
    del weights["model.layers.1.mlp.experts.down_proj_scales"]
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    (tmp_path / "config.json").write_text(json.dumps(read_config(folder)))
    with pytest.raises(
        CheckpointError, match=r"'model\.layers\.1\.mlp\.experts\.down_proj_scales' is missing"
    ):
        decoder(tmp_path)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}, "'fp8'"),
        ({"bits": 4}, "'of an unknown kind'"),
    ],
)
def test_other_tools_quantizations_are_refused_by_name(
    entry: dict[str, Any], named: str, folder: Path
) -> None:
    config = {**read_config(folder), "quantization_config": entry}
    with pytest.raises(
        ConfigError, match=f"quantization {named} cannot be read; use the model's MLX, GGUF or 16-bit"
    ):
        decoder(folder, config)
