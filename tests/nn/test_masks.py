"""Masks: equal to the definition, position by position."""

import mlx.core as mx
import numpy as np
import pytest

from macllm.nn.masks import attention_mask, banded


def by_definition(queries: int, keys: int, window: int | None) -> np.ndarray:
    """A query sees itself and what came before, ``window`` positions in all."""
    seen = np.zeros((queries, keys), bool)
    for row in range(queries):
        position = keys - queries + row
        for key in range(keys):
            distance = position - key
            seen[row, key] = distance >= 0 and (window is None or distance < window)
    return seen


def as_booleans(mask: mx.array | str | None, queries: int, keys: int) -> np.ndarray:
    if mask is None:
        return np.ones((queries, keys), bool)
    if isinstance(mask, str):
        assert mask == "causal"
        return by_definition(queries, keys, None)
    return np.array(mask)


@pytest.mark.parametrize("window", [None, 1, 2, 3, 5, 8, 100])
def test_every_mask_equals_its_definition(window: int | None) -> None:
    for keys in range(1, 10):
        for queries in range(1, keys + 1):
            found = as_booleans(attention_mask(queries, keys, window), queries, keys)
            assert (found == by_definition(queries, keys, window)).all(), (queries, keys)


def test_the_cheapest_form_is_used() -> None:
    assert attention_mask(1, 50, None) is None
    assert attention_mask(1, 8, 8) is None
    assert attention_mask(7, 7, None) == "causal"
    assert attention_mask(7, 7, 7) == "causal"
    assert isinstance(attention_mask(7, 8, 7), mx.array)


def test_banded_has_one_band_of_the_windows_width() -> None:
    band = np.array(banded(6, 10, 3))
    assert (band.sum(axis=1) == 3).all()
