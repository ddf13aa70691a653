"""Multimodal architectures of which macllm runs the text model: a config's ``text_config``, weights under a prefix.

A new one is a line in ``TEXT_PARTS``; its inner ``model_type`` has to be a family.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from macllm.errors import ConfigError
from macllm.families.config import Config
from macllm.spec.names import Entry, Names


@dataclass(frozen=True)
class TextPart:
    """Which family the text model is of where it does not say, and what its config may leave out.

    ``base``: MLX's tools keep its modules under ``model.language_model.``, else under ``language_model.``.
    """

    model_type: str
    missing: Mapping[str, Any] = field(default_factory=dict)
    base: bool = False


_GEMMA3 = {"vocab_size": 262_208, "num_attention_heads": 8, "max_position_embeddings": 131_072}

TEXT_PARTS: dict[str, TextPart] = {
    "gemma3": TextPart("gemma3_text", _GEMMA3),
    "gemma3n": TextPart("gemma3n_text", base=True),
    "gemma4": TextPart("gemma4_text"),
    "llama4": TextPart("llama4_text"),
    "mistral3": TextPart("mistral"),
    "qwen3_5": TextPart("qwen3_5_text"),
    "qwen3_5_moe": TextPart("qwen3_5_moe_text"),
}

# keys that say how images and sounds come in, and tensors that take them in
_OTHER_KEYS = (
    r".*(vision|visual|image|video|audio|multimodal|projector|spatial_merge|soft_tokens).*|"
    r"mm_.*|(bo|eo)[iav]_.*"
)
_OTHER_TENSORS = (
    r"(model\.)?(vision_tower|vision_model|vision_embedder|visual|multi_modal_projector|audio_tower|embed_audio|"
    r"embed_vision)\..*"
)


def text_values(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the language model: of a multimodal one the part, with what stands outside of it."""
    part, inner = TEXT_PARTS.get(config.get("model_type", "")), config.get("text_config")
    if part is None or not isinstance(inner, Mapping):
        return config
    outside = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
    return {"model_type": part.model_type, **part.missing, **outside, **inner}


def check_outside(config: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for what a multimodal config says beside its text part that could concern it."""
    outside = Config(config, config["model_type"], where)
    if not outside.mapping("text_config"):
        raise ConfigError(
            f"{where}: 'text_config' is missing, the config of the language model; download it again"
        )
    outside.get("tie_word_embeddings")
    vocab = text_values(config).get("vocab_size")
    outside.only("vocab_size", [vocab], vocab)
    outside.pass_over(_OTHER_KEYS)
    outside.refuse_unread()


def names_inside(names: Names, model_type: str) -> Names:
    """A text model's names where it is part of a multimodal one."""
    base = TEXT_PARTS[model_type].base
    inside = dict(names.table) | {
        "head": (Entry("lm_head"),)
    }  # whatever MLX's class of the text model calls it
    table = tuple(
        (key, tuple(moved for entry in entries for moved in _moved(entry, base)))
        for key, entries in inside.items()
    )
    ignored, idle = (
        tuple(form for pattern in patterns for form in _moved_patterns(pattern))
        for patterns in (names.ignored, names.idle)
    )
    return Names(table, (*ignored, _OTHER_TENSORS), idle)


def _moved(entry: Entry, base: bool) -> tuple[Entry, ...]:
    """Transformers has ``model.language_model.layers`` beside ``lm_head``; before version 5, and MLX's tools, have
    ``language_model.model.layers`` and ``language_model.lm_head``.
    """
    inside = entry.stored.replace("model.", "model.language_model.", 1)
    newer = replace(entry, stored=inside if entry.stored.startswith("model.") else entry.stored)
    older = replace(entry, stored=f"language_model.{entry.stored}")
    if entry.form is not None:
        return (newer, older) if entry.form == "hub" or base else (older, newer)
    return (newer, older) if base else (replace(newer, form="hub"), older)


def _moved_patterns(pattern: str) -> tuple[str, ...]:
    if not pattern.startswith(r"model\."):
        return pattern, rf"language_model\.{pattern}"
    return rf"language_model\.{pattern}", pattern.replace(r"model\.", r"model\.language_model\.", 1)
