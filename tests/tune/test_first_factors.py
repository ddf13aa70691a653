"""What QA-LoRA, PiSSA and QLoRA begin with, what they refuse, and how fast LoRA+ lets each factor learn."""

from contextlib import suppress
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from base_models import BASES, random_model, wide_spec
from mlx import nn
from mlx.utils import tree_flatten, tree_map

from macllm.adapters.method import KINDS, Method
from macllm.errors import OptionError
from macllm.nn.adapted import adapters, plain
from macllm.nn.decoder import Decoder
from macllm.tune.first_factors import principal
from macllm.tune.forward import hidden
from macllm.tune.job import method_of
from macllm.tune.methods import attach, detach, rate_shares
from macllm.tune.optimizers import Optimizer, OptimizerSpec
from macllm.tune.settings import DEFAULTS
from macllm.tune.trained import flat

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (2, 12)))
CASES = [
    ("llama", "pissa", "dense"),
    ("llama", "pissa", "nf4"),
    ("qwen3-moe", "pissa", "affine"),
    ("deepseek-v3", "pissa", "dense"),
    ("llama", "qalora", "affine"),
    ("qwen3-moe", "qalora", "affine"),
]


def method(kind: str) -> Method:
    """With targets whose matrices are wide enough to be packed."""
    return Method(kind, 3, 2.0, targets=("q,gate,up" if kind == "qalora" else "all",))


def gradients(model: Decoder, *, checkpoint: bool = False) -> dict[str, mx.array]:
    def loss(model: Decoder) -> mx.array:
        return (hidden(model, TOKENS, checkpoint=checkpoint) ** 3).mean()

    return dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))


@pytest.mark.parametrize(("variant", "kind", "base"), CASES)
def test_the_start_is_the_base_to_the_bit_and_all_of_it_learns(variant: str, kind: str, base: str) -> None:
    spec = wide_spec(variant)
    model = random_model(spec, base)
    before = model(TOKENS)
    attached = attach(model, spec, method(kind))
    for mode in (False, True):
        model.train(mode)
        assert mx.array_equal(model(TOKENS), before)
    assert set(attached.names) == set(flat(model))
    mx.random.seed(1)
    moved = tree_map(lambda one: one + 0.1 * mx.random.normal(one.shape), model.trainable_parameters())
    model.update(moved)
    assert not mx.array_equal(model(TOKENS), before)
    once, twice = gradients(model), gradients(model, checkpoint=True)
    assert all(mx.any(one) for one in once.values())
    assert all(np.allclose(once[name], twice[name], rtol=1e-3, atol=1e-5) for name in once)
    detach(model)
    assert mx.array_equal(model(TOKENS), before)


def test_principal_finds_the_largest_part_of_a_matrix() -> None:
    generator = np.random.default_rng(3)
    wide = generator.normal(size=(96, 200)) * np.exp(-np.arange(200) / 30)
    for values in (wide, wide.T, wide[:6]):
        matrix = mx.array(values.astype(np.float32))
        left, lengths, right = principal(matrix, 5, mx.random.key(0))
        u, s, v = np.linalg.svd(values, full_matrices=False)
        assert np.allclose(lengths, s[:5], rtol=1e-3)
        best = (u[:, :5] * s[:5]) @ v[:5]
        assert np.abs(np.array((left * lengths) @ right.T) - best).max() < 2e-2 * np.abs(best).max()


def test_pissa_learns_the_largest_part_and_keeps_the_rest() -> None:
    """With the first factors at zero what remains is the matrix without that part."""
    spec = wide_spec("llama")
    model = random_model(spec, "nf4")
    attach(model, spec, Method("pissa", 4, 2.0, targets=("q",), num_layers=1))
    ((name, adapter),) = adapters(model)
    matrix = np.array(plain(dict(model.tensors())[f"{name}.weight"]))
    s = np.linalg.svd(matrix, compute_uv=False)
    adapter.lora_b = mx.zeros(adapter.lora_b.shape)
    left = adapter.merged(dict(model.tensors())[f"{name}.weight"])
    assert np.linalg.norm(left, 2) < s[3]  # the largest four are gone, as near as the search found them
    assert np.linalg.norm(np.array(left)) ** 2 == pytest.approx((s[4:] ** 2).sum(), rel=0.05)
    assert np.allclose(adapter.scale * (adapter.lora_a.T @ adapter.lora_a).diag(), s[:4], rtol=0.1)


@pytest.mark.parametrize("base", ["dense", "nf4", "blocks"])
def test_qalora_refuses_a_base_without_biases_by_name(base: str) -> None:
    spec = wide_spec("llama")
    stored = {"dense": "plain numbers", "nf4": "nf4 4-bit.*", "blocks": "Q8_0 blocks.*"}[base]
    with pytest.raises(
        OptionError, match=rf"^layers.0.mixer.q is stored as {stored}, and qalora folds.*mode affine"
    ):
        attach(random_model(spec, base), spec, Method("qalora", 3, 2.0, targets=("q",)))


def test_qlora_is_lora_on_packed_weights_and_refuses_plain_ones() -> None:
    spec = wide_spec("llama")
    targets = ("q,k,v,o",)
    with pytest.raises(OptionError, match=r"^layers.0.mixer.q is stored plain, .*or take lora"):
        attach(random_model(spec), spec, Method("qlora", 3, targets=targets))
    model = random_model(spec, "nf4")
    found = {}
    for kind in ("lora", "qlora"):
        attach(model, spec, Method(kind, 3, targets=targets))
        found[kind] = flat(model)
    assert found["lora"].keys() == found["qlora"].keys()
    assert all(mx.array_equal(one, found["qlora"][name]) for name, one in found["lora"].items())


def test_pissa_refuses_a_rank_that_a_matrix_does_not_have() -> None:
    spec = wide_spec("llama")
    with pytest.raises(OptionError, match=r"^layers.0.mixer.q is \d+ x \d+ and has no part of rank 900"):
        attach(random_model(spec), spec, Method("pissa", 900, targets=("q",)))


@cache
def of_base(base: str) -> Decoder:
    return random_model(wide_spec("llama"), base)


@pytest.mark.parametrize("kind", KINDS)
def test_each_method_takes_the_bases_that_its_page_names(kind: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "finetuning-methods.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith(f"| `{kind}` |"))
    packed = {base for base, q in BASES.items() if q is not None}
    named = {"all": set(BASES), "packed": packed, "affine": {"affine"}, "16-bit, 32-bit": {"dense"}}
    spec, taken = wide_spec("llama"), set()
    method = method_of({**DEFAULTS, "method": kind, "targets": "all" if kind == "bottleneck" else "q,o"})
    for base in BASES:
        with suppress(OptionError):
            attach(of_base(base), spec, method)
            taken.add(base)
    assert taken == named[line.split("|")[-2].strip()]


@pytest.mark.parametrize("ratio", [1.0, 16.0])
def test_lora_plus_lets_the_second_factor_learn_faster(ratio: float) -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    attached = attach(model, spec, Method(rank=3))
    shares = rate_shares(attached.names, ratio)
    before = flat(model)
    optimizer = Optimizer(OptimizerSpec("sgd", clip=None), before, shares)
    ones = {name: mx.ones(array.shape) for name, array in before.items()}
    after = optimizer.update(before, ones, 0.01)
    for name in before:
        moved = mx.abs(before[name] - after[name])
        assert np.allclose(moved, 0.01 * (ratio if name.endswith("lora_b") else 1.0), rtol=1e-4)


def test_lora_plus_is_refused_where_there_is_no_second_factor() -> None:
    spec = wide_spec("llama")
    names = attach(random_model(spec), spec, Method("full")).names
    assert rate_shares(names, 16.0) == {}
    with pytest.raises(
        OptionError, match=r"^loraplus_ratio=16 is for methods with two factors \(lora, .*at 1"
    ):
        method_of({**DEFAULTS, "method": "ia3", "loraplus_ratio": 16.0})
