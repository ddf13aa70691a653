"""Examples with answers, a small model that can learn, and what every objective has to hold."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
from random_models import random_model

from macllm.adapters.method import Method
from macllm.nn.decoder import Decoder
from macllm.spec import ModelSpec
from macllm.tune.batches import Batch, Position, collate
from macllm.tune.examples import Example
from macllm.tune.methods import attach
from macllm.tune.objective import Objective
from macllm.tune.objectives.registry import objective_of
from macllm.tune.settings import checked
from macllm.tune.step import summed_gradients
from macllm.tune.trained import flat, put

LENGTHS = [(9, 3), (14, 6), (11, 1), (20, 9)]  # tokens of a row, and of its answer


def model_of(variant: str = "qwen3", seed: int = 0) -> Decoder:
    model = random_model(variant, seed=seed)
    model.eval()
    return model


@cache
def spec_of(variant: str = "qwen3") -> ModelSpec:
    return model_of(variant).spec


def examples(seed: int = 0, lengths: Sequence[tuple[int, int]] = LENGTHS) -> list[Example]:
    """Two of each, which share their prompt: the second's answer is two tokens longer."""
    chance = np.random.default_rng(seed)
    found = []
    for length, answer in lengths:
        prompt = chance.integers(0, 90, length - answer)
        for label, tokens in ((True, answer), (False, answer + 2)):
            ids = np.concatenate([prompt, chance.integers(0, 90, tokens)]).astype(np.int32)
            learned = np.arange(len(ids)) >= len(prompt)
            found.append(Example(ids, learned, "a.jsonl:1", label=label))
    return found


def batch_of(given: Sequence[Example], wider: int = 0, start: int = 0) -> Batch:
    """A batch of examples, each in a row of its own, with ``wider`` columns of padding more than it needs."""
    rows = [(index,) for index in range(start, len(given))]
    return collate(given, rows, lambda length: length + wider, Position(0))


def base_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    return folder


def begun(
    base: Path, model: Decoder, given: Sequence[Example], name: str, **settings: float | str
) -> Objective:
    """The objective of this name, which knows the examples; the model learns by LoRA from here on."""
    objective = objective_of(checked({"objective": name, "batch_size": 2, **settings}), model.spec, base)
    list(objective.begin(model, given))
    attach(model, model.spec, Method(rank=3, scale=4.0), seed=1)
    objective.equip(model)
    return objective


def learn(model: Decoder, objective: Objective, *batches: Batch, far: float = 0.3) -> dict[str, mx.array]:
    """A step of gradient descent, so far; its gradients by path."""
    found = gradients(model, objective, *batches)
    norm = mx.sqrt(sum((mx.square(one).sum() for one in found.values()), mx.array(0.0)))
    put(model, {name: one - far / norm * found[name] for name, one in flat(model).items()})
    mx.eval(model.parameters())
    return found


def value(model: Decoder, objective: Objective, *batches: Batch) -> float:
    """The loss of a step over micro-batches."""
    ready = objective.ready_step(model, batches, 0)
    found = [objective.loss(model, batch, learns=False) for batch in ready]
    return sum(float(total.item()) for total, _ in found) / sum(count for _, count in found)


def gradients(
    model: Decoder, objective: Objective, *batches: Batch, checkpoint: bool = False
) -> dict[str, mx.array]:
    """The gradient of the mean over a step by path."""
    ready = objective.ready_step(model, batches, 0)
    _, count, found = summed_gradients(
        model, ready, lambda batch: objective.loss(model, batch, checkpoint=checkpoint)
    )
    return {name: one / count for name, one in found.items()}
