"""Adapter files: mlx-lm's own tuner and loader as the reference, PEFT's names and shapes, and what is refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from base_models import random_model, settled, wide_spec
from mlx.utils import tree_flatten
from tiny import native, reference

from macllm.adapters import folder as adapter_folder
from macllm.adapters.files import PEFT_WEIGHTS, Adapter, apply, read, write, write_peft
from macllm.adapters.folder import CONFIG
from macllm.adapters.kept import WEIGHTS
from macllm.adapters.method import Method
from macllm.errors import CheckpointError, ConfigError, MacllmError, OptionError
from macllm.nn.adapted import Factors
from macllm.nn.adapted import adapters as adapters_of
from macllm.nn.decoder import Decoder
from macllm.spec import ModelSpec
from macllm.tune.methods import attach, detach

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (1, 12)))
LORA = Method(rank=4, scale=3.0)


def random_adapter(model: Decoder, spec: ModelSpec, method: Method) -> Adapter:
    """An adapter as it may be after training; the model is left without."""
    attach(model, spec, method)
    generator = np.random.default_rng(1)
    found = {}
    for name, adapter in adapters_of(model):
        one = adapter.factors
        b = mx.array(generator.normal(0, 0.2, one.b.shape).astype(np.float32))
        lengths = one.magnitude
        if lengths is not None:
            lengths = lengths * mx.array(generator.uniform(0.8, 1.2, lengths.shape).astype(np.float32))
        found[name] = replace(one, b=b, magnitude=lengths)
    detach(model)
    return Adapter(method, found)


def logits(model: Decoder, adapter: Adapter) -> mx.array:
    apply(model, adapter)
    found = model(TOKENS)
    detach(model)
    mx.eval(found)
    return found


def same(a: Mapping[str, Factors], b: Mapping[str, Factors]) -> bool:
    def equal(one: Factors, other: Factors) -> bool:
        lengths = (one.magnitude is None) == (other.magnitude is None) and (
            one.magnitude is None or mx.array_equal(one.magnitude, other.magnitude)
        )
        return bool(mx.array_equal(one.a, other.a) and mx.array_equal(one.b, other.b) and lengths)

    return a.keys() == b.keys() and all(
        equal(a[name], b[name]) and a[name].scale == b[name].scale for name in a
    )


def mlx_lm_model(variant: str) -> Any:
    from mlx_lm.utils import load_model

    return load_model(reference(variant).folder, model_config=settled(variant))[0]


def change(folder: Path, **values: Any) -> None:
    """Other values in a config; None removes a key."""
    config = json.loads((folder / CONFIG).read_text()) | values
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("variant", "dora"),
    [
        ("llama", False),
        ("llama", True),
        ("phi3", False),
        ("phi3", True),
        ("qwen3-moe", False),
        ("olmo2", False),
    ],
)
def test_what_mlx_lm_trains_is_read(variant: str, dora: bool, tmp_path: Path) -> None:
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import save_config

    model = mlx_lm_model(variant)
    settings = {"rank": 4, "scale": 3.0, "dropout": 0.0}
    model.freeze()
    linear_to_lora_layers(model, 2, settings, use_dora=dora)
    mx.random.seed(2)
    for name, value in tree_flatten(model.trainable_parameters()):
        factor = value * mx.random.uniform(0.8, 1.2, value.shape) if name.endswith(".m") else None
        model.load_weights(
            [(name, mx.random.normal(value.shape) * 0.2 if factor is None else factor)], strict=False
        )
    mx.save_safetensors(str(tmp_path / WEIGHTS), dict(tree_flatten(model.trainable_parameters())))
    arguments = {"fine_tune_type": "dora" if dora else "lora", "num_layers": 2, "lora_parameters": settings}
    save_config(arguments, tmp_path / CONFIG)

    ours = native(variant)
    before = ours(TOKENS)
    adapter = read(tmp_path, ours.spec)
    assert adapter.method == Method("dora" if dora else "lora", 4, 3.0, num_layers=2)
    found, expected = logits(ours, adapter), model(TOKENS)
    assert np.allclose(found, expected, atol=1e-4)
    assert not np.allclose(expected, before, atol=1e-2)


@pytest.mark.parametrize(
    ("variant", "method"),
    [
        ("llama", LORA),
        ("llama", replace(LORA, kind="dora")),
        ("llama", replace(LORA, kind="rslora")),
        ("llama", replace(LORA, targets=("q,v,down",), num_layers=2)),
        ("llama", replace(LORA, targets=("head", "layers.1.mixer.q"))),
        ("phi3", LORA),  # q, k and v in one matrix, gate and up in another
        ("phi3", replace(LORA, targets=("q,o,up",))),
        ("phi3", replace(LORA, kind="dora")),
        ("qwen3-moe", LORA),
        ("qwen3-moe", replace(LORA, targets=("router", "experts.up"))),
        ("olmo2", LORA),
        ("deepseek-v3", replace(LORA, targets=("q_up,kv_down,o", "mlp"))),
    ],
)
def test_mlx_lm_loads_what_is_written(variant: str, method: Method, tmp_path: Path) -> None:
    from mlx_lm.tuner.utils import load_adapters

    ours = native(variant)
    adapter = random_adapter(ours, ours.spec, method)
    write(tmp_path, ours.spec, adapter, {"iters": 100})
    assert json.loads((tmp_path / CONFIG).read_text())["iters"] == 100
    theirs = load_adapters(mlx_lm_model(variant), str(tmp_path))
    expected = logits(ours, adapter)
    assert np.allclose(theirs(TOKENS), expected, atol=1e-4)
    assert np.allclose(logits(ours, read(tmp_path, ours.spec)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
@pytest.mark.parametrize(
    "variant", ["llama", "qwen3-moe", "deepseek-v3", "deepseek-v2", "falcon-h1", "gemma3n"]
)
def test_mlx_lms_format_keeps_every_bit(variant: str, kind: Any, tmp_path: Path) -> None:
    spec = wide_spec(variant) if variant in ("llama", "qwen3-moe", "deepseek-v3") else native(variant).spec
    adapter = random_adapter(random_model(spec), spec, Method(kind, 5, 3.0, 0.1))
    write(tmp_path, spec, adapter)
    back = read(tmp_path, spec)
    assert back.factors.keys() == adapter.factors.keys()
    assert (back.method.kind, back.method.rank, back.method.dropout) == (kind, 5, 0.1)
    assert all(abs(back.factors[name].scale - one.scale) < 1e-6 for name, one in adapter.factors.items())
    if kind != "rslora":
        assert same(back.factors, adapter.factors)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("variant", ["llama", "gpt2", "mixtral", "gemma3"])
def test_pefts_format_keeps_every_bit(variant: str, kind: Any, tmp_path: Path) -> None:
    spec = native(variant).spec
    adapter = random_adapter(random_model(spec), spec, Method(kind, 4, 3.0, 0.1))
    write_peft(tmp_path, spec, adapter, "someone/base")
    back = read(tmp_path, spec)
    assert back.method == replace(adapter.method, targets=back.method.targets)
    if variant == "gpt2":  # q, k and v are one matrix there
        model = native(variant)
        assert np.allclose(logits(model, back), logits(model, adapter), atol=1e-5)
    else:
        assert same(back.factors, adapter.factors)


def test_peft_gets_its_own_names_shapes_and_alpha(tmp_path: Path) -> None:
    """As its documentation of checkpoints describes them."""
    model = native("llama")
    for kind, alpha in (("lora", 12.0), ("rslora", 3.0), ("dora", 12.0)):
        write_peft(
            tmp_path, model.spec, random_adapter(model, model.spec, replace(LORA, kind=kind)), "some/base"
        )
        tensors = mx.load(str(tmp_path / PEFT_WEIGHTS))
        start = "base_model.model.model.layers.0.self_attn.k_proj"
        assert tensors[f"{start}.lora_A.weight"].shape == (4, 48)
        assert tensors[f"{start}.lora_B.weight"].shape == (16, 4)
        assert (f"{start}.lora_magnitude_vector" in tensors) == (kind == "dora")
        config = json.loads((tmp_path / CONFIG).read_text())
        assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, alpha)
        assert (config["use_rslora"], config["use_dora"]) == (kind == "rslora", kind == "dora")
        words = ["down", "gate", "k", "o", "q", "up", "v"]
        assert config["target_modules"] == [f"{word}_proj" for word in words]
        assert config["rank_pattern"] == {}
    some = random_adapter(model, model.spec, replace(LORA, targets=("q",), num_layers=1))
    write_peft(tmp_path, model.spec, some)
    assert json.loads((tmp_path / CONFIG).read_text())["target_modules"] == [
        "model.layers.2.self_attn.q_proj"
    ]


def test_a_square_matrixs_factors_are_told_apart_by_the_formats_names(tmp_path: Path) -> None:
    model = native("llama")
    width = model.spec.dim
    adapter = random_adapter(model, model.spec, Method(rank=width, targets=("q",)))
    (tmp_path / "mlx").mkdir()
    write(tmp_path / "mlx", model.spec, adapter)
    write_peft(tmp_path / "peft", model.spec, adapter)
    ours, theirs = mx.load(str(tmp_path / "mlx" / WEIGHTS)), mx.load(str(tmp_path / "peft" / PEFT_WEIGHTS))
    module = "model.layers.0.self_attn.q_proj"
    assert mx.array_equal(ours[f"{module}.lora_a"].T, theirs[f"base_model.model.{module}.lora_A.weight"])
    assert mx.array_equal(ours[f"{module}.lora_b"].T, theirs[f"base_model.model.{module}.lora_B.weight"])
    assert same(read(tmp_path / "mlx", model.spec).factors, adapter.factors)
    assert same(read(tmp_path / "peft", model.spec).factors, adapter.factors)


def test_ranks_and_alphas_of_single_modules_are_read(tmp_path: Path) -> None:
    model = native("llama")
    adapter = random_adapter(model, model.spec, LORA)
    write_peft(tmp_path, model.spec, adapter)
    tensors = mx.load(str(tmp_path / PEFT_WEIGHTS))
    name = "base_model.model.model.layers.1.mlp.up_proj"
    tensors |= {
        f"{name}.lora_A.weight": mx.ones((2, model.spec.dim)),
        f"{name}.lora_B.weight": mx.ones((80, 2)),
    }
    mx.save_safetensors(str(tmp_path / PEFT_WEIGHTS), tensors)
    change(tmp_path, rank_pattern={"layers.1.mlp.up_proj": 2}, alpha_pattern={"up_proj": 10})
    factors = read(tmp_path, model.spec).factors
    assert (factors["layers.1.channel.up"].rank, factors["layers.1.channel.up"].scale) == (2, 5.0)
    assert (factors["layers.0.channel.up"].rank, factors["layers.0.channel.up"].scale) == (4, 2.5)
    assert factors["layers.0.mixer.q"].scale == 3.0


def test_an_adapter_is_what_its_merged_matrices_are() -> None:
    model = native("llama")
    adapter = random_adapter(model, model.spec, replace(LORA, kind="dora"))
    expected = logits(model, adapter)
    apply(model, adapter)
    stored = dict(model.tensors())
    merged = {name: one.merged(stored[f"{name}.weight"]) for name, one in adapters_of(model)}
    mx.eval(merged)
    detach(model)
    # the difference of two matrices as factors of full rank: the same matrices, computed without an adapter's formula
    factors = {}
    for name, whole in merged.items():
        change_of = whole - stored[f"{name}.weight"].array
        factors[name] = Factors(change_of.T, mx.eye(whole.shape[0]), 1.0)
    assert np.allclose(logits(model, Adapter(LORA, factors)), expected, atol=1e-4)


def test_peft_has_no_place_for_stacks_that_are_one_matrix(tmp_path: Path) -> None:
    model = native("deepseek-v3")
    with pytest.raises(
        OptionError, match=r"layers.0.mixer.k_up has an adapter that PEFT's format has no place for"
    ):
        write_peft(tmp_path, model.spec, random_adapter(model, model.spec, LORA))


@pytest.mark.parametrize("peft", [False, True])
def test_an_adapter_of_another_base_or_rank_is_refused_in_one_sentence(peft: bool, tmp_path: Path) -> None:
    model = native("llama")
    spec = model.spec
    (write_peft if peft else write)(tmp_path, spec, random_adapter(model, spec, LORA))
    with pytest.raises(
        CheckpointError, match=r"down_proj.* has shape \(.*80.*\) where this model asks for .*another base"
    ):
        read(tmp_path, wide_spec("llama"))
    with pytest.raises(
        CheckpointError, match=r"layers.2.* does not have; the adapter belongs to another base"
    ):
        read(tmp_path, replace(spec, layers=spec.layers[:2]))
    if peft:
        change(tmp_path, r=8)
    else:
        change(tmp_path, lora_parameters={"rank": 8, "scale": 3.0, "dropout": 0.0})
    expected = r"\(4, 80\) where rank 8 in" if peft else r"\(80, 4\) where rank 8 in"
    with pytest.raises(CheckpointError, match=rf"layers.0.*{expected} .* asks for .*8"):
        read(tmp_path, spec)


def test_factors_that_lie_the_other_way_round_are_refused(tmp_path: Path) -> None:
    model = native("llama")
    write_peft(tmp_path, model.spec, random_adapter(model, model.spec, LORA))
    tensors = mx.load(str(tmp_path / PEFT_WEIGHTS))
    mx.save_safetensors(str(tmp_path / PEFT_WEIGHTS), {name: array.T for name, array in tensors.items()})
    with pytest.raises(
        CheckpointError,
        match=r"lora_A.weight has shape \(80, 4\) where this model asks for \(4, 80\); it lies the other way",
    ):
        read(tmp_path, model.spec)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    model = native("llama")
    spec = model.spec
    with pytest.raises(ConfigError, match=r"there is no adapter_config.json"):
        read(tmp_path, spec)
    write(tmp_path, spec, random_adapter(model, spec, LORA))
    tensors = mx.load(str(tmp_path / WEIGHTS))
    lost = next(name for name in tensors if name.endswith("lora_b"))
    rest = {name: array for name, array in tensors.items() if name != lost}
    mx.save_safetensors(str(tmp_path / WEIGHTS), rest)
    with pytest.raises(CheckpointError, match=f"{lost} is missing"):
        read(tmp_path, spec)
    mx.save_safetensors(str(tmp_path / WEIGHTS), {"model.norm.weight": mx.ones(48)})
    with pytest.raises(CheckpointError, match=r"model.norm.weight is no tensor of a low-rank adapter"):
        read(tmp_path, spec)
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path, spec)
    change(tmp_path, lora_parameters=None)
    with pytest.raises(ConfigError, match="lora_parameters is missing"):
        read(tmp_path, spec)
    change(tmp_path, fine_tune_type="full")
    with pytest.raises(ConfigError, match="fine_tune_type='full' is no low-rank adapter"):
        read(tmp_path, spec)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path, spec)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "OFT"),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("r", "8"),
        ("lora_alpha", None),
    ],
)
def test_what_is_not_understood_of_peft_is_refused_by_its_key(key: str, value: Any, tmp_path: Path) -> None:
    model = native("llama")
    write_peft(tmp_path, model.spec, random_adapter(model, model.spec, LORA))
    change(tmp_path, **{key: value})
    with pytest.raises(ConfigError, match=rf"{key}={value!r}".replace("[", r"\[")):
        read(tmp_path, model.spec)


def test_an_expert_without_an_adapter_is_refused(tmp_path: Path) -> None:
    model = native("mixtral")
    write_peft(tmp_path, model.spec, random_adapter(model, model.spec, LORA))
    tensors = mx.load(str(tmp_path / PEFT_WEIGHTS))
    lost = "experts.2.w1."
    mx.save_safetensors(str(tmp_path / PEFT_WEIGHTS), {k: v for k, v in tensors.items() if lost not in k})
    with pytest.raises(
        CheckpointError, match=r"experts.2.w1 has no adapter where others of its layer have one"
    ):
        read(tmp_path, model.spec)


def test_what_was_there_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = native("llama")
    adapter = random_adapter(model, model.spec, LORA)
    write(tmp_path, model.spec, adapter)

    def full(*_: object) -> None:
        raise RuntimeError("no space left on device")

    monkeypatch.setattr(adapter_folder.mx, "save_safetensors", full)
    with pytest.raises(MacllmError, match=r"the adapter cannot be written .*no space left.*make room"):
        write(tmp_path, model.spec, replace(adapter, method=replace(LORA, scale=1.0)))
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == sorted([CONFIG, WEIGHTS])
    assert same(read(tmp_path, model.spec).factors, adapter.factors)
