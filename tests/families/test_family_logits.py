"""Logits of every native family against its original implementation, on tiny random weights in float32."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import config_of, difference, native, read_config, reference, tokens, variants, variants_by_pace

from macllm.families import spec_from_config
from macllm.spec import MoE, State
from macllm.weights.companions import portable

TOLERANCE = 1e-4  # relative; measured: 4e-6
LENGTH = 40  # longer than the narrow windows and the original contexts of the scaled ropes
IDS = [tokens(LENGTH), tokens(LENGTH, seed=1)]


def logits(model, rows: list[list[int]]) -> np.ndarray:
    return np.array(model(mx.array(rows)))


@pytest.mark.parametrize("variant", variants())
def test_logits_equal_the_originals(variant: str) -> None:
    """The prompt at once and token by token."""
    model, expected = native(variant), reference(variant).logits(IDS)
    assert difference(logits(model, IDS), expected) < TOLERANCE
    caches = model.make_caches()
    steps = [model(mx.array(IDS)[:, i : i + 1], caches) for i in range(LENGTH)]
    assert difference(mx.concatenate(steps, axis=1), expected) < TOLERANCE


@pytest.mark.parametrize("variant", variants_by_pace())
def test_all_forms_of_a_config_mean_the_same(variant: str) -> None:
    """As repositories carry it, as transformers 5 saves it, and as it is written for older readers."""
    saved, spec = read_config(reference(variant).folder), native(variant).spec
    rotary = any(getattr(layer.mixer, "rope", None) for layer in spec.layers)
    assert not rotary or "rope_parameters" in saved
    assert spec_from_config(config_of(variant)) == spec
    assert spec_from_config(portable(saved, spec)) == spec


@pytest.mark.parametrize("variant", variants_by_pace())
def test_layers_beyond_the_window_see_no_further(variant: str) -> None:
    """A token out of every window's reach changes nothing; one within full attention's reach does.

    In mixtures nothing but rounding: an expert takes the rows of all tokens that chose it as one product.
    """
    model = native(variant)
    changed = [*IDS[0]]
    changed[0] = (changed[0] + 1) % model.spec.vocab
    apart = difference(logits(model, [changed])[:, -1], logits(model, [IDS[0]])[:, -1])
    reach = 0
    for layer in model.spec.layers:
        # what a layer cannot look back at, the one below may have: their reaches add up
        caches = layer.caches
        unbounded = any(isinstance(cache, State) or cache.reach is None for cache in caches)
        reach += LENGTH if unbounded else max((cache.reach - 1 for cache in caches), default=0)
    rounding = 1e-5 if any(isinstance(layer.channel, MoE) for layer in model.spec.layers) else 0.0
    assert (apart > rounding) == (reach >= LENGTH - 1)
