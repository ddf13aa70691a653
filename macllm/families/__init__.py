"""Model families: pure functions from a Hugging Face config to a ``ModelSpec``, by ``model_type``."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from macllm.errors import ConfigError
from macllm.families import gemma, llama, qwen
from macllm.families.config import Config
from macllm.spec import ModelSpec

Family: TypeAlias = Callable[[Config], ModelSpec]

FAMILIES: dict[str, Family] = {
    "llama": llama.llama,
    "mistral": llama.mistral,
    "qwen2": qwen.qwen2,
    "qwen3": qwen.qwen3,
    "gemma3_text": gemma.gemma3_text,
}


def is_native(config: Mapping[str, Any]) -> bool:
    """Whether macllm has its own family for this config's ``model_type``."""
    return config.get("model_type") in FAMILIES


def spec_from_config(config: Mapping[str, Any], where: str = "config.json") -> ModelSpec:
    """The spec of a native model. Raises ConfigError naming ``where``, the key and the value."""
    model_type = config.get("model_type")
    if model_type is None:
        raise ConfigError(f"{where}: there is no 'model_type'; this is not a language model's config")
    if model_type not in FAMILIES:
        raise ConfigError(
            f"{where}: model_type={model_type!r} has no native family (native: {', '.join(sorted(FAMILIES))})"
        )
    reader = Config(config, model_type, where)
    spec = FAMILIES[model_type](reader)
    reader.refuse_unread()
    return spec
