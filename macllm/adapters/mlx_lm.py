"""What mlx-lm keeps beside an adapter: the keys of ``adapter_config.json`` that it is loaded by."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from macllm.adapters.method import ALL_LAYERS, Kind, Method
from macllm.errors import ConfigError

_IN_LAYER = re.compile(r"^.*?\.(\d+)\.(.+)$")
# what mlx-lm takes for LoRA, by the key that says more, as PEFT names it
_MARKED: Mapping[str, Kind] = {"use_rslora": "rslora", "use_qalora": "qalora"}
_REMEDY = "save the adapter again"


def write(method: Method, rank: int, modules: Collection[str], layers: int) -> dict[str, Any]:
    """The keys for an adapter on stored ``modules`` of a model with so many layers.

    mlx-lm puts adapters on the same modules of all of the last ``num_layers``; on one that the file says nothing
    of, one that changes nothing.
    """
    matches = {module: _IN_LAYER.match(module) for module in modules}
    inside = [int(match[1]) for match in matches.values() if match is not None]
    keys = dict.fromkeys(module if match is None else match[2] for module, match in matches.items())
    first = min(inside, default=0)
    config = {
        "fine_tune_type": "dora" if method.kind == "dora" else "lora",
        "num_layers": layers - first if first else ALL_LAYERS,
        "lora_parameters": {
            "rank": rank,
            "scale": method.factor,
            "dropout": method.dropout,
            "keys": list(keys),
        },
    }
    return config | dict.fromkeys([key for key, kind in _MARKED.items() if method.kind == kind], True)


def read(config: Mapping[str, Any], label: str) -> Method:
    """The method that a config states. Raises ConfigError naming the key and its value."""
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise ConfigError(
            f"{label}: fine_tune_type={kind!r} is no low-rank adapter (expected 'lora' or 'dora')"
        )
    values = config.get("lora_parameters")
    if not isinstance(values, Mapping):
        raise ConfigError(f"{label}: lora_parameters is missing; {_REMEDY}")
    rank = values.get("rank")
    if type(rank) is not int or rank < 1:
        raise ConfigError(f"{label}: rank={rank!r} is not a whole number of at least 1; {_REMEDY}")
    scale, dropout = _number(values, "scale", label), _number(values, "dropout", label)
    layers = config.get("num_layers", ALL_LAYERS)
    if type(layers) is not int:
        raise ConfigError(f"{label}: num_layers={layers!r} is not a whole number; {_REMEDY}")
    found: Kind = "dora" if kind == "dora" else "lora"
    marked = next((kind for key, kind in _MARKED.items() if config.get(key)), None)
    if marked is not None:
        found, scale = marked, scale * math.sqrt(rank) if marked == "rslora" else scale
    return Method(found, rank, scale, dropout, tuple(values.get("keys") or ()), layers)


def _number(values: Mapping[str, Any], name: str, label: str) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{label}: {name}={value!r} is not a number; {_REMEDY}")
    return float(value)
