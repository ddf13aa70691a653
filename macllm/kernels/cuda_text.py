"""A body as CUDA: under macros that name CUDA's own things, and without the threads that a grid does not have.

Metal starts exactly the threads of a grid; CUDA starts whole blocks. Where the last block is partial, the threads
beyond the grid end at once. MLX keeps compiled kernels on disk by name and template alone, so a name tells all that
makes another text: a digest of header and body, the guard, and the types of the inputs.
"""

import hashlib
from functools import cache
from importlib.resources import files

from macllm.kernels.kernel import Body, Launch, Template

_SIDES = ("GRID_X", "GRID_Y", "GRID_Z")
_GUARD = (
    "  const uint3 macllm_place = thread_position_in_grid;\n"
    "  if (macllm_place.x >= GRID_X || macllm_place.y >= GRID_Y || macllm_place.z >= GRID_Z) return;\n"
)


def header(body: Body) -> str:
    """The header under which a body compiles as CUDA."""
    prologue = (files("macllm.kernels") / "metal" / "cuda.h").read_text(encoding="utf-8")
    return prologue + body.header


def is_partial(launch: Launch) -> bool:
    """Whether CUDA would start threads that the grid does not have."""
    return any(side % block for side, block in zip(launch.grid, launch.threadgroup, strict=True))


def name(launch: Launch) -> str:
    """What MLX is to call the kernel of a launch."""
    types = [str(array.dtype).rpartition(".")[2] for array in launch.inputs]
    guarded = ["partial"] if is_partial(launch) else []
    return "_".join([launch.body.name, _digest(launch.body), *guarded, *types])


def source(body: Body, *, partial: bool) -> str:
    """The body, after a guard where the last block may be ``partial``."""
    return _GUARD + body.source if partial else body.source


def template(launch: Launch) -> Template:
    """The launch's template, and what the guard needs."""
    if not is_partial(launch):
        return launch.template
    return {**launch.template, **dict(zip(_SIDES, launch.grid, strict=True))}


@cache
def _digest(body: Body) -> str:
    return hashlib.sha256((header(body) + body.source).encode()).hexdigest()[:16]
