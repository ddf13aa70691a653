"""The table of families: each function enters itself under the ``model_type`` values that it reads."""

from collections.abc import Callable
from typing import TypeAlias

from macllm.families.config import Config
from macllm.spec import ModelSpec

Family: TypeAlias = Callable[[Config], ModelSpec]

FAMILIES: dict[str, Family] = {}


def family(*model_types: str) -> Callable[[Family], Family]:
    """Enters a function from a config to a ``ModelSpec``."""

    def enter(function: Family) -> Family:
        FAMILIES.update(dict.fromkeys(model_types, function))
        return function

    return enter
