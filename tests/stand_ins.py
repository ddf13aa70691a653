"""Runners that stand in for a device: right, wrong, failing and slow ones, under a clock that they move."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import mlx.core as mx

from macllm.kernels.kernel import Kernel, Launch


@dataclass(frozen=True)
class Noted(Launch):
    """A launch that remembers what it was bound from."""

    kernel: Kernel | None = None
    arguments: Mapping[str, Any] | None = None


def noting(kernel: Kernel) -> Kernel:
    """The same kernel, whose launches a stand-in understands; it binds as ever."""

    def bind(**arguments: Any) -> Noted:
        launch = kernel.bind(**arguments)
        parts = {field.name: getattr(launch, field.name) for field in fields(Launch)}
        return Noted(**parts, kernel=kernel, arguments=arguments)

    return replace(kernel, bind=bind)


class Clock:
    """Stands still unless moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: float, function: Any) -> Any:
        """``function``, at this price."""

        def costly(*args: Any, **kwargs: Any) -> Any:
            self.now += seconds
            return function(*args, **kwargs)

        return costly


def right(launch: Launch) -> list[mx.array]:
    """What the twin gives."""
    assert isinstance(launch, Noted)
    assert launch.kernel is not None
    assert launch.arguments is not None
    found = list(launch.kernel.twin(**launch.arguments))
    assert tuple(array.shape for array in found) == launch.output_shapes
    assert tuple(array.dtype for array in found) == launch.output_dtypes
    return found


def wrong(launch: Launch) -> list[mx.array]:
    """A hundredth too much."""
    return [(array * 1.01 + 0.01).astype(array.dtype) for array in right(launch)]


def no_numbers(launch: Launch) -> list[mx.array]:
    """NaN in the last place."""
    return [
        array * mx.where(mx.arange(array.size).reshape(array.shape) == array.size - 1, mx.nan, 1)
        for array in right(launch)
    ]


def fails_at_once(launch: Launch) -> list[mx.array]:
    """As a compiler complains."""
    raise RuntimeError(
        f"[metal::Device] Unable to build metal library from source\nprogram_source:3:5: error: no {launch.body.name}\n"
    )


def fails_when_computed(launch: Launch) -> list[mx.array]:
    """Made without complaint; MLX raises where it is evaluated."""
    none = mx.linalg.inv(mx.zeros((2, 2)), stream=mx.cpu)[0, 0]
    return [(array + none).astype(array.dtype) for array in right(launch)]
