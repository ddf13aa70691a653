"""Rows of different lengths computed together, padding before the shorter ones: each as if it were alone."""

from itertools import pairwise

import mlx.core as mx
import pytest
from tiny import difference, native, tokens, variants

TOLERANCE = 1e-4  # measured: 6e-5 where the original itself is as far from float64 (gemma3n), 2e-6 elsewhere
LENGTHS = [40, 27, 9, 1]
PADDING = [max(LENGTHS) - length for length in LENGTHS]
MORE = 3  # tokens decoded after the prompts


@pytest.mark.parametrize("variant", variants())
def test_padded_rows_equal_rows_alone(variant: str) -> None:
    model = native(variant)
    rows = [tokens(length + MORE, seed=length) for length in LENGTHS]
    batch = mx.array([[7] * before + row for before, row in zip(PADDING, rows, strict=True)])
    alone = [model(mx.array([row]))[0] for row in rows]
    for first in (40, 15):  # the prompt at once, or in two chunks of which the first is padding only for some
        caches = model.make_caches(PADDING)
        cuts = [0, *sorted({first, 40}), *range(41, 41 + MORE)]
        pieces = [batch[:, start:end] for start, end in pairwise(cuts)]
        found = mx.concatenate([model(piece, caches) for piece in pieces], axis=1)
        for together, before, expected in zip(found, PADDING, alone, strict=True):
            assert difference(together[before:], expected) < TOLERANCE
        for cache in caches:
            cache.rewind(MORE)
        assert difference(model(batch[:, 40:], caches), found[:, 40:]) < TOLERANCE
