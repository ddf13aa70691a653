"""The text models of multimodal repositories: read, computed and converted as if they stood alone."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from conversions import IDS, config, macllm_logits, same_tensors, tensors

from macllm.cli.main import main
from macllm.errors import CheckpointError, ConfigError
from macllm.families import is_native, spec_from_config
from macllm.families.multimodal import TEXT_PARTS
from macllm.families.registry import FAMILIES
from macllm.weights.convert import convert
from macllm.weights.plan import Target

# architecture -> a variant of its text model
TEXTS = {
    "gemma3": "gemma3-pattern",
    "gemma3n": "gemma3n",
    "gemma4": "gemma4-experts",
    "llama4": "llama4-scout",
    "mistral3": "ministral3",
    "qwen3_5": "qwen3-5",
    "qwen3_5_moe": "qwen3-5-moe",
}
OUTSIDE = {
    "vision_config": {"hidden_size": 16},
    "image_token_id": 98,
    "boi_token_index": 97,
    "mm_tokens_per_image": 4,
    "spatial_merge_size": 2,
}
IMAGES = {"vision_tower.patch.weight": mx.zeros((2, 2)), "model.visual.blocks.0.norm.bias": mx.zeros(2)}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


def idle_keys() -> dict[str, mx.array]:
    """Projections that the layers of the variant of Gemma 3n have no use for."""
    shapes = {"k_proj": (32, 48), "v_proj": (32, 48), "k_norm": (16,)}
    return {
        f"model.layers.{layer}.self_attn.{name}.weight": mx.random.normal(shape, key=mx.random.key(layer))
        for layer in (4, 5, 6)
        for name, shape in shapes.items()
    }


def nested(architecture: str, folder: Path, *, older: bool, **changes: Any) -> Path:
    """The variant's folder as part of a multimodal one, its tensors named as before transformers 5 or since."""
    source = tiny.reference(TEXTS[architecture]).folder
    alone = tensors(source) | (idle_keys() if architecture == "gemma3n" else {})

    def moved(name: str) -> str:
        if older:
            return f"language_model.{name}"
        return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name

    folder.mkdir()
    inside = {moved(name): tensor for name, tensor in alone.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), inside | IMAGES, {"format": "pt"})
    values = {"model_type": architecture, **OUTSIDE, "text_config": config(source), **changes}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_every_text_model_is_of_a_family() -> None:
    assert set(TEXTS) == set(TEXT_PARTS)
    assert {part.model_type for part in TEXT_PARTS.values()} <= set(FAMILIES)


@pytest.mark.parametrize("older", [True, False], ids=["older-names", "newer-names"])
@pytest.mark.parametrize("architecture", TEXTS)
def test_the_part_computes_what_it_does_alone(architecture: str, older: bool, tmp_path: Path) -> None:
    folder = nested(architecture, tmp_path / "in", older=older)
    expected = macllm_logits(tiny.reference(TEXTS[architecture]).folder)
    assert tiny.difference(macllm_logits(folder), expected) < 1e-6
    done = convert(folder, tmp_path / "out")
    assert tiny.difference(macllm_logits(done.path), expected) < 1e-6
    assert f"of {architecture} this is the text part: it sees and hears nothing" in done.notices


@pytest.mark.parametrize("architecture", TEXTS)
def test_mlx_lm_reads_what_is_converted(architecture: str, tmp_path: Path) -> None:
    done = convert(nested(architecture, tmp_path / "in", older=False), tmp_path / "out")
    limit = (
        5e-3 if architecture.startswith("gemma3") else 1e-4
    )  # it rounds their embedding's scale to bfloat16
    assert tiny.difference(cached_mlx_lm_logits(done.path), macllm_logits(done.path)) < limit


def cached_mlx_lm_logits(folder: Path) -> np.ndarray:
    """With caches: without them its Gemma 3n lets layers that share keys make their own."""
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    return np.array(model(mx.array([IDS]), cache=make_prompt_cache(model)).astype(mx.float32))


@pytest.mark.parametrize("older", [True, False])
def test_keys_that_no_layer_uses_are_carried_along(older: bool, tmp_path: Path) -> None:
    """Published checkpoints of Gemma 3n have them, and mlx-lm's class asks for them."""
    done = convert(
        nested("gemma3n", tmp_path / "in", older=older), tmp_path / "out", Target(bits=8, group_size=32)
    )
    written = tensors(done.path)
    for name, tensor in idle_keys().items():
        found = written[name.replace("model.", "model.language_model.", 1)]
        assert tiny.difference(found.astype(mx.float32), tensor) < 1e-2  # in 16 bits
    again = convert(done.path, tmp_path / "again")
    assert same_tensors(tensors(again.path), written)


def gemma3() -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {**tiny.BASE, "head_dim": 16, "sliding_window": 8}
    vision = {**VISION, "image_size": 28, "patch_size": 14}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision))


def mistral3() -> Any:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = {**tiny.BASE, "model_type": "mistral", "sliding_window": None}
    vision = {**VISION, "model_type": "pixtral", "image_size": 28, "patch_size": 14}
    values = Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    return Mistral3ForConditionalGeneration(values)


def qwen3_5() -> Any:
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    text = {key: value for key, value in tiny.config_of("qwen3-5").items() if key != "model_type"}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "out_hidden_size": 48,
        "num_position_embeddings": 16,
    }
    return Qwen3_5ForConditionalGeneration(Qwen3_5Config(text_config=text, vision_config=vision))


@pytest.mark.parametrize("build", [gemma3, mistral3, qwen3_5])
def test_what_transformers_saves_of_the_whole_is_read(build: Any, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = build().to(torch.float32).eval()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits.numpy()
    assert any("vis" in name for name in tensors(tmp_path))
    assert tiny.difference(macllm_logits(tmp_path), expected) < 1e-4


def test_gemma_3_leaves_out_what_its_class_knows() -> None:
    """The published 4B states little more than its widths."""
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    spec = spec_from_config({"model_type": "gemma3", "text_config": text})
    assert spec.parameters == 3_880_263_168
    assert spec.part_of == "gemma3"


@pytest.mark.parametrize(
    ("outside", "inside", "tied"),
    [(None, None, False), (True, None, True), (None, True, True), (True, False, False), (False, True, True)],
)
def test_the_text_models_own_word_on_its_head_comes_first(
    outside: bool | None, inside: bool | None, tied: bool
) -> None:
    values = {"model_type": "mistral3", "text_config": {**tiny.config_of("mistral")}}
    for place, stated in ((values, outside), (values["text_config"], inside)):
        if stated is not None:
            place["tie_word_embeddings"] = stated
    assert spec_from_config(values).tied == tied


def test_what_is_not_the_texts_is_refused_all_the_same(tmp_path: Path) -> None:
    text = tiny.config_of("gemma3")
    with pytest.raises(
        ConfigError, match=r"config.json: text_config: logit_scale=2.0 is not known to family"
    ):
        spec_from_config({"model_type": "gemma3", "text_config": {**text, "logit_scale": 2.0}})
    with pytest.raises(ConfigError, match=r"config.json: residual_scale=2.0 is not known to family 'gemma3'"):
        spec_from_config({"model_type": "gemma3", "text_config": text, "residual_scale": 2.0})
    with pytest.raises(ConfigError, match="'text_config' is missing"):
        spec_from_config({"model_type": "gemma3"})
    assert not is_native({"model_type": "gemma3"})
    assert not is_native({"model_type": "mistral3", "text_config": {"model_type": "mistral4"}})
    folder = nested("gemma3", tmp_path / "in", older=True)
    strange = {"language_model.model.layers.0.strange.weight": mx.zeros(2)}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors(folder) | strange, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"'language_model.model.layers.0.strange.weight' is not known"):
        tiny.decoder(folder)


def test_explain_says_what_it_is_part_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(nested("gemma4", tmp_path / "in", older=False))]) == 0
    assert "(gemma4_text, the text part of gemma4, native)" in capsys.readouterr().out
