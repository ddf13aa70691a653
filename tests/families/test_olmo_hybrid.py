"""OLMo Hybrid with values wider than keys, as its models have them: transformers saves such convolutions wrongly."""

import json
from pathlib import Path

import mlx.core as mx
import tiny

from macllm.weights.model_files import open_model


def test_values_wider_than_keys(tmp_path: Path) -> None:
    """Written by transformers' layers, the convolution cut where keys end and values begin."""
    import torch
    from safetensors.torch import load_file, save_file

    config = {**tiny.config_of("olmo-hybrid"), "linear_key_head_dim": 6, "linear_value_head_dim": 12}
    original = tiny.write_model(config, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    for name in [name for name in tensors if name.endswith("q_conv1d.weight")]:
        parts = [name.replace("q_conv1d", f"{part}_conv1d") for part in "qkv"]
        whole = torch.cat([tensors[part] for part in parts])
        assert len({tensors[part].shape for part in parts}) == 1  # the reason for this test
        tensors |= dict(zip(parts, torch.split(whole, [36, 36, 72]), strict=True))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"}
    )
    ids = tiny.tokens(40)
    with torch.no_grad():
        expected = original(torch.tensor([ids])).logits.numpy()
    model = tiny.decoder(tmp_path)
    assert tiny.difference(model(mx.array([ids])), expected) < 1e-4
    caches = model.make_caches()
    steps = [model(mx.array([[token]]), caches) for token in ids]
    assert tiny.difference(mx.concatenate(steps, axis=1), expected) < 1e-4


def test_either_name_of_a_norm_is_read() -> None:
    """transformers saves the norms of linear layers under another name than mlx-lm's class has."""
    files = open_model(tiny.reference("olmo-hybrid").folder)
    assert files.naming.stored("layers.0.mixer_norm.weight") == (
        "model.layers.0.attention_layer_norm.weight",
    )
    config = json.loads((files.path / "config.json").read_text())
    assert config["rope_parameters"]["rope_theta"] is None
    assert files.spec.layers[3].mixer is not None
    assert files.spec.layers[3].mixer.rope is None
