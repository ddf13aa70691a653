"""The smallest sensible config of each family, as repositories write it: what the tests and ``families --check`` build.

``tiny.json`` has a line a family: a whole config, or, where it states no ``vocab_size``, what it changes in ``base``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What transformers has under another name only.
SAME_AS: Mapping[str, str] = {"mimo": "qwen2", "kimi_k2": "deepseek_v3", "minimax": "minimax_m2"}


def tiny_config(model_type: str) -> dict[str, Any]:
    """A config of a few thousand parameters, the caller's own."""
    own: dict[str, Any] = _entries()[model_type]
    base = {} if "vocab_size" in own else base_config()
    return {**base, "model_type": model_type, **own}


def base_config() -> dict[str, Any]:
    """What most of them have in common."""
    base: dict[str, Any] = _entries()["base"]
    return base


def _entries() -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((Path(__file__).parent / "tiny.json").read_text(encoding="utf-8"))
    return entries
