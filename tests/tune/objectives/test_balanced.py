"""The balancing loss beside an objective: transformers' figure, through checkpoints, without padding."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from answers import base_folder, batch_of, examples, gradients, learn, model_of, spec_of, value

from macllm.adapters.method import Method
from macllm.errors import OptionError
from macllm.tune.methods import attach
from macllm.tune.objectives.registry import objective_of
from macllm.tune.settings import checked

VARIANTS = ["mixtral", "qwen3-moe", "gemma4-experts"]


def made(variant: str, tmp_path: Path, balance: float, objective: str = "sft"):
    model = model_of(variant)
    settings = checked({"objective": objective, "balance": balance, "batch_size": 2})
    found = objective_of(settings, model.spec, base_folder(tmp_path))
    list(found.begin(model, examples()))
    attach(model, model.spec, Method(rank=3, scale=4.0, targets=("attention", "mlp", "router")), seed=1)
    return model, found


def uneven(model, batch) -> float:
    """The loss by its definition, in float64, one token after the other."""
    from macllm.nn.balancing import expert_blocks, router_logits

    with router_logits(model) as logits:
        model(mx.array(batch.ids[:, :-1]))
    top_k = expert_blocks(model)[0].spec.top_k
    real = (batch.segments[:, :-1] > 0) & (batch.segments[:, 1:] > 0)
    rows = np.concatenate([np.array(each, np.float64)[real] for each in logits])
    chances = np.exp(rows - rows.max(-1, keepdims=True))
    chances /= chances.sum(-1, keepdims=True)
    chosen = np.zeros_like(chances)
    np.put_along_axis(chosen, np.argsort(-chances, axis=-1)[:, :top_k], 1.0, axis=-1)
    return float(rows.shape[-1] * (chosen.mean(0) * chances.mean(0)).sum())


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_it_is_added_to_the_mean(tmp_path: Path, objective: str) -> None:
    model, plain = made("mixtral", tmp_path, 0.0, objective)
    _, found = made("mixtral", tmp_path, 0.5, objective)
    batch = batch_of(examples(), wider=9)
    (total, count), (before, _) = (one.loss(model, batch) for one in (found, plain))
    extra = (total.item() - before.item()) / count
    assert extra == pytest.approx(0.5 * uneven(model, batch), rel=1e-4)
    assert found.together == plain.together and found.packs == plain.packs
    # where nothing learns, runs with and without it can be compared
    assert value(model, found, batch) == value(model, plain, batch)
    mean = found.figures(model, batch)["aux_loss"]
    assert mean[0] / mean[1] == pytest.approx(uneven(model, batch), rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_reaches_adapters_through_checkpoints(tmp_path: Path, variant: str) -> None:
    model, found = made(variant, tmp_path, 0.5)
    batch = batch_of(examples())
    learn(model, found, batch)
    plain, again = (gradients(model, found, batch, checkpoint=checkpoint) for checkpoint in (False, True))
    _, without = made(variant, tmp_path, 0.0)
    for path, one in plain.items():
        assert mx.abs(again[path] - one).max().item() <= 1e-5 * (1 + mx.abs(one).max().item()), path
    alone = gradients(model, without, batch)
    routers = [path for path in plain if "router" in path and path.endswith("lora_b")]
    assert routers and all(mx.abs(plain[path] - alone[path]).max().item() > 1e-4 for path in routers)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    model, found = made("mixtral", tmp_path, 0.5)
    narrow, wide = (found.loss(model, batch_of(examples(), wider=wider))[0].item() for wider in (0, 21))
    assert wide == pytest.approx(narrow, rel=1e-5)


def test_a_model_without_experts_is_refused() -> None:
    with pytest.raises(OptionError, match=r"balance=0.01 is for mixtures of experts, and family 'qwen3'"):
        objective_of(checked({"balance": 0.01}), spec_of(), Path("base"))
