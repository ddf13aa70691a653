"""Conversion of GGUF files: codes repacked and never quantized twice, tokenizer and config written."""

import json
from pathlib import Path

import gguf_maker
import mlx.core as mx
import numpy as np
import pytest
import tiny
from conversions import config, macllm_logits, mlx_lm_logits, same_tensors, tensors

from macllm.engine.events import Token
from macllm.engine.generate import Options, generate
from macllm.engine.loading import load_model
from macllm.engine.request import Limits
from macllm.engine.session import Session
from macllm.errors import CheckpointError, OptionError
from macllm.tokenizer import load_tokenizer
from macllm.weights.convert import convert
from macllm.weights.model_files import open_model
from macllm.weights.plan import Target

EXACT = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8}
TEXT = "Hello <|im_start|>the inner 1234 tin\n\n  x日本 🎉<|im_end|> <start_of_turn>a<end_of_turn>"


def made(
    tmp_path: Path, types: str | dict[str, str] = "Q4_0", arch: str = "llama", **options: object
) -> Path:
    return gguf_maker.make_gguf(tmp_path / "model.gguf", arch, types, **options).path


@pytest.mark.parametrize("arch", gguf_maker.ARCHITECTURES)
@pytest.mark.parametrize("kind", ["F16", "Q4_1", "Q8_0"])
def test_both_readers_find_the_model_of_the_file(arch: str, kind: str, tmp_path: Path) -> None:
    file = made(tmp_path, kind, arch)
    done = convert(file, tmp_path / "out", Target(dtype="float32"))  # nothing rounded
    expected = macllm_logits(file)
    assert tiny.difference(macllm_logits(done.path), expected) < 1e-5
    # mlx-lm rounds gemma's embedding scale to bfloat16; that of 256 is exact
    assert tiny.difference(mlx_lm_logits(done.path), expected) < 1e-4


@pytest.mark.parametrize("kind", EXACT)
def test_codes_and_scales_are_the_files(kind: str, tmp_path: Path) -> None:
    file = made(tmp_path, kind, "qwen3")  # whose rows are stored in Hugging Face's order
    done = convert(file, tmp_path / "out")
    entry = config(done.path)["quantization"]
    assert (entry["bits"], entry["group_size"]) == (EXACT[kind], 32)
    assert not done.quantized
    assert not done.notices
    source = open_model(file)
    written = tensors(done.path)
    checkpoint = source.checkpoint(mx.float16)
    for tensor in source.spec.tensors():
        stored = checkpoint.read(source.naming.stored(tensor.name)[0])
        name = open_model(done.path).naming.stored(tensor.name)[0]
        if tensor.quantizable:
            module = name.removesuffix(".weight")
            assert mx.array_equal(written[name], stored.weight)
            assert mx.array_equal(written[f"{module}.scales"], stored.scales)
            assert mx.array_equal(written[f"{module}.biases"], stored.biases)
            assert written[f"{module}.scales"].dtype == mx.float16
        else:
            assert mx.array_equal(written[name], stored.array.astype(mx.float16))


def test_gemmas_norms_lose_the_1_that_its_files_add(tmp_path: Path) -> None:
    made_file = gguf_maker.make_gguf(tmp_path / "model.gguf", "gemma3", "F32")
    done = convert(made_file.path, tmp_path / "out")
    written = np.array(tensors(done.path)["model.norm.weight"])
    assert written.dtype == np.float32
    assert np.abs(written - (made_file.weights["output_norm.weight"] - 1)).max() < 1e-6


@pytest.mark.parametrize(
    ("arch", "types", "expected"),
    [
        ("llama", "F32", mx.float32),
        ("llama", "F16", mx.float16),
        ("llama", "BF16", mx.bfloat16),
        ("llama", "Q8_0", mx.float16),
        ("gemma3", "Q8_0", mx.bfloat16),
    ],
)
def test_one_type_whatever_the_norms_are_stored_in(
    arch: str, types: str, expected: mx.Dtype, tmp_path: Path
) -> None:
    done = convert(made(tmp_path, types, arch), tmp_path / "out")
    assert {array.dtype for array in tensors(done.path).values()} - {mx.uint32} == {expected}
    assert config(done.path)["torch_dtype"] == str(expected).rpartition(".")[2]


def test_a_type_that_mlx_does_not_have_is_expanded_and_named(tmp_path: Path) -> None:
    file = made(tmp_path, {"*ffn_down*": "Q6_K", "*": "Q4_K"})
    done = convert(file, tmp_path / "out")
    assert len(done.plain) == 2
    assert "model.layers.0.mlp.down_proj" in done.notices[0]
    assert config(done.path)["quantization"]["model.layers.1.mlp.down_proj"] is False
    assert tiny.difference(macllm_logits(done.path), macllm_logits(file)) < 0.01
    assert tiny.difference(mlx_lm_logits(done.path), macllm_logits(done.path)) < 1e-5
    same = convert(file, tmp_path / "asked", Target(bits=4))
    assert same_tensors(tensors(same.path), tensors(done.path))


def test_asking_for_the_bits_it_has_keeps_the_codes(tmp_path: Path) -> None:
    file = made(tmp_path, {"token_embd*": "Q8_0", "*": "Q4_1"})
    plain = convert(file, tmp_path / "plain")
    for number, target in enumerate((Target(quantize=True), Target(bits=4), Target(bits=4, group_size=32))):
        asked = convert(file, tmp_path / f"asked{number}", target)
        assert same_tensors(tensors(asked.path), tensors(plain.path))
        assert bool(asked.notices) == (target.bits is not None)


@pytest.mark.parametrize(
    "target",
    [Target(bits=8), Target(bits=4, group_size=64), Target(mode="mxfp4"), Target(recipe="mixed_3_6")],
    ids=str,
)
def test_quantizing_twice_is_refused_unless_asked_for(target: Target, tmp_path: Path) -> None:
    file = made(tmp_path, "Q4_1")
    with pytest.raises(OptionError, match=r"model.gguf is quantized already \(affine 4-bit.*--requantize"):
        convert(file, tmp_path / "out", target)
    assert list(tmp_path.iterdir()) == [file]


def test_requantize_changes_only_what_is_packed_otherwise(tmp_path: Path) -> None:
    file = made(tmp_path, {"*ffn_down*": "Q6_K", "*": "Q4_1"})
    first = convert(file, tmp_path / "first")
    again = convert(file, tmp_path / "again", Target(bits=4, group_size=32, requantize=True))
    assert len(again.quantized) == 2
    assert "down_proj" in again.notices[0]
    before, after = tensors(first.path), tensors(again.path)
    kept = [name for name in before if "down_proj" not in name]
    assert all(mx.array_equal(before[name], after[name]) for name in kept)
    more = convert(file, tmp_path / "more", Target(bits=8, requantize=True))
    assert config(more.path)["quantization"]["bits"] == 8
    assert tiny.difference(macllm_logits(more.path), macllm_logits(file)) < 0.05
    assert tiny.difference(macllm_logits(more.path), mlx_lm_logits(more.path)) < 1e-5


@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K", "Q8_0"])
def test_dequantize_gives_the_files_values(kind: str, tmp_path: Path) -> None:
    file = made(tmp_path, kind)
    done = convert(file, tmp_path / "out", Target(dequantize=True, dtype="float32"))
    assert "quantization" not in config(done.path)
    assert tiny.difference(macllm_logits(done.path), macllm_logits(file)) < 1e-5


@pytest.mark.parametrize("kind", ["F16", "F32", "BF16"])
def test_a_plain_file_is_quantized_like_a_folder(kind: str, tmp_path: Path) -> None:
    file = made(tmp_path, kind)
    plain = convert(file, tmp_path / "plain", Target(dtype="float32")).path
    ours = convert(file, tmp_path / "ours", Target(bits=4, dtype="float16")).path
    assert same_tensors(tensors(ours), tensors(convert(plain, tmp_path / "two-steps", Target(bits=4)).path))


@pytest.mark.parametrize("arch", gguf_maker.ARCHITECTURES)
def test_the_tokenizer_becomes_files_that_encode_alike(arch: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    file = made(tmp_path, "F16", arch)
    folder = convert(file, tmp_path / "out").path
    original, written = open_model(file).tokenizer(), load_tokenizer(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in (TEXT, "a tin\nof  the inner", " leading"):
        expected = original.encode(text, add_special_tokens=True)
        assert written.encode(text, add_special_tokens=True) == expected
        assert written.decode(expected) == original.decode(expected)
        assert theirs.encode(text) == expected
    assert written.chat_template == original.chat_template
    assert theirs.chat_template == original.chat_template
    assert written.bos_id == original.bos_id
    assert written.stop_ids == original.stop_ids
    assert set(np.atleast_1d(config(folder)["eos_token_id"])) == original.eos_ids


def test_without_a_known_tokenizer_the_weights_are_written_all_the_same(tmp_path: Path) -> None:
    file = made(tmp_path, "F16", keys={"tokenizer.ggml.model": "unheard-of"})
    done = convert(file, tmp_path / "out", Target(dtype="float32"))
    assert "unheard-of" in done.notices[0]
    assert not (done.path / "tokenizer.json").exists()
    assert tiny.difference(macllm_logits(done.path), macllm_logits(file)) < 1e-5


def test_rope_factors_of_its_own_are_kept_and_named(tmp_path: Path) -> None:
    factors = np.linspace(1.0, 3.0, 32, dtype=np.float32)
    file = made(tmp_path, "F16", weights={"rope_freqs.weight": factors})
    done = convert(file, tmp_path / "out", Target(dtype="float32"))
    assert "only macllm reads it" in done.notices[0]
    assert tiny.difference(macllm_logits(done.path), macllm_logits(file)) < 1e-5


def test_a_number_beyond_float16_is_refused_not_made_infinite(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    huge = rng.normal(0, 1e6, (256, 256)).astype(np.float32)
    file = made(tmp_path, "F32", weights={"blk.0.attn_output.weight": huge})
    with pytest.raises(CheckpointError, match=r"blk.0.attn_output.weight .* float16 .* bfloat16"):
        convert(file, tmp_path / "out", Target(bits=8))
    assert not (tmp_path / "out").exists()
    done = convert(file, tmp_path / "other", Target(bits=8, dtype="bfloat16"))
    assert np.isfinite(macllm_logits(done.path)).all()


def greedy(path: Path, prompt: list[int], count: int = 20) -> list[int]:
    loaded = load_model(path, dtype="float32")
    options = Options(limits=Limits(max_tokens=count, ignore_eos=True))
    return [e.id for e in generate(loaded, Session(loaded.model), prompt, options) if isinstance(e, Token)]


@pytest.mark.starter
def test_the_starter_answers_from_its_folder_as_from_its_file(starter_gguf: Path, tmp_path: Path) -> None:
    done = convert(starter_gguf, tmp_path / "out")
    assert done.bits_per_weight < 6
    assert not done.quantized
    prompt = (
        open_model(starter_gguf).tokenizer().encode("The three primary colours are", add_special_tokens=True)
    )
    assert greedy(done.path, prompt) == greedy(starter_gguf, prompt)
    index = json.loads((done.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_parameters"] == done.parameters == 134515008
