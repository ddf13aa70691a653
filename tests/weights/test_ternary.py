"""BitNet's ternary weights, packed or rounded at load, against transformers' layers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import BASE, decoder, difference, reference, write_model

from macllm.errors import CheckpointError, ConfigError, InputError
from macllm.nn.linear import RoundedLinear, rounded
from macllm.nn.stored import Dense, Packed
from macllm.quantization import TERNARY
from macllm.weights import ternary
from macllm.weights.convert import convert
from macllm.weights.model_files import open_model

KINDS = [("autobitlinear", "offline"), ("autobitlinear", "online"), ("bitlinear", "offline")]
ROWS = np.random.default_rng(0).integers(0, BASE["vocab_size"], size=(24, 4)).tolist()


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """transformers compiles its rounding, which takes a C++ compiler and minutes."""
    import torch

    before = torch._dynamo.config.disable
    torch._dynamo.config.disable = True
    yield
    torch._dynamo.config.disable = before


def config_of(model_type: str, width: int, linear_class: str, mode: str) -> dict[str, Any]:
    return {
        **BASE,
        "model_type": model_type,
        "hidden_act": "relu2" if model_type == "bitnet" else "silu",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "rope_theta": 10_000.0,
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": linear_class,
            "quantization_mode": mode,
            "modules_to_not_convert": None,
        },
    }


def write_ternary(folder: Path, config: dict[str, Any]) -> Any:
    """A random model in transformers with the layers that the config asks for; the folder as its authors store it."""
    import torch
    from safetensors.torch import save_file
    from transformers.integrations.bitnet import pack_weights, replace_with_bitnet_linear, unpack_weights
    from transformers.utils.quantization_config import BitNetQuantConfig

    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    settings = BitNetQuantConfig(**config["quantization_config"])
    packed = (settings.linear_class, settings.quantization_mode) != ("autobitlinear", "online")
    model = write_model(plain, folder)
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {
        "lm_head"
    }
    stored, given = {}, {}
    for name, tensor in model.state_dict().items():
        module = name.removesuffix(".weight")
        stored[name] = given[name] = tensor.clone()
        if packed and module in linears:
            stored[name] = given[name] = pack_weights(torch.randint(-1, 2, tensor.shape))
            scale = torch.rand(1) * 0.2 + 0.1
            stored[f"{module}.weight_scale"] = 1 / scale if settings.linear_class == "bitlinear" else scale
            given[f"{module}.weight_scale"] = stored[f"{module}.weight_scale"]
            if settings.linear_class == "autobitlinear":
                given[name] = unpack_weights(stored[name], torch.float32)
    replace_with_bitnet_linear(model, ["lm_head"], settings)
    model.load_state_dict(given, assign=True)
    for module in model.modules():
        if type(module).__name__ == "BitLinear":
            module.dtype = torch.float32
    for file in folder.iterdir():
        file.unlink()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return model.eval()


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("width", [48, 128], ids=["plain", "packed"])
@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
def test_logits_are_the_originals(
    model_type: str, width: int, kind: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the prompts in which a value lies so near the middle of two steps that its last digit decides."""
    import torch

    original = write_ternary(tmp_path, config_of(model_type, width, *kind))
    with torch.no_grad():
        expected = original(torch.tensor(ROWS)).logits.numpy()

    def apart(model: Any) -> np.ndarray:
        found = np.array(model(mx.array(ROWS)))
        result: np.ndarray = np.abs(found - expected).max(axis=(1, 2)) / np.abs(expected).max()
        return result

    model = decoder(tmp_path)
    assert (apart(model) < 1e-5).mean() > 0.6
    assert apart(model).max() < 0.1
    assert (apart(decoder(tmp_path, expand=True)) < 1e-5).mean() > 0.6
    stored = dict(model.tensors())
    assert isinstance(stored["layers.0.channel.down.weight"], Packed if width == 128 else Dense)
    assert isinstance(stored["head.weight"], Dense)
    monkeypatch.setattr(RoundedLinear, "__call__", lambda layer, x: layer.inner(x))
    assert (apart(model) > 1e-4).all()  # the rounding is seen


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_a_layer_is_the_originals(kind: tuple[str, str], tmp_path: Path) -> None:
    import torch

    original = write_ternary(tmp_path, config_of("bitnet", 128, *kind)).model.layers[1].mlp.down_proj
    x = np.random.default_rng(1).normal(size=(3, 7, 256)).astype(np.float32)
    with torch.no_grad():
        expected = original(torch.tensor(x)).numpy()
    layer = decoder(tmp_path).layers[1].channel.down
    assert isinstance(layer, RoundedLinear)
    assert difference(layer(mx.array(x)), expected) < 5e-6


def test_codes_come_out_exactly() -> None:
    import torch
    from transformers.integrations.bitnet import pack_weights

    values = torch.randint(-1, 2, (12, 256))
    codes = ternary.unpacked(mx.array(pack_weights(values.clone()).numpy()))
    assert np.array_equal(np.array(codes).astype(int) - 1, values.numpy())
    magnitude = mx.array([0.123])
    stored = ternary._stored(codes, magnitude)
    assert isinstance(stored, Packed)
    assert stored.quantization == TERNARY
    expected = magnitude * mx.array(values.numpy().astype(np.float32))
    assert mx.array_equal(stored.dequantize(mx.float32), expected)
    assert mx.array_equal(mx.dequantize(*stored.arrays(), TERNARY.group_size, TERNARY.bits), expected)


def test_rounding_keeps_the_type_and_silence() -> None:
    x = mx.array([[0.0, 0.0], [1.0, -0.3]], dtype=mx.bfloat16)
    found = rounded(x)
    assert found.dtype == mx.bfloat16
    assert np.allclose(np.array(found.astype(mx.float32)), [[0, 0], [1, -38 / 127]], atol=2e-3)


def test_bytes_are_known_from_the_config(tmp_path: Path) -> None:
    write_ternary(tmp_path, config_of("bitnet", 128, "autobitlinear", "offline"))
    files = open_model(tmp_path)
    held = {
        name: s.quantization if isinstance(s, Packed) else None for name, s in decoder(tmp_path).tensors()
    }
    assert files.formats() == {name: held[name] for name in files.formats()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("linear_class", "other"),
        ("quantization_mode", "later"),
        ("use_rms_norm", True),
        ("modules_to_not_convert", ["lm_head", "model.layers.0"]),
    ],
)
def test_what_is_not_supported_is_named(key: str, value: Any, tmp_path: Path) -> None:
    config = config_of("bitnet", 48, "autobitlinear", "offline")
    config["quantization_config"][key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=f"{key}="):
        _ = open_model(tmp_path).plan


def with_quantization(variant: str, folder: Path) -> Path:
    """A plain folder whose config says that its weights are packed."""
    source = reference(variant).folder
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(source / "model.safetensors")
    entry = config_of("llama", 48, "autobitlinear", "offline")["quantization_config"]
    config = json.loads((source / "config.json").read_text()) | {"quantization_config": entry}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_other_weights_and_other_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has shape|stored as F32"):
        decoder(with_quantization("bitnet", tmp_path / "plain"))
    with pytest.raises(CheckpointError, match="not supported for family 'mixtral'"):
        decoder(with_quantization("mixtral", tmp_path / "experts"))


def test_there_is_nothing_to_convert(tmp_path: Path) -> None:
    write_ternary(tmp_path, config_of("bitnet", 48, "autobitlinear", "offline"))
    with pytest.raises(InputError, match="ternary"):
        convert(tmp_path, tmp_path / "out")
