"""Adapters made fast for answering compute what the ones that learn do, on every base, with every method."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from base_models import random_model, wide_spec

from macllm.adapters.files import Adapter, apply
from macllm.adapters.method import Method
from macllm.nn.adapted import adapters as adapters_of
from macllm.nn.beside import restore
from macllm.nn.decoder import Decoder
from macllm.nn.settled import SettledLinear, settle
from macllm.tune.methods import attach, detach

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (1, 7)))


def learned(model: Decoder, method: Method) -> Adapter:
    """An adapter as it may be after training."""
    attach(model, model.spec, method)
    generator = np.random.default_rng(1)
    found = {}
    for name, adapter in adapters_of(model):
        one = adapter.factors
        lengths = one.magnitude
        if lengths is not None:
            lengths = lengths * mx.array(generator.uniform(0.8, 1.2, lengths.shape).astype(np.float32))
        b = mx.array(generator.normal(0, 0.05, one.b.shape).astype(np.float32))
        found[name] = replace(one, b=b, magnitude=lengths)
    detach(model)
    return Adapter(method, found)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(
    ("variant", "base"), [("qwen2", "affine"), ("mixtral", "dense"), ("llama", "blocks")]
)
def test_settled_is_what_learned(variant: str, base: str, kind: str) -> None:
    model = random_model(wide_spec(variant), base)
    alone = model(TOKENS)
    apply(model, learned(model, Method(kind=kind, rank=3, scale=2.0)))  # type: ignore[arg-type]
    slow = model(TOKENS)
    settle(model, mx.float32)
    fast = model(TOKENS)
    off = mx.abs(fast - slow).max().item() / mx.abs(slow - alone).max().item()
    assert off < 1e-4
    restore(model)
    assert mx.array_equal(model(TOKENS), alone)


def test_a_part_without_an_adapter_gives_what_it_gave() -> None:
    model = random_model(wide_spec("qwen2"))
    adapter = learned(model, Method(rank=3, targets=("q", "v")))
    apply(model, adapter)
    settle(model, mx.float32)
    found = [module for module in model.modules() if isinstance(module, SettledLinear)]
    assert len(found) == len(model.layers)
    x = mx.random.normal((1, 4, model.spec.dim), key=mx.random.key(3))
    layer = found[0]
    widths = [part.width for part in layer.base.parts]
    start, end = widths[0], widths[0] + widths[1]
    assert mx.array_equal(layer(x)[..., start:end], layer.base(x)[..., start:end])
    assert not mx.array_equal(layer(x), layer.base(x))
