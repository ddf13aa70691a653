"""Random adapters for a model, as they may be after training, written to a folder."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from macllm.adapters.files import Adapter, write
from macllm.adapters.method import Method
from macllm.adapters.targets import select
from macllm.nn.adapted import Factors
from macllm.spec import ModelSpec
from macllm.weights.model_files import open_model


def random_adapter(spec: ModelSpec, seed: int = 0, strength: float = 0.9, **settings: Any) -> Adapter:
    """A LoRA adapter of rank 4 on every matrix that ``targets`` names; ``strength``: about how long beside a matrix."""
    method = Method(rank=4, scale=1.0, **settings)
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> mx.array:
        return mx.array(generator.normal(0, 1, shape).astype(np.float32))

    factors = {}
    for tensor in select(spec, method.targets):
        *count, outputs, inputs = tensor.shape
        a = normal(*count, inputs, 4)
        b = normal(*count, 4, outputs) * (strength / 2 / np.sqrt(inputs))
        factors[tensor.name.removesuffix(".weight")] = Factors(a, b, method.factor)
    return Adapter(method, factors)


def written(model: Path, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """The folder of a random adapter for the model in a folder or a file."""
    spec = open_model(model).spec
    write(folder, spec, random_adapter(spec, seed, **settings), {"model": str(model)})
    return folder
