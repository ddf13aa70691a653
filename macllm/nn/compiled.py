"""Elementwise operations as one kernel, where MLX compiles for the device."""

from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar, cast

import mlx.core as mx

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function compiled for the default device; on CPU as it is: MLX would call a C++ compiler at run time."""
    return cast(Callable[P, R], _compiled(function)) if mx.default_device() == mx.gpu else function


@cache
def _compiled(function: Callable[..., object]) -> Callable[..., object]:
    return mx.compile(function)
