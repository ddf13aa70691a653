"""PEFT's ``adapter_config.json`` (its ``LoraConfig``): what it says of an adapter, and what is refused of it."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from macllm.adapters.method import ALL_LAYERS, Kind, Method
from macllm.errors import ConfigError
from macllm.nn.adapted import Factors

# what only these values of are understood, by key
_ONLY: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "megatron_config": (None,),
    "use_qalora": (False, None),
    "lora_bias": (False, None),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
}


@dataclass(frozen=True)
class PeftAdapter:
    """A config as read: the method, and the rank and the factor of each stored module."""

    method: Method
    rank: Callable[[str], int]
    scale: Callable[[str], float]


def write(
    method: Method, stored: Mapping[str, Factors], modules: Collection[str], base_model: str
) -> dict[str, Any]:
    """The config of an adapter: factors by stored module, of all ``modules`` that the model has."""
    ranks = {module: factors.rank for module, factors in stored.items()}
    rank = method.rank
    stable = method.kind == "rslora"

    def alpha(factor: float, width: int) -> float:
        if factor == method.factor and width == rank:
            return method.scale if stable else method.scale * rank
        return factor * (math.sqrt(width) if stable else width)

    odd = {
        module: factors
        for module, factors in stored.items()
        if ranks[module] != rank or factors.scale != method.factor
    }
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha(method.factor, rank),
        "lora_dropout": method.dropout,
        "target_modules": targets(stored, modules),
        "rank_pattern": {re.escape(module): ranks[module] for module in odd},
        "alpha_pattern": {re.escape(module): alpha(one.scale, one.rank) for module, one in odd.items()},
        "use_rslora": stable,
        "use_dora": method.kind == "dora",
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "layers_to_transform": None,
        "layers_pattern": None,
    }


def read(config: Mapping[str, Any], label: str) -> PeftAdapter:
    """The adapter that a config states. Raises ConfigError naming the key and its value."""
    for key, values in _ONLY.items():
        if key in config and config[key] not in values:
            raise ConfigError(
                f"{label}: {key}={config[key]!r} is not supported (expected {values[0]!r}); "
                "train the adapter with LoRA alone"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise ConfigError(f"{label}: r={rank!r} is not a whole number of at least 1; save the adapter again")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise ConfigError(f"{label}: lora_alpha={alpha!r} is not a number; save the adapter again")
    stable, dora = bool(config.get("use_rslora")), bool(config.get("use_dora"))
    if stable and dora:
        raise ConfigError(f"{label}: use_rslora and use_dora together are not supported; train with one")
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    kind: Kind = "rslora" if stable else "dora" if dora else "lora"
    method = Method(
        kind,
        rank,
        float(alpha) if stable else alpha / rank,
        float(config.get("lora_dropout") or 0.0),
        _named(config.get("target_modules")),
        ALL_LAYERS,
    )

    def own_rank(module: str) -> int:
        return int(_of(ranks, module, rank))

    def own_scale(module: str) -> float:
        width = own_rank(module)
        return float(_of(alphas, module, alpha) / (math.sqrt(width) if stable else width))

    return PeftAdapter(method, own_rank, own_scale)


def targets(stored: Collection[str], modules: Collection[str]) -> list[str]:
    """The last words of the modules' names where they mean no others, else the whole names."""
    by_word = defaultdict(set)
    for module in modules:
        by_word[module.rpartition(".")[2]].add(module)
    words = sorted({module.rpartition(".")[2] for module in stored})
    meant = set().union(*(by_word[word] for word in words))
    return words if meant == set(stored) else sorted(stored)


def _named(targets: object) -> tuple[str, ...]:
    """A list of names; a pattern in one string is a regular expression, which the tensors make unnecessary."""
    return tuple(map(str, targets)) if isinstance(targets, list) else ()


def _of(patterns: Mapping[str, Any], module: str, default: float) -> float:
    """The value of the first pattern that a module's name ends in, as PEFT looks it up."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return default
