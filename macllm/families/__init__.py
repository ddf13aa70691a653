"""Model families: pure functions from a Hugging Face config to a ``ModelSpec``, by ``model_type``.

Every module of this folder is read; a function that is marked ``@family("model_type")`` is a family.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from macllm.errors import ConfigError
from macllm.families.config import Config
from macllm.families.multimodal import TEXT_PARTS, check_outside, names_inside, text_values
from macllm.families.registry import FAMILIES
from macllm.spec import ModelSpec

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def is_native(config: Mapping[str, Any]) -> bool:
    """Whether macllm has its own family for this config's ``model_type``, or for that of its text part."""
    return text_values(config).get("model_type") in FAMILIES


def keys_read(config: Mapping[str, Any]) -> frozenset[str]:
    """The keys that the family of a native model's config looks at, whether they are there or not."""
    reader = Config(config, config["model_type"])
    FAMILIES[reader.family](reader)
    return reader.read


def spec_from_config(config: Mapping[str, Any], where: str = "config.json") -> ModelSpec:
    """The spec of a native model, or of the text part of a multimodal one.

    Raises ConfigError naming ``where``, the key and the value.
    """
    model_type = config.get("model_type")
    if model_type is None:
        raise ConfigError(f"{where}: there is no 'model_type'; this is not a language model's config")
    if model_type in TEXT_PARTS:
        check_outside(config, where)
        spec = spec_from_config(text_values(config), f"{where}: text_config")
        return replace(spec, part_of=model_type, names=names_inside(spec.names, model_type))
    if model_type not in FAMILIES:
        raise ConfigError(
            f"{where}: model_type={model_type!r} has no native family; `macllm families` shows those that have"
        )
    reader = Config(config, model_type, where)
    spec = FAMILIES[model_type](reader)
    reader.refuse_unread()
    return spec
