"""Model families: pure functions from a Hugging Face config to a ``ModelSpec``, by ``model_type``.

Every module of this folder is read; a function that is marked ``@family("model_type")`` is a family.
"""

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from macllm.errors import ConfigError
from macllm.families.config import Config
from macllm.families.registry import FAMILIES
from macllm.spec import ModelSpec

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def is_native(config: Mapping[str, Any]) -> bool:
    """Whether macllm has its own family for this config's ``model_type``."""
    return config.get("model_type") in FAMILIES


def keys_read(config: Mapping[str, Any]) -> frozenset[str]:
    """The keys that the family of a native model's config looks at, whether they are there or not."""
    reader = Config(config, config["model_type"])
    FAMILIES[reader.family](reader)
    return reader.read


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
