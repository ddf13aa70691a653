"""A model gives the same with its operations joined and one by one, and joins them only where a kernel may do it."""

import shutil
from collections import Counter
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import decoder, difference, tokens, write_with_mlx_lm

from macllm.kernels import fusions, runners
from macllm.kernels.kernel import Launch
from macllm.kernels.permission import running_on
from macllm.kernels.registry import KERNELS
from macllm.nn.decoder import Decoder

LAYERS = 2
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++, with which MLX compiles for a CPU"
)


class Twins:
    """Runs fusions and products in affine storage by their twins, and counts them."""

    def __init__(self) -> None:
        self.ran = Counter[str]()

    def __call__(self, launch: Launch) -> list[mx.array]:
        template, given = launch.template, dict(zip(launch.body.inputs, launch.inputs, strict=True))
        bits = template.get("BITS", "")
        self.ran[f"{launch.body.name}{bits}"] += 1
        kernel = KERNELS[f"{launch.body.name}{bits}"]
        if "eps" in given:
            return list(kernel.twin(**{**given, "eps": given["eps"].item()}))
        return list(kernel.twin(**given))


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Twins:
    monkeypatch.setenv("MACLLM_KERNELS", "on")
    return Twins()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers in 4 bits."""
    path = tmp_path_factory.mktemp("llama")
    write_with_mlx_lm("llama", path, bits=4, group_size=32)
    return path


def step(model: Decoder, count: int) -> mx.array:
    """Logits (L, V) of some tokens after eight others."""
    caches = model.make_caches()
    mx.eval(model(mx.array([tokens(9)]), caches))
    return model(mx.array([tokens(count, seed=1)]), caches)[0]


@pytest.mark.parametrize(("count", "gates", "norms"), [(1, 1, 1), (3, 1, 1), (4, 0, 1), (8, 0, 1), (9, 0, 0)])
def test_a_few_tokens_run_joined_and_give_the_same(
    count: int, gates: int, norms: int, folder: Path, twins: Twins
) -> None:
    expected = step(decoder(folder), count)
    with running_on(twins):
        model = decoder(folder)
        found = step(model, count)
    assert difference(found, expected) < 1e-4
    assert twins.ran["swiglu_affine4"] == LAYERS * gates
    assert twins.ran["add_norm"] == LAYERS * norms


@needs_compiler
def test_on_the_device_a_call_is_compiled_once_for_all_layers_and_tokens(
    folder: Path, twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = step(decoder(folder), 1)
    monkeypatch.setattr(runners, "device_runner", lambda: twins)
    with running_on(twins):
        model = decoder(folder)
        for _ in range(3):
            assert difference(step(model, 1), expected) < 1e-4
    assert twins.ran["swiglu_affine4"] == twins.ran["add_norm"] == 1


@pytest.mark.parametrize("setting", ["off", "auto"])
def test_nothing_is_joined_unless_it_is_wanted_or_was_tried(
    setting: str, folder: Path, twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", setting)
    with running_on(twins):
        step(decoder(folder), 1)
    assert not twins.ran


def test_where_nothing_runs_kernels_no_layer_asks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", "on")
    model = decoder(folder)
    monkeypatch.setattr(fusions, "_chosen", None)  # to ask would be to fail
    step(model, 1)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_compiler)])
def test_gradients_through_joined_operations_are_those_of_the_ones_they_join(
    compiled: bool, folder: Path, twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients(model: Decoder) -> list[mx.array]:
        model.train()
        mixer, between = model.layers[0].channel, model.layers[0].channel_norm

        def loss(x: mx.array, y: mx.array, weight: mx.array) -> mx.array:
            between.weight = weight
            total, normed = between.of_sum(x, y)
            return (mixer(normed) * total).sum()

        x, y = (mx.array(np.random.default_rng(n).standard_normal((1, 2, 256)), mx.float32) for n in (0, 1))
        return list(mx.grad(loss, argnums=(0, 1, 2))(x, y, between.weight))

    expected = gradients(decoder(folder))
    monkeypatch.setattr(runners, "device_runner", lambda: twins if compiled else None)
    with running_on(twins):
        found = gradients(decoder(folder))
    assert twins.ran["swiglu_affine4"] == twins.ran["add_norm"] == 1
    for one, other in zip(found, expected, strict=True):
        assert difference(one, other) < 1e-5


@pytest.mark.parametrize("variant", ["qwen2", "gemma2", "mixtral", "granite"])
def test_other_families_give_the_same_joined(variant: str, tmp_path: Path, twins: Twins) -> None:
    write_with_mlx_lm(variant, tmp_path, bits=8, group_size=32)
    expected = step(decoder(tmp_path), 1)
    with running_on(twins):
        found = step(decoder(tmp_path), 1)
    assert difference(found, expected) < 1e-4
    assert twins.ran["add_norm"] == LAYERS
    assert twins.ran["swiglu_affine8"] == (LAYERS if variant in ("qwen2", "granite") else 0)
