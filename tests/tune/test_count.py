"""What learns is counted before anything is loaded as it is counted when a method is attached."""

import pytest
from base_models import random_model, wide_spec

from macllm.adapters.method import Bottleneck, Method
from macllm.tune.count import COUNTED, learned_parameters
from macllm.tune.methods import attach

SOME = [
    Method("lora", 3),
    Method("lora", 2, targets=("attention",), num_layers=1),
    Method("rslora", 2),
    Method("pissa", 2),
    Method("dora", 3, targets=("mlp",)),
    Method("full"),
    Method("full", num_layers=1),
]


@pytest.mark.parametrize("variant", ["llama-biases", "qwen3-moe"])
def test_the_count_is_the_models(variant: str) -> None:
    spec = wide_spec(variant)
    model = random_model(spec, "dense")
    for method in SOME:
        assert learned_parameters(spec, method) == attach(model, spec, method).parameters, method
    quantized, packed = Method("qlora", 3, targets=("attention",)), random_model(spec, "affine")
    assert learned_parameters(spec, quantized) == attach(packed, spec, quantized).parameters
    assert {method.kind for method in SOME} | {"qlora"} == set(COUNTED)


def test_others_are_counted_when_they_are_attached() -> None:
    assert learned_parameters(wide_spec("llama-biases"), Bottleneck()) is None
