"""Hands a launch to the device: as Metal, or as CUDA for the bodies that port."""

from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx

from macllm.kernels import cuda_text
from macllm.kernels.kernel import Body, Launch, Runner, Template


def device_runner() -> Runner | None:
    """What runs kernels on this machine's default device; None on a CPU."""
    if mx.default_device().type == mx.DeviceType.cpu:
        return None
    return metal if mx.metal.is_available() else cuda


def compiled(function: Callable[..., Any], run: Runner) -> Callable[..., Any]:
    """A function that calls kernels by ``run``, compiled where that is the device.

    Launches are then bound once for each set of shapes, not at every call, which takes Python as long as a GPU takes
    for a small matrix. Other runners want arrays, not what stands for them.
    """
    return mx.compile(function) if run is device_runner() else function


def metal(launch: Launch) -> list[mx.array]:
    """Runs a launch on an Apple GPU. Lazy, as all of MLX."""
    return _call(_metal(launch.body), launch, launch.template)


def cuda(launch: Launch) -> list[mx.array]:
    """Runs a launch on an NVIDIA GPU: the same body under macros that name CUDA's own things."""
    function = _cuda(launch.body, cuda_text.name(launch), cuda_text.is_partial(launch))
    return _call(function, launch, cuda_text.template(launch))


def _call(function: Any, launch: Launch, template: Template) -> list[mx.array]:
    found: list[mx.array] = function(
        inputs=list(launch.inputs),
        template=list(template.items()),
        grid=launch.grid,
        threadgroup=launch.threadgroup,
        output_shapes=list(launch.output_shapes),
        output_dtypes=list(launch.output_dtypes),
    )
    return found


@cache
def _metal(body: Body) -> Any:
    return mx.fast.metal_kernel(
        name=body.name,
        input_names=list(body.inputs),
        output_names=list(body.outputs),
        source=body.source,
        header=body.header,
    )


@cache
def _cuda(body: Body, name: str, partial: bool) -> Any:
    return mx.fast.cuda_kernel(
        name=name,
        input_names=list(body.inputs),
        output_names=list(body.outputs),
        source=cuda_text.source(body, partial=partial),
        header=cuda_text.header(body),
    )
