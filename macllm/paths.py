"""Where macllm keeps things on this machine. ``MACLLM_HOME`` moves all of them under one folder."""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def _home() -> Path | None:
    value = os.environ.get("MACLLM_HOME")
    return Path(value).expanduser() if value else None


def data_dir() -> Path:
    """Models, chats, state that must last."""
    home = _home()
    return home if home is not None else user_data_path("macllm", appauthor=False)


def cache_dir() -> Path:
    """Things that can be made again: parsed tokenizers, kernel verdicts."""
    home = _home()
    return home / "cache" if home is not None else user_cache_path("macllm", appauthor=False)


def models_dir() -> Path:
    """One folder per installed model."""
    return data_dir() / "models"
