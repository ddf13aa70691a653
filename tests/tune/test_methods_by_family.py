"""Every family's model with adapters on all its matrices, and fully unfrozen: what is to learn has a gradient."""

import mlx.core as mx
import pytest
from base_models import random_model
from mlx import nn
from mlx.utils import tree_flatten
from tiny import config_of, first_variants

from macllm import sizes
from macllm.adapters.learnable import fully_learned
from macllm.adapters.method import Method
from macllm.families import spec_from_config
from macllm.nn.decoder import Decoder
from macllm.tune.methods import attach

TOKENS = mx.array([[5, 3, 77, 21, 9, 1, 2, 8]])


def gradients(model: Decoder) -> dict[str, mx.array]:
    def loss(model: Decoder) -> mx.array:
        return nn.losses.cross_entropy(model(TOKENS)[:, :-1], TOKENS[:, 1:]).mean()

    return dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))


@pytest.mark.parametrize("variant", first_variants())
def test_what_is_to_learn_has_a_gradient(variant: str) -> None:
    spec = spec_from_config(config_of(variant))
    model = random_model(spec)
    before = model(TOKENS)
    attached = attach(model, spec, Method(rank=2, scale=1.0))
    assert mx.array_equal(model(TOKENS), before)
    assert attached.parameters == sum(sizes.adapter_tensors(spec, 2))
    second = {name: one for name, one in gradients(model).items() if name.endswith("lora_b")}
    assert [name for name, one in second.items() if not mx.any(one)] == []
    attached = attach(model, spec, Method("full"))
    learned = fully_learned(spec)
    assert attached.parameters == sum(tensor.size for tensor in spec.tensors() if tensor.name in learned)
    assert [name for name, one in gradients(model).items() if not mx.any(one)] == []
    attach(model, spec, Method("full", num_layers=1))
    assert all(mx.any(one) for one in gradients(model).values())
