"""Every architecture of GGUF that has a family, as llama.cpp's converter and we write it, against transformers."""

import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from gguf import MODEL_ARCH_NAMES
from gguf_converter import Conversion, tensors_of
from gguf_export import Tensors, export, exported
from gguf_variants import (
    REFUSED,
    by_pace,
    converted_variants,
    gguf_config,
    gguf_variants,
    written,
)
from tiny import difference, read_config, tokens

from macllm.errors import ConfigError
from macllm.families import spec_from_config
from macllm.nn.decoder import Decoder
from macllm.weights.gguf.metadata import describe
from macllm.weights.gguf.registry import ARCHITECTURES
from macllm.weights.model_files import open_model
from macllm.weights.parameters import CheckpointParameters, Placement

# Keys of converted files that say nothing: of kinds of layers that the model has not, or not the config's value.
UNUSED = {
    "gemma3-wide-window": {"rope.freq_base"},
    "qwen2moe": {"feed_forward_length"},
    "qwen3moe": {"feed_forward_length"},
    "glm4-moe-groups": {"feed_forward_length"},
    "deepseek-v2-grouped": {"feed_forward_length"},
    "qwen3next": {"feed_forward_length"},
    "qwen35": {"rope.dimension_sections"},
    "qwen35moe": {"feed_forward_length", "rope.dimension_sections"},
    "granitehybrid": {"context_length"},
    "nemotron_h": {"context_length"},
    "nemotron_h_moe": {"context_length"},
    "rwkv7": {"context_length"},
    "bloom": {"context_length"},
    "chatglm": {"context_length"},
    "falcon": {"context_length"},
}
# Tensors of converted files that are numbers of positions, or nothing that any reader uses.
UNREAD = re.compile(r"rope_f.*|blk\.0\.time_mix_v\d\..*")
TOLERANCE = 1e-4  # relative; measured: 4e-6
IDS = [tokens(40), tokens(40, seed=1)]


def logits(path: Path) -> np.ndarray:
    files, placed = open_model(path), Placement(mx.float32)
    parameters = CheckpointParameters(files.spec, files.checkpoint(placed.dtype), files.naming, placed)
    return np.array(Decoder(files.spec, parameters)(mx.array(IDS)))


def conversion(variant: str) -> Conversion:
    folder = written(variant).folder
    return Conversion(read_config(folder), tensors_of(folder))


@pytest.mark.parametrize("variant", by_pace(converted_variants()))
def test_logits_of_a_converted_file_are_the_original_s(variant: str, tmp_path: Path) -> None:
    path = conversion(variant).write(tmp_path / "x.gguf")
    assert difference(logits(path), written(variant).logits(IDS)) < TOLERANCE


@pytest.mark.parametrize("variant", by_pace(gguf_variants()))
def test_logits_of_an_exported_file_are_the_original_s(variant: str, tmp_path: Path) -> None:
    """From Hugging Face's names and keys through ours to GGUF's, and read again."""
    path = export(gguf_config(variant), written(variant).folder, tmp_path / "x.gguf", {})
    assert difference(logits(path), written(variant).logits(IDS)) < TOLERANCE


def an_expert_each(tensors: Tensors) -> Tensors:
    """As in files from before stacks."""
    laid: Tensors = {}
    for name, values in tensors.items():
        if "_exps." not in name:
            laid[name] = values
            continue
        for expert, matrix in enumerate(values):
            laid[name.replace("_exps.", f".{expert}.")] = matrix
    return laid


def gate_with_up(tensors: Tensors) -> Tensors:
    """As the converter writes experts if asked."""
    laid = dict(tensors)
    for name in [name for name in tensors if "ffn_gate_exps" in name]:
        parts = [laid.pop(name), laid.pop(name.replace("gate", "up"))]
        laid[name.replace("gate", "gate_up")] = np.concatenate(parts, axis=1)
    return laid


def fused_attention(tensors: Tensors) -> Tensors:
    """As the converter writes q, k and v if asked."""
    laid = dict(tensors)
    for name in [name for name in tensors if "attn_q." in name]:
        parts = [laid.pop(name.replace("attn_q", f"attn_{part}")) for part in "qkv"]
        laid[name.replace("attn_q", "attn_qkv")] = np.concatenate(parts)
    return laid


def whole_latent(tensors: Tensors) -> Tensors:
    """Keys and values of each head of latent attention as rows of one matrix, as in older files."""
    laid = dict(tensors)
    for name in [name for name in tensors if "attn_k_b" in name]:
        keys, values = (
            laid.pop(name),
            laid.pop(name.replace("k_b", "v_b")),
        )  # (H, rank, nope) and (H, value, rank)
        both = np.concatenate([np.swapaxes(keys, 1, 2), values], axis=1)
        laid[name.replace("k_b", "kv_b")] = both.reshape(-1, both.shape[-1])
    return laid


LAYOUTS = [
    ("llama", fused_attention),
    ("qwen2", fused_attention),
    ("mixtral", an_expert_each),
    ("qwen3-moe", an_expert_each),
    ("qwen3-moe", gate_with_up),
    ("granite-moe", gate_with_up),
    ("deepseek-v2-grouped", whole_latent),
    ("deepseek-v3", whole_latent),
]


@pytest.mark.parametrize(("variant", "layout"), LAYOUTS)
def test_other_layouts_are_read_too(variant: str, layout: Any, tmp_path: Path) -> None:
    given = []

    def laid(tensors: Tensors) -> Tensors:
        given.append((set(tensors), set(changed := layout(tensors))))
        return changed

    path = export(gguf_config(variant), written(variant).folder, tmp_path / "x.gguf", {}, laid)
    assert given[0][0] != given[0][1]
    assert difference(logits(path), written(variant).logits(IDS)) < TOLERANCE


@pytest.mark.parametrize("variant", converted_variants())
def test_tensors_are_laid_out_as_the_converter_does(variant: str) -> None:
    spec = spec_from_config(gguf_config(variant))
    ours = exported(spec, written(variant).folder)
    theirs = {name: values for name, values in conversion(variant).converted() if not UNREAD.match(name)}
    assert {name: values.shape for name, values in ours.items()} == {
        name: values.shape for name, values in theirs.items()
    }
    for name, values in theirs.items():
        assert np.allclose(ours[name], values, rtol=1e-5, atol=1e-6), name


def close(a: Any, b: Any) -> bool:
    """Equal, where one number may stand for the same in every layer."""
    if isinstance(a, list) != isinstance(b, list):
        many, one = (a, b) if isinstance(a, list) else (b, a)
        return all(close(each, one) for each in many)
    return a == b or (isinstance(a, float) and isinstance(b, int | float) and abs(a - b) <= 1e-6 * abs(a))


@pytest.mark.parametrize("variant", converted_variants())
def test_keys_say_what_the_converter_says(variant: str) -> None:
    """Where both have a key; what only one has is what readers take for a missing one."""
    found, expected = describe(spec_from_config(gguf_config(variant))), conversion(variant)
    assert found.architecture == MODEL_ARCH_NAMES[expected.architecture]
    ours = {key.removeprefix(f"{found.architecture}."): value for key, value in found.keys.items()}
    unused = UNUSED.get(variant, UNUSED.get(found.architecture, set()))
    both = [key for key in expected.keys if key in ours and key not in unused]
    assert len(both) > 4
    differing = {
        key: (expected.keys[key], ours[key]) for key in both if not close(expected.keys[key], ours[key])
    }
    assert not differing


@pytest.mark.parametrize("variant", REFUSED)
def test_what_gguf_has_no_words_for_is_refused(variant: str) -> None:
    with pytest.raises(ConfigError, match=f"GGUF.*{REFUSED[variant]}"):
        describe(spec_from_config(gguf_config(variant)))


def test_every_architecture_has_a_variant() -> None:
    covered = {MODEL_ARCH_NAMES[conversion(variant).architecture] for variant in converted_variants()}
    assert covered == set(ARCHITECTURES)
