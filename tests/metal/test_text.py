"""The text that MLX gives is the one that its rules make: written again here, from those rules, and compared."""

from dataclasses import replace
from itertools import product

import mlx.core as mx
import pytest
from small_kernels import WrittenBody

from macllm.kernels.harness.text import metal_text
from macllm.kernels.kernel import Launch
from macllm.kernels.registry import KERNELS

NARROW = "uint"
WIDE = "uint3"
# the attributes of a thread that a body may name, in MLX's order
ATTRIBUTES = {
    "dispatch_quadgroups_per_threadgroup": NARROW,
    "dispatch_simdgroups_per_threadgroup": NARROW,
    "dispatch_threads_per_threadgroup": WIDE,
    "grid_origin": WIDE,
    "grid_size": WIDE,
    "quadgroup_index_in_threadgroup": NARROW,
    "quadgroups_per_threadgroup": NARROW,
    "simdgroup_index_in_threadgroup": NARROW,
    "simdgroups_per_threadgroup": NARROW,
    "thread_execution_width": NARROW,
    "thread_index_in_quadgroup": NARROW,
    "thread_index_in_simdgroup": NARROW,
    "thread_index_in_threadgroup": NARROW,
    "thread_position_in_grid": WIDE,
    "thread_position_in_threadgroup": WIDE,
    "threadgroup_position_in_grid": WIDE,
    "threadgroups_per_grid": WIDE,
    "threads_per_grid": WIDE,
    "threads_per_simdgroup": NARROW,
    "threads_per_threadgroup": WIDE,
}
ABOUT = {
    "shape": "const constant int* ",
    "strides": "const constant int64_t* ",
    "ndim": "const constant int& ",
}
SMALL_INPUT = 8  # elements: fewer lie in constant memory


def type_name(dtype: mx.Dtype) -> str:
    name = str(dtype).rpartition(".")[2]
    return {"float32": "float", "bool_": "bool", "bool": "bool"}.get(name, f"{name}_t")


def written(launch: Launch) -> tuple[str, str]:
    """Name and text of the function."""
    body, template = launch.body, launch.template
    values = [
        type_name(value) if isinstance(value, mx.Dtype) else str(int(value)) for value in template.values()
    ]
    name = f"custom_kernel_{body.name}"
    if template:
        name += "__" + "_".join(values).replace("-", "_")
    for each in launch.inputs:
        size = "s" if each.ndim == 0 else "c" if each.size < SMALL_INPUT else ""
        name += f"_{type_name(each.dtype)}{size}"
    name += "".join(f"_{type_name(dtype)}" for dtype in launch.output_dtypes)
    text = body.header
    if template:
        text += f"template <{', '.join(f'{_kind(value)} {key}' for key, value in template.items())}>\n"
    text += f"[[kernel]] void {name}(\n" + ",\n".join(_parameters(launch)) + f") {{\n{body.source}\n}}\n"
    if template:
        whole = f"{name}<{', '.join(values)}>"
        text += f'\ntemplate [[host_name("{name}")]] [[kernel]] decltype({whole}) {whole};\n'
    return name, text


def _kind(value: object) -> str:
    if isinstance(value, mx.Dtype):
        return "typename"
    return "bool" if isinstance(value, bool) else "int"


def _parameters(launch: Launch) -> list[str]:
    buffers = []
    source = launch.body.source
    for name, array in zip(launch.body.inputs, launch.inputs, strict=True):
        space = "constant" if array.size < SMALL_INPUT else "device"
        buffers.append(f"const {space} {type_name(array.dtype)}{'*' if array.ndim else '&'} {name}")
        if array.ndim:
            buffers += [f"{kind}{name}_{what}" for what, kind in ABOUT.items() if f"{name}_{what}" in source]
    for name, dtype in zip(launch.body.outputs, launch.output_dtypes, strict=True):
        buffers.append(f"device {type_name(dtype)}* {name}")
    numbered = [f"  {each} [[buffer({index})]]" for index, each in enumerate(buffers)]
    used = [f"  {kind} {name} [[{name}]]" for name, kind in ATTRIBUTES.items() if name in source]
    return numbered + used


@pytest.mark.parametrize("name", KERNELS)
def test_of_every_kernel(name: str) -> None:
    kernel = KERNELS[name]
    for case in kernel.cases():
        launch = kernel.bind(**case.arguments)
        text = metal_text(launch)
        assert (text.name, text.whole) == written(launch)


BODIES = (
    "uint i = thread_position_in_grid.x; y[i] = T(a[i]);",
    "uint l = thread_index_in_simdgroup + simdgroup_index_in_threadgroup + threads_per_threadgroup.x;",
    "int q = int(grid_size.x) + a_shape[0] + a_strides[0] + a_ndim + c_shape[0];",
)


@pytest.mark.parametrize(
    "dtype", [mx.float32, mx.float16, mx.bfloat16, mx.uint8, mx.uint32, mx.int8, mx.int64]
)
def test_of_every_form_of_a_launch(dtype: mx.Dtype) -> None:
    """Scalars, inputs in constant memory, several outputs, with and without a template."""
    for text, outputs, template in product(
        BODIES, (("y",), ("y", "z")), ({}, {"T": mx.bfloat16, "N": 64, "B": True, "Z": -3})
    ):
        body = WrittenBody("form", ("a", "b", "c"), outputs, text=text, prologue="// before\n")
        inputs = (mx.zeros((16, 4), dtype), mx.array(1.5), mx.zeros((3,), mx.int32))
        launch = Launch(
            body, inputs, template, (4, 1, 1), (4, 1, 1), ((4,),) * len(outputs), (dtype,) * len(outputs)
        )
        found = metal_text(launch)
        assert (found.name, found.whole) == written(launch)
        other = metal_text(replace(launch, grid=(8, 1, 1)))
        assert other.whole == found.whole  # the grid is no part of the text
