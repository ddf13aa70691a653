"""The Metal text that MLX would hand to Apple's compiler for a launch: asked from MLX, on any machine."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import mlx.core as mx

from macllm.errors import MacllmError
from macllm.kernels.kernel import Launch
from macllm.kernels.runners import metal

_INSTANTIATION = re.compile(
    r"\ntemplate \[\[host_name\([^\n]*\)\]\] [^\n]* decltype\((?P<call>[^\n]*)\) [^\n]*;\n"
)


@dataclass(frozen=True)
class MetalText:
    """One kernel function. ``arguments`` are its template's: ``<float, 64>``, or nothing."""

    name: str
    arguments: str
    header: str
    definition: str  # the function, and its instantiation

    @property
    def whole(self) -> str:
        return self.header + self.definition


def metal_text(launch: Launch) -> MetalText:
    """MLX's text for a launch.

    Exporting a graph that holds the kernel needs no Metal, and tells name and source of each primitive in it.
    """
    found: list[tuple[str, str]] = []

    def see(event: Mapping[str, Any]) -> None:
        if event["type"] == "primitive" and event["name"] == "CustomKernel":
            found.append((event["arguments"][0], event["arguments"][1]))

    mx.export_function(see, lambda *inputs: metal(replace(launch, inputs=inputs)), *launch.inputs)
    header = launch.body.header
    if len(found) != 1 or not found[0][1].startswith(header):
        raise MacllmError(f"MLX {version('mlx')} gives no Metal text of {launch.body.name}; use MLX 0.32.4")
    name, whole = found[0]
    return MetalText(name, template_arguments(whole, name), header, whole[len(header) :])


def template_arguments(whole: str, name: str) -> str:
    """``<float, 64>`` of the instantiation that ends a text; nothing where it is no template."""
    match = _INSTANTIATION.search(whole)
    return match["call"].removeprefix(name) if match else ""
