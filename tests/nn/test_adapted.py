"""Layers with adapters against NumPy, on every kind of layer and storage: the same at the start, gradients, dropout."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.base import Module
from random_parameters import RandomParameters

from macllm.kernels import dispatch, fusions
from macllm.nn.adapted import (
    AdaptedLinear,
    AdaptedStack,
    Factors,
    adapt,
    plain,
    row_lengths,
    seed_dropout,
)
from macllm.nn.beside import restore
from macllm.nn.linear import Part, RoundedLinear, SeparateLinear, make_linear
from macllm.nn.mlp import MLPBlock
from macllm.nn.stack import SeparateStack, make_stack
from macllm.nn.stored import Dense, Packed, Stored, stack
from macllm.quantization import Quantization
from macllm.spec import MLP

PARTS = [Part("layers.0.mixer.q", 12), Part("layers.0.mixer.k", 4), Part("layers.0.mixer.v", 8)]
WIDTH, RANK, SCALE, EXPERTS = 64, 3, 2.5, 4
FOUR = Quantization(4, 64)
RNG = np.random.default_rng(0)
STORAGES: dict[str, tuple[Quantization | None, ...]] = {
    "dense": (None, None, None),
    "affine": (FOUR, FOUR, FOUR),
    "mxfp4": (Quantization(4, 32, "mxfp4"),) * 3,
    "nf4": (Quantization(4, 64, "nf4"),) * 3,
    "mixed": (FOUR, None, Quantization(8, 32)),
}


class Holder(Module):
    """Something that a layer is a part of."""

    def __init__(self, layer: Module) -> None:
        super().__init__()
        self.layer = layer


def array(*shape: int) -> mx.array:
    return mx.array(RNG.normal(size=shape).astype(np.float32))


def pack(weight: mx.array, q: Quantization | None) -> Stored:
    if q is None:
        return Dense(weight)
    packed, scales, *biases = dispatch.pack(q, weight)
    return Packed(packed, scales, biases[0] if biases else None, q)


def linear(storage: str, *, biased: bool = False) -> Module:
    stored = [pack(array(part.width, WIDTH), q) for part, q in zip(PARTS, STORAGES[storage], strict=True)]
    return make_linear(PARTS, stored, [array(part.width) for part in PARTS] if biased else None, None)


def stacked(storage: str, *, biased: bool = False) -> Module:
    stored = [
        stack([pack(array(part.width, WIDTH), q) for _ in range(EXPERTS)])
        for part, q in zip(PARTS, STORAGES[storage], strict=True)
    ]
    return make_stack(PARTS, stored, [array(EXPERTS, part.width) for part in PARTS] if biased else None, None)


def factors(layer: Module, names: tuple[str, ...], *, zero: bool, stretched: bool) -> dict[str, Factors]:
    stored, found = dict(layer.tensors()), {}
    for name in names:
        matrix = stored[f"{name}.weight"]
        *count, outputs, inputs = matrix.shape
        b = array(*count, RANK, outputs) * (0.0 if zero else 0.3)
        lengths = row_lengths(plain(matrix)) if stretched else None
        if lengths is not None and not zero:
            lengths = lengths * (1 + 0.2 * array(*count, outputs))
        found[name] = Factors(array(*count, inputs, RANK) * 0.3, b, SCALE, lengths)
    return found


def adapted(layer: Module, given: dict[str, Factors], dropout: float = 0.0) -> Module:
    holder = Holder(layer)
    holder.freeze()
    adapt(holder, given, dropout)
    found: Module = holder.layer
    return found


def merged(layer: Module, given: dict[str, Factors]) -> np.ndarray:
    """The matrix (..., O, I) that base and adapters make together, by NumPy in double precision."""
    rows = []
    for name, stored in layer.tensors():
        if not name.endswith(".weight"):
            continue
        matrix = np.array(plain(stored), np.float64)
        one = given.get(name.removesuffix(".weight"))
        if one is not None:
            matrix = matrix + one.scale * np.swapaxes(np.array(one.a) @ np.array(one.b), -1, -2)
            if one.magnitude is not None:
                lengths = np.linalg.norm(matrix, axis=-1)
                matrix = (np.array(one.magnitude) / lengths)[..., None] * matrix
        rows.append(matrix)
    return np.concatenate(rows, axis=-2)


def bias(layer: Module) -> np.ndarray:
    return np.concatenate(
        [np.array(one.array) for name, one in layer.tensors() if name.endswith("bias")], axis=-1
    )


SOME, ALL = (PARTS[0].name, PARTS[2].name), tuple(part.name for part in PARTS)


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_linear_layer_is_what_its_merged_matrix_is(storage: str, stretched: bool) -> None:
    x = array(2, 5, WIDTH)
    for names in (SOME, ALL):
        layer = linear(storage, biased=True)
        before = layer(x)
        start = adapted(layer, factors(layer, names, zero=True, stretched=stretched))
        assert isinstance(start, AdaptedLinear)
        assert mx.array_equal(start(x), before)
        given = factors(layer, names, zero=False, stretched=stretched)
        expected = np.array(x, np.float64) @ merged(layer, given).T + bias(layer)
        assert np.allclose(adapted(layer, given)(x), expected, atol=1e-4)
        assert not np.allclose(expected, before, atol=1e-2)


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("storage", ["dense", "affine", "mixed"])
def test_a_stack_is_what_its_merged_matrices_are(storage: str, stretched: bool) -> None:
    layer = stacked(storage, biased=True)
    assert isinstance(layer, SeparateStack) == (storage == "mixed")
    index = mx.array([[0, 2], [3, 3], [1, 0]])
    x = array(3, 1, 1, WIDTH)
    before, alone_before = layer.gather(x, index, ordered=False), layer.alone(x[:, 0, 0], 2)
    start = adapted(layer, factors(layer, SOME, zero=True, stretched=stretched))
    assert isinstance(start, AdaptedStack)
    assert mx.array_equal(start.gather(x, index, ordered=False), before)
    assert mx.array_equal(start.alone(x[:, 0, 0], 2), alone_before)
    given = factors(layer, SOME, zero=False, stretched=stretched)
    changed = adapted(layer, given)
    whole, chosen = merged(layer, given), np.array(index)
    rows = np.array(x, np.float64)[:, 0, 0]
    expected = np.einsum("ti,tkoi->tko", rows, whole[chosen]) + bias(layer)[chosen]
    assert np.allclose(changed.gather(x, index, ordered=False)[..., 0, :], expected, atol=1e-4)
    assert np.allclose(changed.alone(x[:, 0, 0], 2), rows @ whole[2].T + bias(layer)[2], atol=1e-4)
    ascending = mx.array([0, 1, 1, 3])
    many = array(4, 1, WIDTH)
    expected = np.einsum("ti,toi->to", np.array(many)[:, 0], whole[np.array(ascending)])
    expected += bias(layer)[np.array(ascending)]
    assert np.allclose(changed.gather(many, ascending, ordered=True)[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("stretched", [False, True])
def test_matrices_of_all_heads_go_both_ways(stretched: bool) -> None:
    layer = make_stack([PARTS[0]], [Dense(array(EXPERTS, PARTS[0].width, WIDTH))], None, None)
    given = factors(layer, (PARTS[0].name,), zero=False, stretched=stretched)
    changed, whole = adapted(layer, given), merged(layer, given)
    x, back = array(2, EXPERTS, 3, WIDTH), array(2, EXPERTS, 3, PARTS[0].width)
    assert np.allclose(changed.each(x), np.einsum("bnli,noi->bnlo", x, whole), atol=1e-4)
    assert np.allclose(
        changed.each(back, transposed=False), np.einsum("bnlo,noi->bnli", back, whole), atol=1e-4
    )


def test_rounded_and_separate_layers_are_adapted_as_one() -> None:
    separate = linear("mixed")
    assert isinstance(separate, SeparateLinear)
    rounded = RoundedLinear(separate)
    x = array(2, WIDTH)
    changed = adapted(rounded, factors(rounded, ALL, zero=False, stretched=False))
    assert isinstance(changed.base, RoundedLinear)
    assert not mx.array_equal(changed(x), rounded(x))


@pytest.mark.parametrize("storage", STORAGES)
def test_gradients_reach_the_input_and_the_factors_and_nothing_else(storage: str) -> None:
    layer = linear(storage)
    given = factors(layer, ALL, zero=False, stretched=True)
    changed = adapted(layer, given)
    x, seen = array(3, WIDTH), array(3, 24)
    whole = merged(layer, given)
    assert np.allclose(mx.grad(lambda one: (changed(one) * seen).sum())(x), np.array(seen) @ whole, atol=1e-4)
    names = {name for name, value in Module.trainable_parameters(changed)["adapters"].items() if value}
    assert names == {"q", "k", "v"}
    assert not Module.trainable_parameters(changed)["base"].get("weight")


def test_dropout_leaves_out_input_in_training_alone_and_by_the_key() -> None:
    layer = linear("dense")
    x = mx.ones((1, 400, WIDTH))
    changed = adapted(layer, factors(layer, ALL, zero=False, stretched=False), dropout=0.25)
    quiet = changed(x)
    assert mx.array_equal(changed(x), quiet)
    changed.train()
    assert not mx.array_equal(changed(x), changed(x))
    seed_dropout(changed, mx.random.key(1))
    once = changed(x)
    assert mx.array_equal(changed(x), once)
    assert np.allclose(once.mean(axis=1), quiet.mean(axis=1), atol=0.5)  # what is left makes up for the rest
    seed_dropout(changed, mx.random.key(2))
    assert not mx.array_equal(changed(x), once)
    seed_dropout(changed, None)
    changed.eval()
    assert mx.array_equal(changed(x), quiet)


def test_lengths_are_found_anew_when_the_factors_change() -> None:
    layer = linear("affine")
    changed = adapted(layer, factors(layer, ALL, zero=False, stretched=True))
    x = array(2, WIDTH)
    before = changed(x)
    others = factors(layer, ALL, zero=False, stretched=True)
    for part in PARTS:
        adapter, other = changed.adapters[part.name[-1]], others[part.name]
        adapter.lora_a, adapter.lora_b, adapter.m = other.a, other.b, other.magnitude
    assert not mx.array_equal(changed(x), before)
    assert np.allclose(changed(x), np.array(x, np.float64) @ merged(layer, others).T, atol=1e-4)


def test_a_row_of_zeros_stays_finite() -> None:
    weight = array(12, WIDTH) * mx.array([0.0] + [1.0] * 11)[:, None]
    layer = make_linear([PARTS[0]], [Dense(weight)], None, None)
    changed = adapted(layer, factors(layer, (PARTS[0].name,), zero=True, stretched=True))
    assert mx.array_equal(changed(array(2, WIDTH))[:, 0], mx.zeros(2))


def test_a_feed_forward_block_notices_its_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusions, "possible", lambda: True)
    monkeypatch.setattr(fusions, "swiglu", lambda *_: pytest.fail("the adapter was passed by"))
    spec = MLP(WIDTH, WIDTH)
    block = MLPBlock(spec, RandomParameters(spec), "x")
    assert block._fuses
    x = array(1, 2, WIDTH)
    before = block(x)
    packed = make_linear(
        block.up.parts, [pack(plain(one), FOUR) for _, one in block.up.tensors()], None, None
    )
    block.up = packed
    adapt(block, factors(packed, ("x.gate",), zero=False, stretched=False))
    assert not mx.array_equal(block(x), before)


def test_an_unknown_matrix_is_refused_and_the_base_comes_back() -> None:
    layer = linear("dense")
    holder = Holder(layer)
    adapt(holder, factors(layer, ALL, zero=False, stretched=False))
    restore(holder)
    assert holder.layer is layer
    with pytest.raises(ValueError, match="no matrices nowhere"):
        adapt(holder, {"nowhere": factors(layer, SOME, zero=True, stretched=False)[SOME[0]]})
