"""Architectures without a native family are converted through mlx-lm, by the same call to the same files."""

import json
from pathlib import Path

import mlx.core as mx
import pytest
import tiny
import torch
from conversions import IDS, config, mlx_lm_logits, same_tensors, tensors
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model, quantize_model
from transformers import AutoConfig, AutoModelForCausalLM

from macllm.errors import CheckpointError, ConfigError, InputError, OptionError
from macllm.weights.convert import Event, Notice, Planned, convert
from macllm.weights.plan import Target

SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nemotron")
    torch.manual_seed(0)
    made = AutoConfig.for_model("nemotron", **tiny.BASE | SIZES | {"num_key_value_heads": 4, "head_dim": 32})
    AutoModelForCausalLM.from_config(made).to(torch.float32).save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    values |= {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "LICENSE").write_text("theirs")
    return folder


@pytest.mark.parametrize(
    "target", [Target(bits=4), Target(mode="mxfp4"), Target(recipe="mixed_3_6")], ids=str
)
def test_it_is_quantized_as_mlx_lm_does(target: Target, source: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    done = convert(source, tmp_path / "out", target, events.append)
    assert config(done.path)["quantization"]["mode"] == target.base.mode
    assert config(done.path)["quantization"]["group_size"] == target.base.group_size
    assert len(done.quantized) == 2 * 6 + 2
    assert tiny.difference(mlx_lm_logits(done.path), mlx_lm_logits(source)) < 1.0
    assert (done.path / "LICENSE").read_text() == "theirs"
    assert isinstance(events[0], Planned)
    assert any(isinstance(event, Notice) and "mlx-lm" in event.text for event in events)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("settings", [{"bits": 4}, {"mode": "mxfp4"}], ids=str)
def test_the_numbers_are_mlx_lms(settings: dict, source: Path, tmp_path: Path) -> None:
    model, values = load_model(source)
    model, _ = quantize_model(model, values, None, settings.get("bits"), settings.get("mode", "affine"))
    done = convert(source, tmp_path / "out", Target(**settings))
    assert same_tensors(tensors(done.path), dict(tree_flatten(model.parameters())))


def test_types_and_expansion(source: Path, tmp_path: Path) -> None:
    half = convert(source, tmp_path / "half", Target(dtype="float16"))
    assert {array.dtype for array in tensors(half.path).values()} == {mx.float16}
    packed = convert(source, tmp_path / "packed", Target(bits=8))
    plain = convert(packed.path, tmp_path / "plain", Target(dequantize=True))
    assert "quantization" not in config(plain.path)
    assert tiny.difference(mlx_lm_logits(plain.path), mlx_lm_logits(packed.path)) < 1e-4


def test_nothing_is_printed(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert(source, tmp_path / "out", Target(bits=4))
    assert capfd.readouterr().out == ""


def test_what_is_quantized_already_is_refused(source: Path, tmp_path: Path) -> None:
    packed = convert(source, tmp_path / "packed", Target(bits=8)).path
    with pytest.raises(OptionError, match="quantized already"):
        convert(packed, tmp_path / "out", Target(bits=4, requantize=True))


def test_a_rest_of_its_own_is_written_over_and_another_is_not(source: Path, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", Target(bits=4), stop)
    with pytest.raises(InputError, match="unfinished conversion"):
        convert(source, tmp_path / "out", Target(bits=8))
    done = convert(source, tmp_path / "out", Target(bits=4))
    assert mlx_lm_logits(done.path, IDS[:4]).shape == (1, 4, 99)


def test_what_nobody_knows_is_named(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unknown"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "perceptron"}))
    with pytest.raises(ConfigError, match="model_type='perceptron' is not supported"):
        convert(folder, tmp_path / "out")
    (folder / "config.json").write_text((source / "config.json").read_text())
    with pytest.raises(CheckpointError, match="unknown"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
