"""What a custom kernel is: a Metal body with its declared limits, and one call of it as plain data.

A :class:`Launch` is all that MLX needs to run a body: whoever holds one may hand it to the device
(:func:`macllm.kernels.runners.device_runner`), to the harness that runs Metal on the CPU, or to a stand-in. No kernel
is ever called otherwise, so what is tested is what runs.

Contract of a body: it is the inside of a function whose signature MLX writes (``mx.fast.metal_kernel``); it sees
its inputs and outputs by name and its template arguments as constants; it may assume nothing that its kernel's
``check`` does not promise. Outputs hold garbage before it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from typing import Any, Literal, TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from macllm.kernels.workload import Workload

Arrays: TypeAlias = Sequence[mx.array]
Template: TypeAlias = Mapping[str, int | bool | mx.Dtype]
Reference: TypeAlias = npt.NDArray[np.float64]

# what a kernel does; of a product x times the matrix that is stored as weight, scales and biases, dispatch chooses one
Role: TypeAlias = Literal["product", "dequantize", "quantize", "attention", "fusion"]

DTYPES: tuple[mx.Dtype, ...] = (mx.float32, mx.float16, mx.bfloat16)


@dataclass(frozen=True)
class Body:
    """Metal text: ``FILE.metal`` beside this module (``NAME.metal`` if not given), and the headers it needs, in order.

    The name tells compiled texts apart: bodies that share a file under other headers have names of their own.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    headers: tuple[str, ...] = ()
    portable: bool = True  # runs as CUDA too: no simdgroup_matrix, no vector constructors
    file: str = ""

    @cached_property
    def source(self) -> str:
        return _text(self.file or self.name)

    @cached_property
    def header(self) -> str:
        return "".join(_text(name) for name in self.headers)

    @cached_property
    def digest(self) -> str:
        """Changes whenever the text does: a verdict holds for one text only."""
        return hashlib.sha256((self.header + self.source).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Launch:
    """One call of a body. ``grid`` counts threads, as MLX has it; ``template`` in the order of its arguments."""

    body: Body
    inputs: tuple[mx.array, ...]
    template: Template
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    output_shapes: tuple[tuple[int, ...], ...]
    output_dtypes: tuple[mx.Dtype, ...]


Runner: TypeAlias = Callable[[Launch], list[mx.array]]


@dataclass(frozen=True)
class Case:
    """Arguments of a kernel with what it must give: for the harness and for ``macllm doctor``.

    ``reference`` computes the outputs in float64 from the very same stored numbers; ``tolerance`` bounds the largest
    error relative to the largest magnitude of the reference (0: equal to the bit).
    """

    label: str  # what is special about it: "short last group, zeros"
    arguments: Mapping[str, Any]
    reference: Callable[[], tuple[Reference, ...]]
    tolerance: float
    dtype: mx.Dtype
    shape: tuple[int, ...]  # of the matrix or the keys
    rows: int


@dataclass(frozen=True)
class Sample:
    """Arguments of a size that models have, to time a kernel on. Their values matter to nobody."""

    arguments: Mapping[str, Any]
    shape: tuple[int, ...]  # as a Case's
    rows: int
    rival: Mapping[str, Any] | None = None  # the rival's, of the same size; None: the same ones


@dataclass(frozen=True)
class Kernel:
    """A custom kernel: where it applies, how it is called, and the plain MLX operations that define it.

    ``bind`` and ``twin`` take the same keyword arguments; the twin is the definition of correct, the fallback where
    there is no GPU, and what gradients flow through.
    """

    name: str
    role: Role
    body: Body
    modes: tuple[str, ...]  # storage that it reads: "nf4", "q4_k", "affine 4-bit", ...
    rows: tuple[int, int]  # fewest and most rows of input that it is for
    bind: Callable[..., Launch]
    twin: Callable[..., tuple[mx.array, ...]]
    cases: Callable[[], Iterator[Case]]  # small ones over all modes, types, rows and edges
    dtypes: tuple[mx.Dtype, ...] = field(default=DTYPES)
    samples: Callable[[Workload], Iterator[Sample]] | None = (
        None  # None: never timed, so never chosen unasked
    )
    rival: Callable[..., tuple[mx.array, ...]] | None = None  # MLX's own kernel for the same; None: the twin

    def __call__(self, run: Runner, **arguments: Any) -> tuple[mx.array, ...]:
        return tuple(run(self.bind(**arguments)))


def _text(name: str) -> str:
    return (files("macllm.kernels") / "metal" / f"{name}.metal").read_text(encoding="utf-8")
