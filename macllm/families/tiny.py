"""The smallest sensible config of each family, as repositories write it: what the tests and ``families --check`` build.

``tiny.json`` has a line a family: a whole config, or, where it states no ``vocab_size``, what it changes in ``base``.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

# What transformers has under another name only.
SAME_AS: Mapping[str, str] = {"mimo": "qwen2", "kimi_k2": "deepseek_v3", "minimax": "minimax_m2"}


def tiny_config(model_type: str) -> dict[str, Any]:
    """A config of a few thousand parameters, the caller's own."""
    entries = json.loads(_text())
    own: dict[str, Any] = entries[model_type]
    base: dict[str, Any] = {} if "vocab_size" in own else entries["base"]
    return {**base, "model_type": model_type, **own}


@cache
def _text() -> str:
    return (Path(__file__).parent / "tiny.json").read_text(encoding="utf-8")
