"""Hands a launch to the device: as Metal, or as CUDA for the bodies that port."""

from functools import cache
from typing import Any

import mlx.core as mx

from macllm.kernels.kernel import Body, Launch, Runner


def device_runner() -> Runner | None:
    """What runs kernels on this machine's default device; None on a CPU."""
    if mx.default_device().type == mx.DeviceType.cpu:
        return None
    return metal if mx.metal.is_available() else cuda


def metal(launch: Launch) -> list[mx.array]:
    """Runs a launch on an Apple GPU. Lazy, as all of MLX."""
    return _call(_metal(launch.body), launch)


def cuda(launch: Launch) -> list[mx.array]:
    """Runs a launch on an NVIDIA GPU: the same body under macros that name CUDA's own things."""
    return _call(_cuda(launch.body), launch)


def _call(function: Any, launch: Launch) -> list[mx.array]:
    found: list[mx.array] = function(
        inputs=list(launch.inputs),
        template=list(launch.template.items()),
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
def _cuda(body: Body) -> Any:
    return mx.fast.cuda_kernel(
        name=body.name,
        input_names=list(body.inputs),
        output_names=list(body.outputs),
        source=body.source,
        header=cuda_header(body),
    )


def cuda_header(body: Body) -> str:
    """The header under which a body compiles as CUDA."""
    from importlib.resources import files

    prologue = (files("macllm.kernels") / "metal" / "cuda.h").read_text(encoding="utf-8")
    return prologue + body.header
