"""What learns is counted before anything is loaded as it is counted when a method is attached."""

import pytest
from base_models import random_model, wide_spec

from macllm.adapters.method import KINDS, Method
from macllm.adapters.shapes import parameters
from macllm.tune.job import method_of
from macllm.tune.methods import attach
from macllm.tune.settings import DEFAULTS

BASES = {"qlora": "affine", "qalora": "affine"}
SOME = [
    Method("lora", 2, targets=("attention",), num_layers=1),
    Method("dora", 3, targets=("mlp",)),
    Method("full", num_layers=1),
]


@pytest.mark.parametrize("variant", ["llama-biases", "qwen3-moe"])
def test_the_count_is_the_models(variant: str) -> None:
    spec = wide_spec(variant)
    models = {base: random_model(spec, base) for base in ("dense", "affine")}
    for kind in KINDS:
        if kind == "bottleneck" and variant == "qwen3-moe":
            continue  # one variant of it is enough: it is of the layers' width alone
        targets = "attention" if kind in BASES else "all"
        method = method_of({**DEFAULTS, "method": kind, "rank": 3, "targets": targets})
        model = models[BASES.get(kind, "dense")]
        assert parameters(spec, method) == attach(model, spec, method).parameters, kind
    for method in SOME:
        assert parameters(spec, method) == attach(models["dense"], spec, method).parameters, method
