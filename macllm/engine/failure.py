"""From an exception to the event that says it, and whether it was memory that ran out."""

import re
from collections.abc import Sequence

from macllm.engine.events import Failed
from macllm.errors import MacllmError, MemoryLimitError
from macllm.kernels.trial import reason_of

_MLX_OUT_OF_MEMORY = re.compile(r"(?i)allocate|out of memory|insufficient memory")


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed, here or in MLX; not whether one was refused beforehand."""
    if isinstance(error, MemoryLimitError):
        return ran_out_of_memory(error.__cause__)
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and _MLX_OUT_OF_MEMORY.search(str(error)) is not None


def kernels_failed(names: Sequence[str], error: BaseException) -> str:
    """The sentence that says which kernels were switched off, and why."""
    what = f"custom kernel {names[0]}" if len(names) == 1 else f"custom kernels {', '.join(names)}"
    return f"{what} failed ({reason_of(error)}) and will not be used until macllm starts again; plain MLX carries on"


def failed(error: BaseException, doing: str) -> Failed:
    """The event for ``error``, which came while ``doing`` something: "loading X"."""
    if isinstance(error, MacllmError):
        return Failed(str(error), error.exit_code, type(error).__name__)
    if ran_out_of_memory(error):
        reason = f" ({error})" if str(error) else ""
        message = f"memory ran out while {doing}{reason}; use a smaller model or a shorter context"
        return Failed(message, MemoryLimitError.exit_code, MemoryLimitError.__name__)
    kind = type(error).__name__
    return Failed(f"{doing} failed with {kind}: {error}; report this as a bug", 1, kind)
