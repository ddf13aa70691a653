"""Layers that see an earlier layer's keys and values: they have no projections and no cache of their own."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import config_of, decoder, reference, tokens

from macllm import sizes
from macllm.errors import ConfigError
from macllm.families import spec_from_config

SHARING = ["gemma3n", "gemma4", "gemma4-many-experts-shared"]


@pytest.mark.parametrize("variant", SHARING)
def test_a_layer_without_keys_names_the_last_of_its_kind_that_has_them(variant: str) -> None:
    spec = spec_from_config(config_of(variant))
    mixers = [layer.mixer for layer in spec.layers]
    own = [index for index, mixer in enumerate(mixers) if mixer.source is None]
    assert own == list(range(len(own)))
    for index in range(len(own), len(mixers)):
        alike = [i for i in own if mixers[i].window == mixers[index].window]
        assert mixers[index].source == alike[-1]
        names = {tensor.name.split(".")[1] for tensor in mixers[index].tensors("mixer")}
        assert not names & {"k", "v", "k_norm", "v_norm"}
    assert spec.sources == {mixer.source for mixer in mixers} - {None}
    assert len(spec.caches) == len(own)


@pytest.mark.parametrize("variant", SHARING)
def test_bytes_and_rewinding_are_those_of_the_layers_with_keys(variant: str) -> None:
    model = decoder(reference(variant).folder)
    caches = model.make_caches()
    assert len(caches) < len(model.layers)
    model(mx.array([tokens(20)]), caches)
    assert sum(cache.nbytes for cache in caches) == sizes.kv_bytes(model.spec, 20, value_bytes=4)
    whole = sizes.kv_bytes_per_token(model.spec, 4)
    assert whole == sum(layer.caches[0].values_per_token * 4 for layer in model.spec.layers if layer.caches)
    for cache in caches:
        cache.rewind(5)
    found = model(mx.array([[3, 4]]), caches)
    expected = model(mx.array([[*tokens(20)[:15], 3, 4]]))[:, 15:]
    assert np.allclose(found, expected, atol=1e-5)


def test_a_kind_that_no_earlier_layer_is_of_cannot_be_shared() -> None:
    config = {**config_of("gemma3n"), "num_kv_shared_layers": 6}  # but one layer, which slides
    with pytest.raises(ConfigError, match=r"num_kv_shared_layers=6 is not supported .*a layer of each kind"):
        spec_from_config(config)
