"""What learns beside a base model, and is none of its weights: put in, found, and taken out again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten, tree_unflatten


class Beside(Module):
    """Parameters that are none of the base's. ``place`` is their canonical name; empty where a method names its own."""

    def __init__(self, place: str = "") -> None:
        super().__init__()
        self.place = place


class Around(Module):
    """A layer that stands in the place of its ``base``."""

    base: Any


def restore(model: Module) -> None:
    """Takes out of a model again whatever learns beside it."""
    for module in list(model.modules()):
        for key, part in list(module.items()):
            if isinstance(part, Around):
                module[key] = part.base
            elif isinstance(part, Beside):
                del module[key]


@contextmanager
def without_adapters(model: Module) -> Iterator[None]:
    """The model as it is without what learns beside it, while the block runs: what it was before it learned."""
    taken = [
        (module, key, part)
        for module in list(model.modules())
        for key, part in list(module.items())
        if isinstance(part, Around | Beside)
    ]
    restore(model)
    try:
        yield
    finally:
        for module, key, part in taken:
            module[key] = part


def learned(model: Module) -> dict[str, mx.array]:
    """What stands beside a model under canonical names, but for factors of matrices."""
    return {
        f"{module.place}.{name}": array
        for module in _placed(model)
        for name, array in _arrays(module).items()
    }


def put_learned(model: Module, tensors: Mapping[str, mx.array]) -> None:
    """Sets all that :func:`learned` names."""
    for module in _placed(model):
        own = [(name, tensors[f"{module.place}.{name}"]) for name in _arrays(module)]
        module.update(tree_unflatten(own))


def _placed(model: Module) -> Iterator[Beside]:
    return (module for module in model.modules() if isinstance(module, Beside) and module.place)


def _arrays(module: Module) -> dict[str, mx.array]:
    found: Any = tree_flatten(module.parameters())
    return dict(found)
