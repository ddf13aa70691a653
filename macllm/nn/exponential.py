"""Where MLX's exponential is slow, and what takes its place there.

On x86 CPUs MLX computes ``exp``, and with it sigmoid, tanh and softmax, one value at a time through library calls:
13 to 17 ns a value, a third of all prefill time. A power of two costs 5 ns and is as exact.
"""

import math
import platform

import mlx.core as mx

LOG2_E = math.log2(math.e)
_TWO = mx.array(2.0)  # of a number, an array would be made every time
_X86 = platform.machine() == "x86_64"


def slow_exponential() -> bool:
    """Whether this device computes powers of two faster than exponentials."""
    return _X86 and mx.default_device() == mx.cpu


def exp2(x: mx.array) -> mx.array:
    """``2 ** x`` in float32; infinite where that overflows, 0 for minus infinity."""
    return mx.power(_TWO, x)
