"""Kernels that failed while a model ran: off for the rest of this process, while their twins carry on.

A kernel is tried before it is used, so this is the last resort: a compiler that refuses one size, a driver that
changed meanwhile. MLX's errors name a kernel or say nothing of it; then all that are in use are suspects.
"""

import re

from macllm.kernels.kernel import Kernel

_NAMED = re.compile(r"custom_kernel_(\w+)")


class Switch:
    """Which kernels are in use, and which are off."""

    def __init__(self) -> None:
        self._used: dict[str, str] = {}  # the body of each
        self._off: dict[str, str] = {}

    def use(self, kernel: Kernel) -> bool:
        """Whether a kernel may be used; from then on it is a suspect."""
        if kernel.name in self._off:
            return False
        self._used[kernel.name] = kernel.body.name
        return True

    @property
    def off(self) -> dict[str, str]:
        """The reason by name of each that is off."""
        return dict(self._off)

    def blame(self, error: BaseException, reason: str) -> tuple[str, ...]:
        """Turns off the kernels that ``error`` names, or all in use where it names none; says which."""
        bodies = {self._longest(text) for text in _NAMED.findall(str(error))}
        named = [name for name, body in self._used.items() if body in bodies]
        suspects = tuple(sorted(named or self._used))
        for name in suspects:
            self._off[name] = reason
            del self._used[name]
        return suspects

    def reset(self) -> None:
        """Nothing is off or in use."""
        self._used.clear()
        self._off.clear()

    def _longest(self, text: str) -> str:
        """The body in use whose function is called so: MLX adds types and sizes to its name."""
        return max((body for body in self._used.values() if text.startswith(body)), key=len, default="")


SWITCH = Switch()
