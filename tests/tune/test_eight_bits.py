"""Averages in 8 bits: near their float twin, unbiased, a quarter of the memory, and resumed bit for bit."""

import mlx.core as mx
import numpy as np
import pytest

from macllm.errors import OptionError
from macllm.tune import eight_bits
from macllm.tune.eight_bits import LEAST, pack, unpack
from macllm.tune.job import optimizer_of
from macllm.tune.optimizers import Optimizer, OptimizerSpec
from macllm.tune.settings import checked

SHAPE = (100, 60)  # no multiple of a block
PACKED = ("adamw", "adam", "lion", "sgd", "muon")


def values(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Of many orders of magnitude."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 0, size=shape)).astype(np.float32)


@pytest.mark.parametrize("positive", [False, True])
def test_packing_is_its_formula(positive: bool) -> None:
    given = np.abs(values(0)) if positive else values(0)
    codes, scales = pack(mx.array(given), None, positive=positive)
    blocks = np.pad(given.reshape(-1), (0, -given.size % 256)).reshape(-1, 256).astype(np.float64)
    most = 255 if positive else 127
    wanted = np.abs(blocks).max(axis=-1)
    share = (np.abs(blocks) / wanted[:, None]) ** 0.25 * most
    assert np.allclose(np.array(scales), wanted)
    assert np.abs(np.abs(np.array(codes, np.float64)) - share).max() < 0.501 or positive
    assert codes.dtype == (mx.uint8 if positive else mx.int8)
    found = np.array(unpack(codes, scales, SHAPE))
    assert found.shape == SHAPE
    assert (np.sign(found) == np.sign(given))[np.abs(given) > 1e-3].all()
    large = np.abs(given) > 0.1 * np.abs(given).max()
    assert (np.abs(found - given) / np.abs(given))[large].max() < 0.04


def test_rounding_by_chance_is_right_on_average_and_zero_stays_zero() -> None:
    given = mx.full((LEAST,), 0.31)
    given[0], given[1] = 1.0, 0.0
    codes, _ = pack(given, mx.random.key(0), positive=False)
    found = np.array(codes, np.float64).reshape(-1)[2:256]
    assert set(found) == {94.0, 95.0}  # of 127: the fourth root of 0.31 is 0.7462
    every = [
        np.array(pack(given, mx.random.key(seed), positive=False)[0]).reshape(-1)[2:256] for seed in range(40)
    ]
    assert np.mean(every) == pytest.approx(127 * 0.31**0.25, abs=0.05)
    assert codes.reshape(-1)[1].item() == 0
    tiny = mx.full((LEAST,), 1e-20)
    tiny[0] = 1.0
    assert (unpack(*pack(tiny, mx.random.key(0), positive=True), (LEAST,)) > 0).all().item()  # it divides


def descent(name: str, bits: int, steps: int = 120) -> list[float]:
    """Losses of a regression whose gradients are noisy."""
    rng = np.random.default_rng(1)
    wanted = mx.array(rng.normal(size=SHAPE).astype(np.float32))
    found = {"layers.0.o.weight": mx.zeros(SHAPE)}
    optimizer = Optimizer(OptimizerSpec(name, bits=bits), found)
    losses = []
    for _ in range(steps):
        x = mx.array(rng.normal(size=(32, SHAPE[1])).astype(np.float32))
        apart = x @ (found["layers.0.o.weight"] - wanted).T
        losses.append((apart**2).mean().item())
        slopes = {"layers.0.o.weight": 2 * apart.T @ x / apart.size}
        found = optimizer.update(found, slopes, 0.05 if name in ("adamw", "adam", "muon") else 0.02)
    return losses


@pytest.mark.parametrize("name", ["adamw", "adam", "lion"])
def test_the_loss_goes_as_with_32_bits(name: str) -> None:
    wide, packed = descent(name, 32), descent(name, 8)
    assert wide[-1] < 0.2 * wide[0]
    assert packed != wide
    for start in range(0, 120, 20):
        part = slice(start, start + 20)
        assert np.mean(packed[part]) == pytest.approx(np.mean(wide[part]), rel=0.12)


def parameters() -> dict[str, mx.array]:
    rng = np.random.default_rng(0)
    shapes = {"layers.0.o.weight": SHAPE, "norm.weight": (5,)}
    return {name: mx.array(rng.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}


def run(optimizer: Optimizer, start: dict[str, mx.array], seeds: range) -> dict[str, mx.array]:
    for seed in seeds:
        slopes = {name: mx.array(values(seed, one.shape)) for name, one in start.items()}
        start = optimizer.update(start, slopes, 0.01)
    return start


@pytest.mark.parametrize("name", PACKED)
def test_a_saved_run_goes_on_bit_for_bit(name: str, tmp_path) -> None:
    spec, start = OptimizerSpec(name, bits=8), parameters()
    whole = run(Optimizer(spec, start), start, range(6))
    first = Optimizer(spec, start)
    half = run(first, start, range(3))
    mx.save_safetensors(str(tmp_path / "state.safetensors"), first.state())
    second = Optimizer(spec, half)
    second.restore(mx.load(str(tmp_path / "state.safetensors")))
    assert second.steps == 3
    resumed = run(second, half, range(3, 6))
    assert all(mx.array_equal(resumed[key], whole[key]).item() for key in whole)


@pytest.mark.parametrize("name", PACKED)
def test_a_parameter_that_is_moved_by_parts_goes_where_it_goes_as_a_whole(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, start = OptimizerSpec(name, bits=8), {"layers.0.o.weight": mx.array(values(7, (300, 60)))}
    whole = Optimizer(spec, start)
    expected = run(whole, start, range(1))["layers.0.o.weight"]
    monkeypatch.setattr(eight_bits, "PART", 8192)  # two, and a part of a third whose last block is not full
    parts = Optimizer(spec, start)
    found = run(parts, start, range(1))["layers.0.o.weight"]
    assert mx.array_equal(found, expected).item()  # the first step starts from averages of zero
    for key, value in whole.state().items():  # and rounds them by another chance
        other = parts.state()[key]
        assert other.shape == value.shape and other.dtype == value.dtype
        assert mx.abs(other.astype(mx.float32) - value.astype(mx.float32)).max().item() <= 1, key
    later = [run(one, start, range(1, 4))["layers.0.o.weight"] for one in (whole, parts)]
    assert (
        mx.abs(later[0] - later[1]).mean().item() < 0.1 * mx.abs(later[0] - start["layers.0.o.weight"]).mean()
    )


@pytest.mark.parametrize(("name", "averages"), [("adamw", 2), ("lion", 1)])
def test_averages_take_a_quarter_and_small_ones_stay_as_they_are(name: str, averages: int) -> None:
    start = parameters()
    states = [run_state(name, bits, start) for bits in (8, 32)]
    packed, wide = ({key: one for key, one in state.items() if "o.weight" in key} for state in states)
    assert sum(one.nbytes for one in wide.values()) == averages * 4 * 6000
    assert sum(one.nbytes for one in packed.values()) < 0.27 * averages * 4 * 6000
    small = [key for key in states[0] if key.startswith("norm.weight:")]
    assert len(small) == averages
    assert all(mx.array_equal(states[0][key], states[1][key]).item() for key in small)


def run_state(name: str, bits: int, start: dict[str, mx.array]) -> dict[str, mx.array]:
    optimizer = Optimizer(OptimizerSpec(name, bits=bits), start)
    run(optimizer, start, range(2))
    return optimizer.state()


def test_bits_are_a_setting_and_what_cannot_be_packed_is_refused() -> None:
    assert optimizer_of(checked({"optimizer_bits": "8"})).bits == 8
    assert optimizer_of(checked({})).bits == 32
    with pytest.raises(OptionError, match="optimizer_bits='16' is not possible"):
        checked({"optimizer_bits": "16"})
    with pytest.raises(OptionError, match="adafactor"):
        OptimizerSpec("adafactor", bits=8)
    with pytest.raises(OptionError, match="optimizer_bits=4"):
        OptimizerSpec("adam", bits=4)
