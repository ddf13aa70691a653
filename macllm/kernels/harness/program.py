"""Metal text as C++: what the two languages write differently is rewritten, and each kernel gets an entry.

Lines stay what they are, and the body is numbered as its ``.metal`` file is, so that a message names a line of it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import count
from pathlib import Path

import mlx.core as mx

from macllm.errors import MacllmError

INCLUDE = Path(__file__).parent / "include"
UTILITIES = "mlx/backend/metal/kernels/utils.h"  # MLX puts it before every custom kernel

# `threadgroup float tile[8][64], sums[4];` at the start of a statement
_SHARED = re.compile(
    r"(?P<before>(?:^|[;{}])\s*(?://[^\n]*\n\s*)*)threadgroup\s+"
    r"(?P<type>[A-Za-z_][\w:]*(?:\s*<[^;{}()]*>)?)\s+"
    r"(?P<names>\w+\s*(?:\[[^\];]*\]\s*)*(?:,\s*\w+\s*(?:\[[^\];]*\]\s*)*)*);",
    re.MULTILINE,
)
_INSTANTIATION = re.compile(r"template\s*\[\[host_name\([^\]]*\)\]\]\s*\[\[kernel\]\]\s*decltype\([^;]*;")
_VECTOR = re.compile(r"(?<![\w:])((?:metal::)?vec<[\w:]+,\s*\w+>)\(")
# `constant const int64_t strides[2]` in a list of parameters: clang has no address space there
_ARRAY_PARAMETER = re.compile(
    r"([(,]\s*(?:device|constant|threadgroup)\s+(?:const\s+)?[\w:]+)\s+(\w+)\[\w*\](?=\s*[,)])"
)
_SYSTEM_INCLUDE = re.compile(r"^[ \t]*#include <metal_\w+>[^\n]*$", re.MULTILINE)
_INCLUDE = re.compile(r'^[ \t]*#include "([^"]+)"[^\n]*$', re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_ATTRIBUTE = re.compile(r"\[\[\s*(\w+)(?:\((\d+)\))?")
_WIDE = re.compile(
    r"thread_position|threadgroup_position|threads_per_|threadgroups_per_|dispatch_threads|grid_"
)
_ONE_NUMBER = ("threads_per_simdgroup",)


@dataclass(frozen=True)
class Parameter:
    """Of a kernel function: a buffer with its index, or one of the thread's attributes."""

    name: str
    buffer: int | None
    attribute: str = ""
    reference: bool = False


@dataclass(frozen=True)
class Function:
    """A kernel function within a program's text: ``f<float, 64>``."""

    name: str
    arguments: str
    parameters: tuple[Parameter, ...]


def translated(text: str) -> str:
    """Metal text as C++ under ``include/metal/language.h``, line by line."""
    text = _INSTANTIATION.sub("", text)
    text = _ARRAY_PARAMETER.sub(r"\1* \2", text)
    number = count()
    before = None
    while before != text:  # declarations that follow each other share a semicolon
        before, text = text, _SHARED.sub(lambda match: _shared_variables(match, number), text)
    text = re.sub(r"\[\[\s*threadgroup\(\d+\)\s*\]\]", "", text)
    return _VECTOR.sub(r"harness::make<\1>(", text)


def _shared_variables(match: re.Match[str], number: Iterator[int]) -> str:
    """Variables of a threadgroup are not on a thread's stack: references to memory that the runtime owns."""
    made = match["before"]
    for each in re.split(r",\s*(?=\w+\s*(?:\[|$|,))", match["names"]):
        name, sizes = re.match(r"\s*(\w+)\s*(.*)$", each.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
        kind = f"{name}_shared"
        made += f"typedef {match['type']} {kind}{sizes}; threadgroup {kind}& {name} = "
        made += f"*(threadgroup {kind}*)harness::threadgroup_memory<{kind}>({next(number)});"
    return made


def with_includes(text: str, seen: set[str] | None = None) -> str:
    """``text`` with MLX's headers in place of their ``#include``, each once, so that they are translated too."""
    seen = set() if seen is None else seen
    text = _SYSTEM_INCLUDE.sub("", text).replace("#pragma once", "")

    def included(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        for folder in (INCLUDE, mlx_include()):
            if (folder / match[1]).is_file():
                return with_includes((folder / match[1]).read_text(encoding="utf-8"), seen)
        raise MacllmError(f"{match[1]}: MLX {version('mlx')} has no such header")

    return _INCLUDE.sub(included, text)


def mlx_include() -> Path:
    """The headers that come with MLX."""
    return Path(mx.__file__).parent / "include"


@cache
def prelude() -> str:
    """What every program begins with: Metal's language and what MLX adds to it. The same for all: precompiled."""
    return '#include "metal/language.h"\n' + translated(with_includes(f'#include "{UTILITIES}"\n'))


def parameters(text: str, function: str) -> tuple[Parameter, ...]:
    """The parameters of a kernel function; buffers without a number count up."""
    plain = _COMMENT.sub(" ", text)
    head = rf"(?:\[\[kernel[^\]]*\]\]\s*void|kernel\s+void)\s+{re.escape(function)}\s*\("
    match = re.search(head, plain)
    if match is None:
        raise MacllmError(f"the Metal text has no kernel {function}")
    found: list[Parameter] = []
    for each in _list_within(plain, match.end()):
        attribute = _ATTRIBUTE.search(each)
        name = re.findall(r"\w+", each.split("[[")[0])[-1]
        if attribute is None or attribute[1] == "buffer":
            counted = sum(one.buffer is not None for one in found)
            index = counted if attribute is None else int(attribute[2])
            found.append(Parameter(name, index, reference="&" in each))
        else:
            found.append(Parameter(name, None, attribute[1]))
    return tuple(found)


def _list_within(text: str, start: int) -> Iterator[str]:
    """The parts between commas of what follows an opening bracket."""
    depth, part = 0, ""
    for letter in text[start:]:
        if letter in ")]}>" and depth == 0:
            break
        depth += {"(": 1, "[": 1, "{": 1, "<": 1, ")": -1, "]": -1, "}": -1, ">": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            yield part
            part = ""
        else:
            part += letter
    if part.strip():
        yield part


def program(parts: Sequence[str], functions: Sequence[Function]) -> str:
    """The C++ program whose kernels are ``functions``, defined in ``parts`` of Metal text, after the prelude."""
    lines = ["#if defined(HARNESS_LINT)\n#pragma GCC poison double\n#endif"]
    lines.append(translated("\n".join(parts)))
    # the rest is C++: the words that Metal adds would be in the way
    lines += [f"#undef {word}" for word in ("device", "constant", "thread", "threadgroup", "kernel")]
    lines.append("namespace harness {")
    entries = []
    for number, function in enumerate(functions):
        arguments = ", ".join(map(_argument, function.parameters))
        call = f"{function.name}{function.arguments}({arguments})"
        lines.append(f"static void entry_{number}(void** buffers, const Position& position) {{ {call}; }}")
        entries.append(f'  {{"{function.name}", entry_{number}}},')
    lines += ["extern const Kernel kernels[];", "const Kernel kernels[] = {", *entries, "};", "}\n"]
    return "\n".join(lines)


def _argument(parameter: Parameter) -> str:
    if parameter.buffer is not None:
        kind = "ReferenceArgument" if parameter.reference else "PointerArgument"
        return f"{kind}{{buffers[{parameter.buffer}]}}"
    value = f"position.{parameter.attribute}"
    wide = _WIDE.match(parameter.attribute) and parameter.attribute not in _ONE_NUMBER
    return f"PositionArgument{{{value}}}" if wide else value
