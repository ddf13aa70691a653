"""Fusing: what is written computes what base and adapter do, says how much of it is kept, and refuses to lose it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import random_adapters
from tiny import decoder, reference, write_with_mlx_lm

import macllm
from macllm.adapters.files import Adapter, apply, read, taken, write
from macllm.adapters.full import write_full
from macllm.adapters.fuse import Fusion, fuse
from macllm.adapters.fused_source import Tally
from macllm.adapters.method import Method, Scalings, Virtual
from macllm.adapters.sharing import convert
from macllm.cli.main import main
from macllm.errors import MacllmError, OptionError
from macllm.nn.adapted import Factors, plain, row_lengths
from macllm.nn.assign import assign
from macllm.nn.decoder import Decoder
from macllm.tune.methods import attach
from macllm.weights.model_files import open_model

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (1, 12)))
Q = {"group_size": 32, "bits": 4}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wide llama in 4 bits, as mlx-lm writes it."""
    folder = tmp_path_factory.mktemp("packed")
    write_with_mlx_lm("llama", folder, dtype="float16", **Q)
    return folder


def arrays(folder: Path) -> dict[str, mx.array]:
    found = mx.load(str(folder / "model.safetensors"))
    assert isinstance(found, dict)
    return found


def adapted(model: Path, adapter: Adapter) -> Decoder:
    made = decoder(model)
    apply(made, adapter)
    return made


def off(a: Decoder, b: Decoder) -> float:
    x, y = a(TOKENS), b(TOKENS)
    return float((mx.linalg.norm(x - y) / mx.linalg.norm(y)).item())


def with_zeros(adapter: Adapter) -> Adapter:
    """The same one before it has learned anything."""
    factors = {name: replace(one, b=mx.zeros_like(one.b)) for name, one in adapter.factors.items()}
    return Adapter(adapter.method, factors)


@pytest.mark.parametrize("variant", ["llama", "phi3", "mixtral", "gpt2", "deepseek-v2-lite"])
def test_a_fused_model_computes_what_base_and_adapter_do(variant: str, tmp_path: Path) -> None:
    base = reference(variant).folder
    random_adapters.written(base, tmp_path / "adapter", strength=0.2)
    fused = fuse(base, tmp_path / "adapter", tmp_path / "out")
    adapter = read(tmp_path / "adapter", open_model(base).spec)
    assert off(decoder(tmp_path / "out"), adapted(base, adapter)) < 1e-5
    assert fused.worst is not None and fused.worst.cosine > 0.99999


def test_the_cosine_is_that_of_the_wanted_and_the_real_change(packed: Path, tmp_path: Path) -> None:
    random_adapters.written(packed, tmp_path / "adapter", strength=0.02)
    spec = open_model(packed).spec
    adapter = read(tmp_path / "adapter", spec)
    fused = fuse(packed, tmp_path / "adapter", tmp_path / "out", force=True)
    name = "layers.0.mixer.o"
    before, after = (
        dict(decoder(folder).tensors())[f"{name}.weight"] for folder in (packed, tmp_path / "out")
    )
    factors = adapter.factors[name]
    wanted = np.array(factors.scale * (factors.a @ factors.b).T, np.float64).ravel()
    real = np.array(plain(after) - plain(before), np.float64).ravel()
    found = next(one for one in fused.tensors if one.name == "model.layers.0.self_attn.o_proj.weight")
    assert found.cosine == pytest.approx(
        wanted @ real / np.linalg.norm(wanted) / np.linalg.norm(real), abs=1e-4
    )
    assert found.relative == pytest.approx(
        np.linalg.norm(wanted) / np.linalg.norm(np.array(plain(before))), rel=1e-3
    )
    assert found.cosine < 0.5


def test_forced_into_four_bits_every_matrix_is_nearer_than_the_base_s(packed: Path, tmp_path: Path) -> None:
    random_adapters.written(packed, tmp_path / "adapter", strength=0.05)
    fuse(packed, tmp_path / "adapter", tmp_path / "out", force=True)
    before, after = (dict(decoder(folder).tensors()) for folder in (packed, tmp_path / "out"))
    for name, one in read(tmp_path / "adapter", open_model(packed).spec).factors.items():
        base, found = (plain(stored[f"{name}.weight"]) for stored in (before, after))
        delta = one.scale * (one.a @ one.b).T
        assert mx.linalg.norm(found - base - delta).item() < mx.linalg.norm(delta).item()


def test_a_tally_of_parts_is_that_of_the_whole() -> None:
    base, wanted, real = (mx.random.normal((6, 8), key=mx.random.key(seed)) for seed in range(3))
    parts, whole = Tally(), Tally()
    whole.add(base, wanted, real)
    for rows in (slice(0, 2), slice(2, 6)):
        parts.add(base[rows], wanted[rows], real[rows])
    assert parts.cosine == pytest.approx(whole.cosine, abs=1e-6)
    assert parts.relative == pytest.approx(whole.relative, abs=1e-6)


def test_what_would_be_lost_is_refused_with_what_would_hold_it(packed: Path, tmp_path: Path) -> None:
    random_adapters.written(packed, tmp_path / "adapter", strength=0.05)
    with pytest.raises(OptionError, match=r"with 0\.\d+ in affine 4-bit.*--bits 8 would keep 0\.9.*--force"):
        fuse(packed, tmp_path / "adapter", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    fuse(packed, tmp_path / "adapter", tmp_path / "forced", force=True)
    assert (tmp_path / "forced" / "model.safetensors").is_file()


@pytest.mark.parametrize(("options", "least"), [({"bits": 8}, 0.99), ({"dequantize": True}, 0.9999)])
def test_more_bits_hold_the_change(
    options: dict[str, Any], least: float, packed: Path, tmp_path: Path
) -> None:
    random_adapters.written(packed, tmp_path / "adapter", strength=0.2)
    fused = fuse(packed, tmp_path / "adapter", tmp_path / "out", **options)
    assert fused.worst is not None and least < fused.worst.cosine <= 1
    adapter = read(tmp_path / "adapter", open_model(packed).spec)
    assert off(decoder(tmp_path / "out"), adapted(packed, adapter)) < 0.05


def test_what_did_not_change_keeps_its_codes_whatever_the_bits(packed: Path, tmp_path: Path) -> None:
    random_adapters.written(packed, tmp_path / "adapter", strength=0.5, targets=("v", "down"))
    fuse(packed, tmp_path / "adapter", tmp_path / "out", bits=8, force=True)
    before, after = arrays(packed), arrays(tmp_path / "out")
    for name, array in before.items():
        changed = "v_proj" in name or "down_proj" in name
        assert (changed and name.endswith("weight")) == (
            array.shape != after[name].shape
        )  # groups as they were
        assert changed or mx.array_equal(array, after[name])
    with_plain = fuse(reference("llama", wide=True).folder, tmp_path / "adapter", tmp_path / "plain", bits=8)
    assert len(with_plain.conversion.quantized) > len(with_plain.tensors)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_that_learned_nothing_fuses_bit_for_bit(kind: str, packed: Path, tmp_path: Path) -> None:
    spec = open_model(packed).spec
    adapter = with_zeros(random_adapters.random_adapter(spec))
    if kind == "dora":
        stored = dict(decoder(packed).tensors())
        lengths = {name: row_lengths(plain(stored[f"{name}.weight"])) for name in adapter.factors}
        adapter = Adapter(
            Method("dora", rank=4, scale=1.0),
            {name: replace(one, magnitude=lengths[name]) for name, one in adapter.factors.items()},
        )
    write(tmp_path / "adapter", spec, adapter)
    fused = fuse(packed, tmp_path / "adapter", tmp_path / "out")
    assert fused.tensors == () and fused.worst is None
    before, after = arrays(packed), arrays(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(mx.array_equal(before[name], after[name]) for name in before)


def test_rows_that_did_not_change_keep_their_codes(packed: Path, tmp_path: Path) -> None:
    spec = open_model(packed).spec
    adapter = random_adapters.random_adapter(spec, targets=("o",))
    half = {
        name: replace(one, b=mx.where(mx.arange(one.b.shape[1]) < 100, 0.0, one.b))
        for name, one in adapter.factors.items()
    }
    write(tmp_path / "adapter", spec, Adapter(adapter.method, half))
    fuse(packed, tmp_path / "adapter", tmp_path / "out", force=True)
    name = "model.layers.0.self_attn.o_proj"
    before, after = arrays(packed), arrays(tmp_path / "out")
    for part in ("weight", "scales", "biases"):
        old, new = before[f"{name}.{part}"], after[f"{name}.{part}"]
        assert mx.array_equal(old[:100], new[:100])
        assert not mx.array_equal(old[100:], new[100:])


def test_a_change_of_whole_groups_goes_into_the_biases(packed: Path, tmp_path: Path) -> None:
    spec = open_model(packed).spec
    adapter = random_adapters.random_adapter(spec, strength=0.05, targets=("q", "up"))
    grouped = {
        name: Factors(mx.repeat(one.a[::32], 32, axis=0), one.b, one.scale)
        for name, one in adapter.factors.items()
    }
    write(tmp_path / "adapter", spec, Adapter(adapter.method, grouped))
    fused = fuse(packed, tmp_path / "adapter", tmp_path / "out")
    assert fused.worst is not None and fused.worst.cosine > 0.999
    before, after = arrays(packed), arrays(tmp_path / "out")
    changed = {name for name in before if not mx.array_equal(before[name], after[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"biases"}


def test_weights_of_full_fine_tuning_are_fused(tmp_path: Path) -> None:
    base = reference("llama", wide=True).folder
    model = decoder(base)
    stored = {name: plain(one) for name, one in model.tensors()}
    assign(
        model,
        {name: array * 1.25 for name, array in stored.items() if name.startswith(("layers.1.", "norm"))},
    )
    write_full(tmp_path / "full", model, num_layers=1)
    fused = fuse(base, tmp_path / "full", tmp_path / "out")
    assert mx.array_equal(decoder(tmp_path / "out")(TOKENS), model(TOKENS))
    assert {one.name for one in fused.tensors} >= {"model.norm.weight", "model.layers.1.mlp.up_proj.weight"}
    assert not any("layers.0." in one.name for one in fused.tensors)


def test_interrupted_the_same_call_goes_on_and_another_adapter_does_not(packed: Path, tmp_path: Path) -> None:
    one, two = (
        random_adapters.written(packed, tmp_path / name, seed) for seed, name in enumerate(("one", "two"))
    )

    class Stopped(Exception):
        pass

    def stop(event: Any) -> None:
        if type(event).__name__ == "Converted" and event.done_bytes > event.total_bytes / 2:
            raise Stopped

    def run(adapter: Path, out: str, report: Callable[[Any], None] = lambda event: None) -> Fusion:
        return fuse(packed, adapter, tmp_path / out, force=True, report=report, sync_bytes=1)

    with pytest.raises(Stopped):
        run(one, "out", stop)
    assert not (tmp_path / "out").exists()
    with pytest.raises(MacllmError, match="unfinished conversion"):
        run(two, "out")
    present: list[int] = []
    run(one, "out", lambda event: present.append(getattr(event, "present_bytes", 0)))
    assert max(present) > 0
    run(one, "at-once")
    again, whole = arrays(tmp_path / "out"), arrays(tmp_path / "at-once")
    assert all(mx.array_equal(again[name], whole[name]) for name in whole)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(packed: Path, tmp_path: Path) -> None:
    adapter = random_adapters.written(packed, tmp_path / "adapter")
    with pytest.raises(MacllmError, match="are needed and"):
        fuse(packed, adapter, tmp_path / "out", force=True, disk_free=lambda path: 1000)
    assert not list(tmp_path.glob("out*"))


def test_the_command_reports_each_tensor(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = random_adapters.written(packed, tmp_path / "adapter", strength=0.3)
    out = tmp_path / "out"
    words = ["fuse", str(packed), str(adapter), str(out)]
    assert main(words) == 2
    assert "--bits 8 would keep" in capsys.readouterr().err
    assert main([*words, "--bits", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["tensors"]) == 14 and told["least_cosine"] > 0.95
    assert told["tensors"][0]["stored_as"].startswith("affine 8-bit")
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    shutil.rmtree(out)
    assert main([*words, "--dequantize"]) == 0
    shown = capsys.readouterr().out
    assert "14 tensors changed" in shown and "plain" in shown
    assert main([*words[:-1], str(tmp_path / "forced"), "--force"]) == 0
    assert main([*words, "--bits", "8", "--dequantize"]) == 2


def test_mlx_lm_loads_what_was_fused(packed: Path, tmp_path: Path) -> None:
    from mlx_lm.utils import load_model

    adapter = random_adapters.written(packed, tmp_path / "adapter", strength=0.3)
    fuse(packed, adapter, tmp_path / "out", bits=8)
    model, _ = load_model(tmp_path / "out")
    theirs = model(TOKENS).astype(mx.float32)
    ours = decoder(tmp_path / "out")(TOKENS)
    assert (
        float((mx.linalg.norm(theirs - ours) / mx.linalg.norm(ours)).item()) < 0.05
    )  # it computes in float16


@pytest.mark.parametrize("method", [Virtual("prompt", 3), Scalings()])
def test_what_is_no_change_of_weights_is_refused(method: Any, packed: Path, tmp_path: Path) -> None:
    model = decoder(packed)
    attach(model, model.spec, method)
    write(tmp_path / "adapter", model.spec, taken(model, method))
    for call in (
        lambda: fuse(packed, tmp_path / "adapter", tmp_path / "out"),
        lambda: convert(tmp_path / "adapter", tmp_path / "out", "gguf", packed),
    ):
        with pytest.raises(OptionError, match=f"what {method.kind} learns"):
            call()
    llm = macllm.load(packed, adapter=tmp_path / "adapter", dtype="float32")
    assert np.allclose(llm.logits([5, 6, 7]), model(mx.array([[5, 6, 7]]))[0], atol=1e-3)
