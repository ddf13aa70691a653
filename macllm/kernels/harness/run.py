"""Runs launches in the harness: text from MLX, programs from clang, and a verdict on what the kernels did."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from macllm.errors import MacllmError
from macllm.kernels.harness.calls import PASSES, Buffer, Call, Pass, Result, run_program
from macllm.kernels.harness.compile import CompileError, executable, lint
from macllm.kernels.harness.program import Function, parameters, program
from macllm.kernels.harness.text import MetalText, metal_text
from macllm.kernels.kernel import Body, Launch, Runner


class KernelFault(MacllmError):
    """A kernel did what it must not: out of bounds, a race, a barrier that not all reach, ..."""


@dataclass(frozen=True)
class Outcome:
    """The outputs of a launch, or why there are none. A lint has neither."""

    outputs: tuple[mx.array, ...] = ()
    fault: str = ""


def runner(build: str = "fast") -> Runner:
    """A runner on the CPU: stands in for a GPU wherever a kernel is called. It raises KernelFault."""

    def run(launch: Launch) -> list[mx.array]:
        (outcome,) = outcomes([launch], build)
        if outcome.fault:
            raise KernelFault(f"{launch.body.name}: {outcome.fault}")
        return list(outcome.outputs)

    return run


def outcomes(launches: Sequence[Launch], build: str = "fast") -> list[Outcome]:
    """What becomes of each launch. Those of one body share a program: its text is compiled once for all."""
    found: dict[int, Outcome] = {}
    for same in _by_body(launches).values():
        found |= zip(same, _Bound.of([launches[place] for place in same]).outcomes(build), strict=True)
    return [found[place] for place in range(len(launches))]


def sources(launches: Sequence[Launch]) -> list[str]:
    """The programs that :func:`outcomes` compiles for these launches."""
    groups = _by_body(launches).values()
    return [_Bound.of([launches[place] for place in same]).source for same in groups]


def _by_body(launches: Sequence[Launch]) -> dict[Body, list[int]]:
    places: dict[Body, list[int]] = {}
    for place, launch in enumerate(launches):
        places.setdefault(launch.body, []).append(place)
    return places


@dataclass(frozen=True)
class _Bound:
    """Launches of one body, and the text of the program that runs them."""

    launches: Sequence[Launch]
    kernels: Sequence[int]  # of each launch: which of the functions
    functions: Sequence[Function]
    source: str

    @classmethod
    def of(cls, launches: Sequence[Launch]) -> "_Bound":
        texts = [metal_text(launch) for launch in launches]
        distinct = {text.name: text for text in texts}
        functions = [function_of(text) for text in distinct.values()]
        kernels = [list(distinct).index(text.name) for text in texts]
        parts = _parts(launches[0].body, list(distinct.values()))
        return cls(launches, kernels, functions, program(parts, functions))

    def outcomes(self, build: str) -> list[Outcome]:
        try:
            if build == "lint":
                lint(self.source)
                return [Outcome()] * len(self.launches)
            made = executable(self.source, build)
        except CompileError as error:
            return [Outcome(fault=f"does not compile: {error}")] * len(self.launches)
        calls = []
        for launch, kernel in zip(self.launches, self.kernels, strict=True):
            buffers = _buffers(launch, self.functions[kernel])
            calls.append(Call(kernel, launch.grid, launch.threadgroup, buffers))
        results = run_program(made, calls, PASSES[build])
        return [_judged(*each, PASSES[build]) for each in zip(self.launches, results, strict=True)]


def function_of(text: MetalText) -> Function:
    """The kernel function of a text."""
    return Function(text.name, text.arguments, parameters(text.definition, text.name))


def _parts(body: Body, texts: Sequence[MetalText]) -> list[str]:
    """A program's text: the header once, then each function, numbered as the body's file is."""
    marked = f'\n#line 1 "{body.name}.metal"\n{body.source}'
    return [texts[0].header, *(text.definition.replace(body.source, marked) for text in texts)]


def _buffers(launch: Launch, function: Function) -> tuple[Buffer, ...]:
    """The launch's arrays in the order of the function's buffers."""
    given = dict(zip(launch.body.inputs, launch.inputs, strict=True))
    results = dict(
        zip(launch.body.outputs, zip(launch.output_shapes, launch.output_dtypes, strict=True), strict=True)
    )
    found = {}
    for parameter in function.parameters:
        if parameter.buffer is None:
            continue
        if parameter.name in results:
            shape, dtype = results[parameter.name]
            found[parameter.buffer] = Buffer(parameter.name, int(np.prod(shape)) * dtype.size)
        else:
            contents = _contents(parameter.name, given)
            found[parameter.buffer] = Buffer(parameter.name, len(contents), contents)
    return tuple(found[index] for index in sorted(found))


def _contents(name: str, given: dict[str, mx.array]) -> bytes:
    """The bytes of an input in row order, or of what MLX passes about one: NAME_shape, NAME_strides, NAME_ndim."""
    if name in given:
        return as_bytes(given[name])
    of, _, what = name.rpartition("_")
    shape = given[of].shape
    if what == "shape":
        return np.array(shape, np.int32).tobytes()
    if what == "strides":
        strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        return np.array(strides, np.int64).tobytes()
    return np.array([len(shape)], np.int32).tobytes()


def as_bytes(array: mx.array) -> bytes:
    """An array's numbers as they lie in memory, row after row."""
    plain = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
    return np.ascontiguousarray(np.array(plain)).tobytes()


def from_bytes(contents: bytes, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
    """The inverse of :func:`as_bytes`."""
    return mx.array(np.frombuffer(contents, np.uint8)).view(dtype).reshape(shape)


def _judged(launch: Launch, result: Result, passes: Sequence[Pass]) -> Outcome:
    """The outputs, where every pass gives the same and every element was written."""
    if result.fault:
        return Outcome(fault=result.fault)
    first = result.outputs[0]
    for number, other in enumerate(result.outputs[1:], 1):
        for name, dtype, a, b in zip(launch.body.outputs, launch.output_dtypes, first, other, strict=True):
            fault = _difference(a, b, dtype.size, passes[0].fill, passes[number].fill)
            if fault:
                return Outcome(fault=f"output '{name}': {fault}")
    arrays = map(from_bytes, first, launch.output_shapes, launch.output_dtypes)
    return Outcome(tuple(arrays))


def _difference(a: bytes, b: bytes, width: int, fill_a: int, fill_b: int) -> str:
    """What differs between two passes, whose outputs were filled differently before; nothing where all is equal."""
    if a == b:
        return ""
    left = np.frombuffer(a, np.uint8).reshape(-1, width)
    right = np.frombuffer(b, np.uint8).reshape(-1, width)
    unwritten = (left == fill_a).all(axis=1) & (right == fill_b).all(axis=1)
    if unwritten.any():
        count, first = int(unwritten.sum()), int(unwritten.argmax())
        return f"{count} of {len(left)} elements are never written, or come from what was not, first {first}"
    differs = (left != right).any(axis=1)
    return (
        f"{int(differs.sum())} of {len(left)} elements depend on the order of threads, or on memory "
        f"that was never written, first {int(differs.argmax())}"
    )
