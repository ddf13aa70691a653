"""The table of llama.cpp's architectures: how each is read, how it is written, and what is laid out its own way."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from macllm.families.names import Table
from macllm.spec import ModelSpec
from macllm.weights.gguf.header import Config, Header

Metadata: TypeAlias = dict[str, Any]  # whole numbers are uint32, others float32 where they are stored
Read: TypeAlias = Callable[[Header], Config]
Write: TypeAlias = Callable[[ModelSpec, Metadata], Metadata]
Layout: TypeAlias = Callable[[ModelSpec], Table]
Fits: TypeAlias = Callable[[ModelSpec], bool]
Stated: TypeAlias = Callable[[ModelSpec], ModelSpec]


@dataclass(frozen=True)
class Architecture:
    """One value of ``general.architecture``.

    ``families`` are the model types whose models are written as it; ``write`` turns the keys that the spec gives
    (without the architecture's prefix) into those that the architecture has; ``layout`` gives the tensors that lie
    otherwise than in the table of all architectures. ``fits`` decides where a family has several; ``stated`` is the
    model as a file has it, where weights take what the spec has beside them.
    """

    name: str
    read: Read
    families: tuple[str, ...]
    write: Write
    layout: Layout
    fits: Fits
    stated: Stated


ARCHITECTURES: dict[str, Architecture] = {}


def as_they_are(spec: ModelSpec, keys: Metadata) -> Metadata:
    """The keys that every architecture has."""
    return keys


def as_in_most(spec: ModelSpec) -> Table:
    """The layout of most architectures."""
    return {}


def architecture(
    name: str,
    *families: str,
    write: Write = as_they_are,
    layout: Layout = as_in_most,
    fits: Fits = lambda spec: True,
    stated: Stated = lambda spec: spec,
) -> Callable[[Read], Read]:
    """Enters a function from a file's header to the config of its model."""

    def enter(read: Read) -> Read:
        ARCHITECTURES[name] = Architecture(name, read, families, write, layout, fits, stated)
        return read

    return enter


def without(keys: Metadata, *left_out: str) -> Metadata:
    """Keys that the architecture does not have: readers know what they would say."""
    return {key: value for key, value in keys.items() if key not in left_out}


def one_window(keys: Metadata) -> Metadata:
    """A window that all layers have needs no pattern; one that they have not is left for the check to find."""
    pattern = keys.get("attention.sliding_window_pattern", [False])
    return without(keys, "attention.sliding_window_pattern") if all(pattern) else keys
