"""Optimizers: they move what they should, refuse what they cannot use, and resume bit for bit."""

import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from macllm.errors import CheckpointError, OptionError
from macllm.tune import optimizers
from macllm.tune.optimizers import Optimizer, OptimizerSpec
from macllm.tune.settings import OPTIMIZERS

MATRIX, VECTOR, TABLE, STACK = "layers.0.o.weight", "norm.weight", "embed.table.weight", "layers.0.up.weight"
RATE = 1e-2


def parameters(dtype: mx.Dtype = mx.float32) -> dict[str, mx.array]:
    rng = np.random.default_rng(0)
    shapes = {MATRIX: (6, 4), VECTOR: (5,), TABLE: (7, 4), STACK: (2, 3, 4)}
    return {name: mx.array(rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}


def gradients(seed: int, dtype: mx.Dtype = mx.float32) -> dict[str, mx.array]:
    rng = np.random.default_rng(seed)
    return {name: mx.array(rng.normal(size=one.shape)).astype(dtype) for name, one in parameters().items()}


def run(optimizer: Optimizer, start: dict[str, mx.array], seeds: range) -> dict[str, mx.array]:
    for seed in seeds:
        start = optimizer.update(start, gradients(seed), RATE / (1 + seed))
    mx.eval(start)
    return start


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_saved_run_goes_on_bit_for_bit(name: str, dtype: mx.Dtype, tmp_path: Path) -> None:
    spec, start = OptimizerSpec(name), parameters(dtype)
    whole = run(Optimizer(spec, start), start, range(6))
    first = Optimizer(spec, start)
    half = run(first, start, range(3))
    mx.save_safetensors(str(tmp_path / "state.safetensors"), {**first.state(), **half})
    saved = mx.load(str(tmp_path / "state.safetensors"))
    half = {key: saved.pop(key) for key in half}
    second = Optimizer(spec, half)
    second.restore(saved)
    assert second.steps == 3
    resumed = run(second, half, range(3, 6))
    assert all(mx.array_equal(resumed[key], whole[key]).item() for key in whole)
    assert all(resumed[key].dtype == dtype for key in whole)
    # and the state matters: without it the run goes elsewhere
    if name != "sgd":
        lost = run(Optimizer(spec, half), half, range(3, 6))
        assert not all(mx.array_equal(lost[key], whole[key]).item() for key in whole)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill(name: str) -> None:
    wanted = parameters()
    found = {key: mx.zeros_like(one) for key, one in wanted.items()}
    optimizer = Optimizer(OptimizerSpec(name), found)
    for _ in range(300):
        slopes = {key: found[key] - wanted[key] for key in wanted}
        found = optimizer.update(found, slopes, 0.05)
    for key in wanted:
        share = 0.9 if name == "muon" and key != MATRIX else 0.2  # AdamW's share of Muon's rate is small
        assert mx.abs(found[key] - wanted[key]).mean().item() < share * mx.abs(wanted[key]).mean().item()


def test_adamw_is_its_papers_formula() -> None:
    start = parameters()
    optimizer = Optimizer(OptimizerSpec("adamw", betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1), start)
    found = run(optimizer, start, range(4))
    w = np.array(start[MATRIX], np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for seed in range(4):
        g, rate = np.array(gradients(seed)[MATRIX], np.float64), RATE / (1 + seed)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        unbiased = m / (1 - 0.8 ** (seed + 1)), v / (1 - 0.9 ** (seed + 1))
        w = w - rate * (unbiased[0] / (np.sqrt(unbiased[1]) + 1e-6) + 0.1 * w)
    assert np.abs(np.array(found[MATRIX]) - w).max() < 1e-5


def test_muon_leaves_tables_vectors_and_stacks_to_adamw() -> None:
    start = parameters()
    found = run(Optimizer(OptimizerSpec("muon"), start), start, range(1))
    beside = Optimizer(OptimizerSpec("adamw"), start).update(start, gradients(0), 0.015 * RATE)
    for name in (VECTOR, TABLE, STACK):
        assert mx.array_equal(found[name], beside[name]).item()
    change = np.array(found[MATRIX] - start[MATRIX])
    shares = np.linalg.svd(change)[1] / (RATE * (6 / 4) ** 0.5)
    assert shares.min() > 0.5 and shares.max() < 1.3  # every direction moves about as far


def test_a_share_of_the_rate_belongs_to_a_parameter() -> None:
    start = parameters()
    optimizer = Optimizer(OptimizerSpec("adam"), start, {MATRIX: 16.0})
    found = run(optimizer, start, range(1))
    once = run(Optimizer(OptimizerSpec("adam"), start), start, range(1))
    faster = Optimizer(OptimizerSpec("adam"), start).update(start, gradients(0), 16 * RATE)
    assert mx.array_equal(found[VECTOR], once[VECTOR]).item()
    assert mx.array_equal(found[MATRIX], faster[MATRIX]).item()


def test_clipping_bounds_the_global_norm_and_keeps_the_direction() -> None:
    given = gradients(0)
    norm = np.sqrt(sum(float((one**2).sum().item()) for one in given.values()))
    divisor, told = Optimizer(OptimizerSpec(clip=0.5), parameters()).divisor(given)
    assert told.item() == pytest.approx(norm, rel=1e-6)
    assert norm / divisor.item() == pytest.approx(0.5, 1e-5)
    for bound in (None, 2 * norm):
        assert Optimizer(OptimizerSpec(clip=bound), parameters()).divisor(given)[0].item() == 1


def test_gradients_are_divided_before_they_move_anything_and_given_up() -> None:
    start, spec = parameters(), OptimizerSpec("sgd", weight_decay=0.1)
    given = gradients(0)
    found = Optimizer(spec, start).update(start, given, RATE, mx.array(4.0))
    assert not given
    quarter = {name: one / 4 for name, one in gradients(0).items()}
    same = Optimizer(spec, start).update(start, quarter, RATE)
    other = Optimizer(spec, start).update(start, gradients(0), RATE)
    assert all(mx.array_equal(found[name], same[name]).item() for name in start)
    assert not any(mx.array_equal(found[name], other[name]).item() for name in start)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, with which MLX compiles for a CPU")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_compiled_update_is_the_update_and_captures_nothing(
    name: str, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = parameters(dtype)
    plain = Optimizer(OptimizerSpec(name), start, {MATRIX: 16.0})
    expected = run(plain, start, range(4))
    with monkeypatch.context() as patch:
        patch.setattr(optimizers.mx, "default_device", lambda: mx.gpu)  # where MLX compiles
        compiled = Optimizer(OptimizerSpec(name), start, {MATRIX: 16.0})
    traced = []
    for group in compiled._groups:
        apply = group.optimizer.apply_gradients
        patched = lambda *given, apply=apply: traced.append(1) or apply(*given)  # noqa: E731
        monkeypatch.setattr(group.optimizer, "apply_gradients", patched)
    found = run(compiled, start, range(4))
    assert len(traced) == len(compiled._groups)  # once; every other step is told all that it goes by
    tolerance = 1e-5 if dtype == mx.float32 else 2**-7
    for one in start:
        assert mx.allclose(found[one], expected[one], rtol=tolerance, atol=tolerance).item()
    for key, value in plain.state().items():
        assert mx.allclose(compiled.state()[key], value, rtol=1e-4, atol=1e-6).item()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "adagrad"}, "adagrad"),
        ({"name": "adam", "weight_decay": 0.1}, "'adam' has no weight_decay"),
        ({"name": "adamw", "momentum": 0.9}, "'adamw' has no momentum"),
        ({"name": "sgd", "momentum": 1.0}, "momentum 1.0"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"eps": -1.0}, "eps -1.0"),
        ({"clip": 0.0}, "clip 0"),
    ],
)
def test_a_number_that_an_optimizer_cannot_use_is_refused(changes: dict, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        OptimizerSpec(**changes)


@pytest.mark.parametrize(
    ("name", "number", "changed"),
    [
        ("adamw", "weight_decay", 0.5),
        ("adamw", "betas", (0.5, 0.6)),
        ("adam", "eps", 0.1),
        ("sgd", "momentum", 0.9),
        ("sgd", "weight_decay", 0.5),
        ("adafactor", "weight_decay", 0.5),
        ("lion", "betas", (0.5, 0.6)),
        ("lion", "weight_decay", 0.5),
        ("muon", "momentum", 0.2),
        ("muon", "weight_decay", 0.9),
    ],
)
def test_every_number_changes_the_outcome(name: str, number: str, changed: object) -> None:
    start = parameters()
    usual = run(Optimizer(OptimizerSpec(name), start), start, range(3))
    other = run(Optimizer(OptimizerSpec(name, **{number: changed}), start), start, range(3))
    assert not mx.array_equal(usual[MATRIX], other[MATRIX]).item()


def test_the_state_of_another_run_is_refused_by_tensor() -> None:
    start = parameters()
    own = Optimizer(OptimizerSpec("adamw"), start)
    state = own.state()
    with pytest.raises(CheckpointError, match=r"state.safetensors: there is no 'norm.weight:m'"):
        own.restore({key: one for key, one in state.items() if key != f"{VECTOR}:m"}, "state.safetensors")
    with pytest.raises(CheckpointError, match="'other:m' belongs to no parameter"):
        own.restore({**state, "other:m": mx.zeros(3)})
    with pytest.raises(CheckpointError, match=r"shape \(3,\) \(expected \(5,\)\)"):
        own.restore({**state, f"{VECTOR}:v": mx.zeros(3)})
