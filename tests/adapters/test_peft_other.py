"""IA3 and prompt tuning in PEFT's files: its names and shapes, both ways, and what is refused."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from base_models import random_model
from tiny import config_of

from macllm.adapters.files import PEFT_WEIGHTS, Adapter, apply, read, taken, write_peft
from macllm.adapters.folder import CONFIG
from macllm.adapters.method import AnyMethod, Bottleneck, Scalings, Virtual
from macllm.errors import CheckpointError, ConfigError, OptionError
from macllm.families import spec_from_config
from macllm.nn.beside import learned, put_learned
from macllm.nn.decoder import Decoder
from macllm.tune.methods import attach

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (1, 9)))


def trained(variant: str, method: AnyMethod) -> tuple[Decoder, Adapter]:
    spec = spec_from_config(config_of(variant))
    model = random_model(spec)
    attach(model, spec, method)
    mx.random.seed(1)
    put_learned(
        model, {name: one + 0.2 * mx.random.normal(one.shape) for name, one in learned(model).items()}
    )
    return model, taken(model, method)


@pytest.mark.parametrize("variant", ["llama", "phi3", "mixtral", "olmo2"])
def test_ia3_goes_to_peft_and_back(variant: str, tmp_path: Path) -> None:
    model, adapter = trained(variant, Scalings())
    expected = model(TOKENS)
    write_peft(tmp_path, model.spec, adapter, "some/base")
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["peft_type"] == "IA3" and config["base_model_name_or_path"] == "some/base"
    assert set(config["feedforward_modules"]) < set(config["target_modules"])
    apply(model, read(tmp_path, model.spec))
    assert np.allclose(model(TOKENS), expected, atol=1e-4)


def test_ia3_has_the_names_and_shapes_of_peft(tmp_path: Path) -> None:
    model, adapter = trained("llama", Scalings())
    write_peft(tmp_path, model.spec, adapter)
    tensors = mx.load(str(tmp_path / PEFT_WEIGHTS))
    start = "base_model.model.model.layers.0"
    down = adapter.tensors["layers.0.channel.down.ia3_l"]
    assert mx.array_equal(tensors[f"{start}.mlp.down_proj.ia3_l"], down[None])
    values = adapter.tensors["layers.0.mixer.v.ia3_l"]
    assert mx.array_equal(tensors[f"{start}.self_attn.v_proj.ia3_l"], values[:, None])
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["target_modules"] == ["down_proj", "k_proj", "v_proj"]
    assert config["feedforward_modules"] == ["down_proj"]


def test_a_prompt_goes_to_peft_and_back(tmp_path: Path) -> None:
    model, adapter = trained("llama", Virtual("prompt", 4))
    expected = model(TOKENS)
    write_peft(tmp_path, model.spec, adapter)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["peft_type"], config["num_virtual_tokens"]) == ("PROMPT_TUNING", 4)
    assert {name: one.shape for name, one in mx.load(str(tmp_path / PEFT_WEIGHTS)).items()} == {
        "prompt_embeddings": (4, model.spec.dim)
    }
    found = read(tmp_path, model.spec)
    assert found.method == adapter.method
    apply(model, found)
    assert mx.array_equal(model(TOKENS), expected)


@pytest.mark.parametrize("method", [Bottleneck(2), Virtual("prefix", 2)], ids=lambda one: one.kind)
def test_what_peft_has_no_format_for_is_refused(method: AnyMethod, tmp_path: Path) -> None:
    model, adapter = trained("llama", method)
    with pytest.raises(OptionError, match=f"what {method.kind} learns cannot be written in PEFT's format"):
        write_peft(tmp_path, model.spec, adapter)


def test_files_of_another_base_are_refused_in_one_sentence(tmp_path: Path) -> None:
    model, adapter = trained("llama", Scalings())
    write_peft(tmp_path, model.spec, adapter)
    other = spec_from_config(config_of("llama", wide=True))
    with pytest.raises(CheckpointError, match=r"ia3_l has .* another base"):
        read(tmp_path, other)
    tensors = mx.load(str(tmp_path / PEFT_WEIGHTS))
    mx.save_safetensors(
        str(tmp_path / PEFT_WEIGHTS), {**tensors, "base_model.model.x.ia3_l": mx.ones((2, 1))}
    )
    with pytest.raises(CheckpointError, match=r"x is of a matrix that this model .* has no place for"):
        read(tmp_path, model.spec)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, "modules_to_save": ["lm_head"]}))
    with pytest.raises(ConfigError, match=r"modules_to_save=\['lm_head'\] is not supported"):
        read(tmp_path, model.spec)
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": "x"}))
    with pytest.raises(ConfigError, match=r"num_virtual_tokens='x' is not a whole number"):
        read(tmp_path, model.spec)


def test_prompts_of_models_that_scale_embeddings_stay_in_the_own_format(tmp_path: Path) -> None:
    model, adapter = trained("gemma", Virtual("prompt", 2))
    with pytest.raises(OptionError, match=r"family 'gemma' changes embeddings before its layers"):
        write_peft(tmp_path, model.spec, adapter)
