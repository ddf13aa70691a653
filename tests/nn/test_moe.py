"""Mixtures of experts: every way to score, choose and compute them, against one written out in numpy."""

from dataclasses import replace
from itertools import product
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from moe_reference import mixture
from random_parameters import RandomParameters
from tiny import difference

from macllm.nn import moe
from macllm.nn.moe import MoEBlock
from macllm.nn.stack import SeparateStack, Stack
from macllm.quantization import Quantization
from macllm.spec import MLP, MoE

TOLERANCE = 1e-5
BASE = MoE(dim=24, hidden=20, experts=8, top_k=3)
MANY = replace(BASE, experts=64, top_k=5)  # more experts than most tests have tokens
GROUPS: list[dict[str, Any]] = [
    {},
    {"groups": 4, "top_groups": 2, "group_score": "best"},
    {"groups": 4, "top_groups": 2, "group_score": "best_two"},
    {"groups": 2, "top_groups": 1, "group_score": "best_two"},
]
WAYS = ("gather", "sorted", "apart")
Q4, Q8, MXFP4 = Quantization(4, 64), Quantization(8, 32), Quantization(4, 32, "mxfp4")


def states(spec: MoE, count: int, seed: int = 1) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=(1, count, spec.dim)).astype(np.float32))


def way(block: MoEBlock, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the block compute its experts by one gather, by a gather in order, or one after the other."""
    monkeypatch.setattr(moe, "_SORTED_FROM", 1 << 30 if name == "gather" else 0)
    block._apart_from = 0 if name == "apart" else None


def assert_equals_reference(spec: MoE, monkeypatch: pytest.MonkeyPatch, count: int = 9, **held: Any) -> None:
    parameters = RandomParameters(spec, **held)
    block, x = MoEBlock(spec, parameters, "x"), states(spec, count)
    expected = mixture(spec, parameters.values(), np.array(x[0]))
    for name in WAYS:
        way(block, name, monkeypatch)
        assert difference(block(x)[0], expected) < TOLERANCE, name


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("score", ["softmax", "softmax_chosen", "sigmoid"])
def test_every_way_to_score_and_choose(score: str, groups: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    for base, renormalize, correction in product((BASE, MANY), (False, True), (False, True)):
        spec = replace(base, score=score, renormalize=renormalize, correction=correction, **groups)
        assert_equals_reference(replace(spec, weight_scale=2.5 if correction else 1.0), monkeypatch)


@pytest.mark.parametrize(
    "changes",
    [
        {"router_bias": True, "bias": True, "activation": "clamped_swiglu"},
        {"gated": False, "activation": "relu2"},
        {"shared": MLP(24, 32)},
        {"shared": MLP(24, 32), "shared_gated": True, "bias": True},
        {"top_k": 1},
        {"top_k": 8},
        {"experts": 1, "top_k": 1},
    ],
    ids=str,
)
def test_every_kind_of_expert(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equals_reference(replace(BASE, **changes), monkeypatch)


def test_the_clamp_of_the_gate_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(BASE, dim=400, activation="clamped_swiglu", bias=True)
    parameters = RandomParameters(spec)
    up = parameters.values()["x.experts.up.weight"] @ np.array(states(spec, 9)[0]).T
    assert (np.abs(up) > 7).mean() > 0.1
    assert_equals_reference(spec, monkeypatch)


def test_batches_and_lengths_are_rows_alike() -> None:
    parameters = RandomParameters(MANY)
    block, x = MoEBlock(MANY, parameters, "x"), states(MANY, 60)
    found = block(x.reshape(4, 15, -1))
    assert found.shape == (4, 15, 24)
    assert difference(found.reshape(60, -1), mixture(MANY, parameters.values(), np.array(x[0]))) < TOLERANCE
    assert (
        difference(mx.concatenate([block(x[:, i : i + 1]) for i in range(60)], axis=1), block(x)) < TOLERANCE
    )


PACKED = replace(BASE, dim=128, hidden=64)


@pytest.mark.parametrize(
    ("packing", "close"),
    [
        (dict.fromkeys(("gate", "up", "down"), Q4), 0.3),
        (dict.fromkeys(("gate", "up", "down"), Q8), 0.02),
        (dict.fromkeys(("gate", "up", "down"), MXFP4), 0.4),
        ({"gate": Q4, "up": Q8, "down": MXFP4}, 0.3),  # stored apart, since they differ
        ({"up": Q4}, 0.3),
    ],
    ids=lambda value: "-".join(str(one.bits) for one in value.values()) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("dense_rows", [None, 1, 3])
def test_packed_experts(
    packing: dict[str, Quantization], close: float, dense_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they are packed to is computed with exactly, and it is close to what they were."""
    for bias in (False, True):
        spec = replace(PACKED, bias=bias)
        assert_equals_reference(spec, monkeypatch, 20, packing=packing, dense_rows=dense_rows)
    packed = MoEBlock(PACKED, RandomParameters(PACKED, packing), "x")
    assert isinstance(packed.experts_up, SeparateStack) == (
        len(set(packing.values())) > 1 or len(packing) == 1
    )
    x = states(PACKED, 20)
    apart = difference(packed(x), MoEBlock(PACKED, RandomParameters(PACKED), "x")(x))
    assert 0 < apart < close


@pytest.mark.parametrize("packing", [None, Q4, Q8, MXFP4], ids=str)
def test_a_stacks_rows_one_by_one(packing: Quantization | None) -> None:
    """In any order of the index, and by matrix."""
    packed = dict.fromkeys(("gate", "up"), packing) if packing is not None else None
    stack = RandomParameters(PACKED, packed).stack("x.experts", "gate", "up")
    assert isinstance(stack, Stack)
    x = states(PACKED, 12)[0]
    index = mx.array(np.random.default_rng(0).integers(0, 8, 12).astype(np.uint32))
    expected = mx.concatenate(
        [stack.alone(row[None], int(n)) for row, n in zip(x, index.tolist(), strict=True)]
    )
    assert difference(stack.gather(x[:, None], index, ordered=False).squeeze(1), expected) < TOLERANCE
    order = mx.argsort(index)
    found = stack.gather(x[order][:, None], index[order], ordered=True).squeeze(1)
    assert difference(found, expected[order]) < TOLERANCE


def test_the_way_is_chosen_by_the_rows_of_an_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for name in ("_apart", "_through"):
        own = getattr(MoEBlock, name)
        monkeypatch.setattr(
            MoEBlock, name, lambda self, *a, own=own, name=name, **k: taken.append(name) or own(self, *a, **k)
        )
    spec = replace(PACKED, experts=32)
    dense = MoEBlock(spec, RandomParameters(spec), "x")
    packed = MoEBlock(spec, RandomParameters(spec, dict.fromkeys(("gate", "up", "down"), Q4), 8), "x")
    for block, few in ((dense, 42), (packed, 85)):  # of 3 choices each: 4 and 8 rows an expert
        for count, expected in ((1, "_through"), (few, "_through"), (few + 1, "_apart")):
            taken.clear()
            block(states(block.spec, count))
            assert taken == [expected if mx.default_device() == mx.cpu else "_through"]


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed-anew"])
def test_gradients_are_the_same_in_every_way(again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = MoEBlock(BASE, RandomParameters(BASE), "x"), states(BASE, 40)

    def loss(parameters: dict) -> mx.array:
        def run(parameters: dict, x: mx.array) -> mx.array:
            block.update(parameters)
            return block(x)

        run = mx.checkpoint(run) if again else run
        return (run(parameters, x) ** 2).sum()

    parameters = block.trainable_parameters()
    found = []
    for name in WAYS:
        way(block, name, monkeypatch)
        found.append(dict(nn.utils.tree_flatten(mx.grad(loss)(parameters))))
        block.update(parameters)
    assert set(found[0]) == {"router.weight", "experts_up.weight", "experts_down.weight"}
    for other in found[1:]:
        for name, gradient in found[0].items():
            assert mx.abs(gradient).max() > 0
            assert difference(other[name], gradient) < TOLERANCE
