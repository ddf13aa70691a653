"""A module's trainable parameters as what a function is differentiated by: put in for a call, and taken out again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten, tree_unflatten


@contextmanager
def replaced(module: Module, parameters: Any) -> Iterator[None]:
    """The module with other ``parameters``, a tree as its ``trainable_parameters()``, while the block runs.

    What a trace puts in must not stay: it would be taken for the weights by whoever asks next.
    """
    before = module.trainable_parameters()
    module.update(parameters)
    try:
        yield
    finally:
        module.update(before)


def flat(module: Module) -> dict[str, mx.array]:
    """Every trainable array by its path, in the module's order."""
    return leaves(module.trainable_parameters())


def leaves(tree: Any) -> dict[str, mx.array]:
    """The arrays of a tree by their paths."""
    found: Any = tree_flatten(tree)
    return dict(found)


def number(scalar: mx.array) -> float:
    """The value of an array of one."""
    return float(np.array(scalar, np.float64))


def put(module: Module, parameters: Mapping[str, mx.array]) -> None:
    """Sets arrays by their paths, as :func:`flat` gives them."""
    module.update(tree_unflatten(list(parameters.items())))
