"""Where macllm keeps things on this machine. ``MACLLM_HOME`` moves all of them under one folder."""

import os
import shutil
import site
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def data_dir() -> Path:
    """Models, chats, state that must last."""
    home = os.environ.get("MACLLM_HOME")
    return Path(home).expanduser() if home else user_data_path("macllm", appauthor=False)


def cache_dir() -> Path:
    """What can be made again: ``MACLLM_CACHE``, or a folder of the home that was moved, or the system's place."""
    cache, home = os.environ.get("MACLLM_CACHE"), os.environ.get("MACLLM_HOME")
    if cache:
        return Path(cache).expanduser()
    return Path(home).expanduser() / "cache" if home else user_cache_path("macllm", appauthor=False)


def models_dir() -> Path:
    """One folder per installed model."""
    return data_dir() / "models"


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the disk of ``folder``, which need not exist yet."""
    folder = folder.absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a child imports this very macllm.

    An installed one is found as it is here: its folder on PYTHONPATH would go before the standard library.
    """
    home = str(Path(__file__).resolve().parent.parent)
    if home in (*site.getsitepackages(), site.getusersitepackages()):
        return dict(environment)
    paths = [home, *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}
