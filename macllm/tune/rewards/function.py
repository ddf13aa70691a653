"""A reward of the user's own: ``file.py:function``, called with the prompt, the completion and the row."""

import importlib.util
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from macllm.errors import InputError, OptionError
from macllm.tune.rewards.reward import RawRow, Reward


class PythonFunction(Reward):
    """``function(prompt, completion, row) -> float`` of a Python file, which is run as any program of the user's."""

    def __init__(self, path: Path, name: str) -> None:
        """Raises OptionError where there is no such file or function, or it takes something else."""
        self._place = f"{path}:{name}"
        self._function = _loaded(path, name, self._place)

    def missing(self, row: RawRow) -> str | None:
        return None  # only the function knows

    def __call__(self, prompt: str, completion: str, row: RawRow) -> float:
        """Raises InputError where the function fails or gives no finite number: it would teach nonsense."""
        try:
            value = self._function(prompt, completion, dict(row))
        except Exception as error:
            raise InputError(
                f"{self._place}: it raised {type(error).__name__}: {error}, for the completion {_short(completion)}"
            ) from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(
                f"{self._place}: it gave {value!r} for the completion {_short(completion)}; give a number"
            )
        return number


def _loaded(path: Path, name: str, place: str) -> Callable[..., Any]:
    if not path.is_file():
        raise OptionError(f"reward={place!r}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"macllm_reward_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise OptionError(f"reward={place!r}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise OptionError(f"reward={place!r}: {path} raised {type(error).__name__}: {error}") from error
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        raise OptionError(f"reward={place!r}: {path} has no function {name}")
    try:
        inspect.signature(function).bind("", "", {})
    except TypeError as error:
        raise OptionError(
            f"reward={place!r}: the function is called with prompt, completion and row, but: {error}"
        ) from None
    return function


def _short(completion: str) -> str:
    return repr(completion if len(completion) <= 60 else f"{completion[:60]}…")
