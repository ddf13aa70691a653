"""IA3, bottlenecks and virtual tokens: what they start as, that all of it learns, files, and decoding with caches."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from base_models import BASES, RandomParameters, random_model, wide_spec
from mlx import nn
from mlx.utils import tree_flatten, tree_map
from tiny import config_of, first_variants

from macllm.adapters.files import apply, read, taken, write
from macllm.adapters.folder import CONFIG
from macllm.adapters.kept import WEIGHTS
from macllm.adapters.method import AnyMethod, Bottleneck, Scalings, Virtual
from macllm.adapters.shapes import learned_shapes, parameters
from macllm.errors import CheckpointError, ConfigError, OptionError
from macllm.families import spec_from_config
from macllm.nn.beside import learned
from macllm.nn.decoder import Decoder
from macllm.nn.stored import Dense
from macllm.spec import ModelSpec
from macllm.tune.forward import hidden
from macllm.tune.methods import attach, detach
from macllm.tune.trained import flat

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (2, 12)))
NEUTRAL: list[AnyMethod] = [Scalings(), Bottleneck(rank=3)]
VIRTUAL: list[AnyMethod] = [Virtual("prompt", 5), Virtual("prefix", 5)]
KIND = pytest.mark.parametrize("method", NEUTRAL + VIRTUAL, ids=lambda one: one.kind)


def gradients(model: Decoder, *, checkpoint: bool = False) -> dict[str, mx.array]:
    def loss(model: Decoder) -> mx.array:
        return (hidden(model, TOKENS, checkpoint=checkpoint) ** 3).mean()

    return dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))


def moved(model: Decoder, by: float = 0.2) -> None:
    """Away from the start, as after training."""
    mx.random.seed(1)
    start = model.trainable_parameters()
    model.update(tree_map(lambda one: one + by * mx.random.normal(one.shape), start))


def reread(model: Decoder) -> mx.array:
    """Logits token by token, then three at once, with a cache that is rewound in between."""
    caches = model.make_caches()
    found = [model(TOKENS[:, :4], caches)]
    model(TOKENS[:, :2], caches)
    for cache in caches:
        cache.rewind(2)
    found += [model(TOKENS[:, at : at + 1], caches) for at in range(4, 9)]
    found.append(model(TOKENS[:, 9:], caches))
    assert caches[0].offset == TOKENS.shape[1]
    return mx.concatenate(found, axis=1)


@pytest.mark.parametrize(
    ("variant", "base"),
    [("llama-biases", "blocks"), ("qwen3-moe", "affine")],
)
@KIND
def test_all_of_it_learns_on_every_base(method: AnyMethod, variant: str, base: str) -> None:
    spec = wide_spec(variant)
    model = random_model(spec, base)
    before = model(TOKENS)
    attached = attach(model, spec, method)
    assert attached.parameters == parameters(spec, method)
    assert attached.first_layer == 0
    for mode in (False, True):
        model.train(mode)
        assert mx.array_equal(model(TOKENS), before) == (method in NEUTRAL)
    moved(model)
    assert not np.allclose(model(TOKENS), before, atol=1e-2)
    once, twice = gradients(model), gradients(model, checkpoint=True)
    assert set(once) == set(attached.names)
    assert [name for name, one in once.items() if not mx.any(one)] == []
    assert all(np.allclose(once[name], twice[name], rtol=1e-3, atol=1e-5) for name in once)
    model.eval()
    assert np.allclose(reread(model), model(TOKENS), atol=2e-3)
    detach(model)
    assert mx.array_equal(model(TOKENS), before) and not flat(model)


@pytest.mark.parametrize("variant", ["llama-biases", "qwen3-moe"])
def test_ia3_is_what_its_matrices_are_with_scaled_rows_and_columns(variant: str) -> None:
    spec = wide_spec(variant)
    model = random_model(spec)
    attach(model, spec, Scalings())
    moved(model)
    numbers = learned(model)
    assert {name.split(".")[-2] for name in numbers} == {"k", "v", "down"}

    class Scaled(RandomParameters):
        def __init__(self) -> None:
            super().__init__(spec, None, 0)
            for name, one in numbers.items():
                place = name.removesuffix(".ia3_l")
                weight = self._stored[f"{place}.weight"].array
                rows = not place.endswith("down")
                scaled = one[..., None] * weight if rows else weight * one[..., None, :]
                self._stored[f"{place}.weight"] = Dense(scaled)
                if rows and f"{place}.bias" in self._stored:
                    self._stored[f"{place}.bias"] = Dense(one * self._stored[f"{place}.bias"].array)

    assert np.allclose(Decoder(spec, Scaled())(TOKENS), model(TOKENS), atol=1e-3)


def test_ia3_scales_what_its_targets_say() -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    attach(model, spec, Scalings(("q,gate",), num_layers=1))
    assert set(learned(model)) == {"layers.1.mixer.q.ia3_l", "layers.1.channel.gate.ia3_l"}
    assert mx.any(gradients(model)["layers.1.mixer.qkv.scalings.q.ia3_l"])


def test_bottlenecks_stand_where_targets_say() -> None:
    spec = wide_spec("llama")
    model = random_model(spec)

    def places(*targets: str) -> set[str]:
        attach(model, spec, Bottleneck(3, targets, num_layers=1))
        return {name.rpartition(".")[0] for name in learned(model)}

    assert places("attention") == {"layers.1.mixer_adapter"}
    assert places("mlp") == {"layers.1.channel_adapter"}
    assert places("all") == places() == places("mlp,attention") == places("attention") | places("mlp")
    with pytest.raises(
        OptionError, match=r"^target 'q_proj' is no block .*\(expected all, attention, mlp\)$"
    ):
        attach(model, spec, Bottleneck(3, ("q_proj",)))
    with pytest.raises(OptionError, match=r"^layers of family 'gemma3n_text' have no place .* take lora"):
        gemma = spec_from_config(config_of("gemma3n"))
        attach(random_model(gemma), gemma, Bottleneck(3))


def test_a_bottleneck_is_its_formula() -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    attach(model, spec, Bottleneck(3, num_layers=1))
    moved(model)
    adapter = model.layers[1].mixer_adapter
    x = np.random.default_rng(2).normal(size=(2, 3, spec.dim))
    inner = x @ np.array(adapter.down) + np.array(adapter.down_bias)
    change = (inner / (1 + np.exp(-inner))) @ np.array(adapter.up) + np.array(adapter.up_bias)
    assert np.allclose(adapter(mx.array(x.astype(np.float32))), x + change, atol=1e-4)


@pytest.mark.parametrize("variant", ["llama", "mpt"])
def test_virtual_tokens_start_as_tokens_that_stand_before_the_sequence(variant: str) -> None:
    """And those of a prompt and a prefix as the same."""
    spec = spec_from_config(config_of(variant))
    model = random_model(spec)
    found = {}
    for kind in ("prompt", "prefix"):
        attach(model, spec, Virtual(kind, 5), seed=3)
        found[kind] = model(TOKENS)
    assert np.allclose(found["prompt"], found["prefix"], atol=1e-5)
    detach(model)
    ids = mx.random.randint(0, spec.vocab, (1, 5), key=mx.random.key(3))
    whole = model(mx.concatenate([mx.broadcast_to(ids, (2, 5)), TOKENS], axis=1))
    assert np.allclose(found["prompt"], whole[:, 5:], atol=1e-3)


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_rows_with_padding_see_virtual_tokens_and_no_padding(kind: str) -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    attach(model, spec, Virtual(kind, 5))
    moved(model)
    model.eval()
    alone = model(TOKENS[:1, :9])
    padded = mx.concatenate([mx.zeros((1, 3), TOKENS.dtype), TOKENS[:1, :9]], axis=1)
    rows = mx.concatenate([padded, TOKENS[1:]])
    caches = model.make_caches([3, 0])
    together = mx.concatenate([model(rows[:, :8], caches), model(rows[:, 8:], caches)], axis=1)
    assert np.allclose(together[0, 3:], alone[0], atol=1e-3)
    assert np.allclose(together[1:], model(TOKENS[1:]), atol=1e-3)


def test_a_prompt_is_read_anew_when_it_has_changed() -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    attach(model, spec, Virtual("prompt", 5))
    model.eval()
    first = model(TOKENS)
    assert mx.array_equal(model(TOKENS), first)
    moved(model)
    assert not np.allclose(model(TOKENS), first, atol=1e-3)


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        ("gemma3", "layer 0 does not see all tokens before"),
        ("mamba2", "layer 0 is no attention"),
        ("deepseek-v3", "layer 0 is no attention"),
        ("gpt2", "its positions are learned"),
    ],
)
def test_models_without_a_place_for_virtual_tokens_are_refused(variant: str, why: str) -> None:
    spec = spec_from_config(config_of(variant))
    with pytest.raises(
        OptionError, match=rf"cannot have virtual tokens \({why}.*take lora instead of prefix"
    ):
        attach(random_model(spec), spec, Virtual("prefix", 2))


def test_virtual_tokens_refuse_packing_and_quantized_caches() -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    attach(model, spec, Virtual("prefix", 2))
    with pytest.raises(OptionError, match="train without packing"):
        hidden(model, TOKENS, np.ones(TOKENS.shape, np.int32))
    packed = Decoder(spec, RandomParameters(spec, BASES["dense"], 0), kv_bits=8)
    with pytest.raises(OptionError, match="without a quantized cache"):
        attach(packed, spec, Virtual("prompt", 2))


@KIND
def test_files_give_back_what_was_learned(method: AnyMethod, tmp_path: Path) -> None:
    spec = wide_spec("qwen3-moe")
    model = random_model(spec)
    attach(model, spec, method)
    moved(model)
    expected = model(TOKENS)
    kept = taken(model, method)
    assert {name: one.shape for name, one in kept.tensors.items()} == learned_shapes(spec, method)
    write(tmp_path, spec, kept, {"learning_rate": 1.0})
    assert json.loads((tmp_path / CONFIG).read_text())["learning_rate"] == 1.0
    found = read(tmp_path, spec)
    assert found.method == method
    detach(model)
    apply(model, found)
    assert mx.array_equal(model(TOKENS), expected)
    assert set(flat(model)) == set(attach(model, spec, method).names)


@KIND
def test_files_of_another_base_or_none_are_refused_in_one_sentence(method: AnyMethod, tmp_path: Path) -> None:
    spec = wide_spec("llama")
    model = random_model(spec)
    attach(model, spec, method)
    write(tmp_path, spec, taken(model, method))
    with pytest.raises(CheckpointError, match=r"has shape .* where this model asks for .*another base"):
        read(tmp_path, spec_from_config(config_of("llama")))
    tensors = mx.load(str(tmp_path / WEIGHTS))
    name = sorted(tensors)[0]
    rest = {other: one for other, one in tensors.items() if other != name} | {"more": mx.ones(2)}
    mx.save_safetensors(str(tmp_path / WEIGHTS), rest)
    with pytest.raises(CheckpointError, match="more is nothing that its method learns"):
        read(tmp_path, spec)
    del rest["more"]
    mx.save_safetensors(str(tmp_path / WEIGHTS), rest or {"more": mx.ones(2)})
    with pytest.raises(CheckpointError, match=f"{name} is missing" if rest else "more is nothing"):
        read(tmp_path, spec)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, method.kind: {"rank": "x", "targets": []}}))
    with pytest.raises(ConfigError, match=r"save the adapter again"):
        read(tmp_path, spec)


@pytest.mark.parametrize("variant", first_variants())
def test_every_family_starts_as_it_was_or_refuses_by_name(variant: str) -> None:
    spec: ModelSpec = spec_from_config(config_of(variant))
    model = random_model(spec)
    before = model(TOKENS)
    for method in NEUTRAL + VIRTUAL:
        try:
            attached = attach(model, spec, method)
        except OptionError as error:
            assert "take lora" in str(error) or "name other targets" in str(error)
            continue
        assert attached.parameters == parameters(spec, method)
        assert mx.array_equal(model(TOKENS), before) == (method in NEUTRAL)
    detach(model)
    assert mx.array_equal(model(TOKENS), before)
