"""macllm: local language models on a Mac. ``macllm.load(name)`` gives a model to generate and chat with.

Importing it loads no model code: each public name is imported at its first use, and the fast BLAS is put in
place first, because it has to be there before anything imports ``mlx``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from macllm import blas

if TYPE_CHECKING:
    from macllm.api import LLM, Chat, Generation, load
    from macllm.engine.request import Limits, Sampling
    from macllm.errors import InputError, MacllmError

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "Chat",
    "Generation",
    "InputError",
    "Limits",
    "MacllmError",
    "Sampling",
    "__version__",
    "load",
]

_HOMES = {
    "LLM": "macllm.api",
    "Chat": "macllm.api",
    "Generation": "macllm.api",
    "load": "macllm.api",
    "Limits": "macllm.engine.request",
    "Sampling": "macllm.engine.request",
    "InputError": "macllm.errors",
    "MacllmError": "macllm.errors",
}

blas.preload()


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'macllm' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
