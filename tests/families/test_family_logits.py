"""Logits of every native family against its original implementation, on tiny random weights in float32."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import config_of, decoder, difference, read_config, reference, tokens, variants

from macllm.families import spec_from_config
from macllm.spec import State
from macllm.weights.companions import portable

TOLERANCE = 1e-4  # relative; measured: 4e-6
LENGTH = 40  # longer than the narrow windows and the original contexts of the scaled ropes
IDS = [tokens(LENGTH), tokens(LENGTH, seed=1)]


def logits(model, rows: list[list[int]]) -> np.ndarray:
    return np.array(model(mx.array(rows)))


@pytest.mark.parametrize("variant", variants())
def test_whole_prompt_equals_the_original(variant: str) -> None:
    original = reference(variant)
    assert difference(logits(decoder(original.folder), IDS), original.logits(IDS)) < TOLERANCE


@pytest.mark.parametrize("variant", variants())
def test_step_by_step_equals_the_original(variant: str) -> None:
    original = reference(variant)
    model = decoder(original.folder)
    caches = model.make_caches()
    steps = [model(mx.array(IDS)[:, i : i + 1], caches) for i in range(LENGTH)]
    assert difference(mx.concatenate(steps, axis=1), original.logits(IDS)) < TOLERANCE


@pytest.mark.parametrize("variant", variants())
def test_repository_form_and_saved_form_of_a_config_mean_the_same(variant: str) -> None:
    """``rope_theta`` and ``rope_scaling`` as repositories carry them; ``rope_parameters`` as transformers 5 saves."""
    folder = reference(variant).folder
    ours = decoder(folder, config_of(variant))
    rotary = any(getattr(layer.mixer, "rope", None) for layer in ours.spec.layers)
    assert not rotary or "rope_parameters" in read_config(folder)
    assert ours.spec == decoder(folder).spec
    assert difference(logits(ours, IDS), reference(variant).logits(IDS)) < TOLERANCE


@pytest.mark.parametrize("variant", variants())
def test_a_config_written_for_older_readers_means_the_same(variant: str) -> None:
    spec, config = decoder(reference(variant).folder).spec, read_config(reference(variant).folder)
    assert spec_from_config(portable(config, spec)) == spec


@pytest.mark.parametrize("variant", variants())
def test_layers_beyond_the_window_see_no_further(variant: str) -> None:
    """A token out of every window's reach changes nothing; one within full attention's reach does."""
    model = decoder(reference(variant).folder)
    changed = [*IDS[0]]
    changed[0] = (changed[0] + 1) % model.spec.vocab
    apart = difference(logits(model, [changed])[:, -1], logits(model, [IDS[0]])[:, -1])
    reach = 0
    for layer in model.spec.layers:
        # what a layer cannot look back at, the one below may have: their reaches add up
        caches = layer.caches
        unbounded = any(isinstance(cache, State) or cache.reach is None for cache in caches)
        reach += LENGTH if unbounded else max((cache.reach - 1 for cache in caches), default=0)
    assert (apart > 0) == (reach >= LENGTH - 1)
