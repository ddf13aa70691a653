"""Tokenizers inside GGUF files: equal to the original tokenizer.json and to llama.cpp."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from tiny_tokenizers import (
    gguf_of_byte_level,
    gguf_of_gemma_like,
    gguf_of_sentencepiece,
    train_gemma_like,
)
from token_corpus import TEXTS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from macllm.errors import TokenizerError
from macllm.tokenizer.base import Tokenizer as Ours
from macllm.tokenizer.gguf import from_gguf_metadata
from macllm.tokenizer.pretokenizers import PRE_TOKENIZERS
from macllm.weights.gguf_file import GGUFFile


@pytest.fixture(scope="module")
def starter_metadata(starter_gguf: Path) -> Any:
    return GGUFFile.open(starter_gguf).metadata


@pytest.fixture(scope="module")
def starter(starter_metadata: Any) -> Ours:
    return from_gguf_metadata(starter_metadata)


@pytest.mark.starter
def test_starter_equals_its_own_tokenizer_json(starter: Ours, starter_metadata: Any) -> None:
    """Built as SmolLM2's tokenizer.json is: one digit a piece, then GPT-2's byte-level BPE."""
    tokens = starter_metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in starter_metadata["tokenizer.ggml.merges"]]
    original = Tokenizer(models.BPE(dict(zip(tokens, range(len(tokens)), strict=True)), merges))
    original.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    original.decoder = decoders.ByteLevel()
    original.add_special_tokens([AddedToken(token, normalized=False) for token in tokens[:17]])
    for text in TEXTS:
        ids = original.encode(text, add_special_tokens=True).ids
        assert starter.encode(text) == starter.encode(text, add_special_tokens=True) == ids
        assert starter.decode(ids) == original.decode(ids, skip_special_tokens=False)
        assert starter.decode(ids, skip_special_tokens=True) == original.decode(ids)


@pytest.mark.starter
def test_starter_equals_llama_cpp(starter: Ours) -> None:
    rows = json.loads((Path(__file__).parent / "smollm2_llama_cpp.json").read_text())["rows"]
    assert [row["text"] for row in rows] == TEXTS
    for row in rows:
        assert starter.encode(row["text"], parse_special=False) == row["plain"]
        assert starter.encode(row["text"], parse_special=True) == row["special"]


@pytest.mark.starter
def test_starter_chat(starter: Ours) -> None:
    assert (starter.vocab_size, starter.bos_id, starter.eos_ids, starter.stop_ids) == (
        49152,
        1,
        {0, 2},
        {0, 2},
    )
    assert starter.template_origin == "model"
    text = starter.render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    assert (
        text
        == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = starter.encode_chat("Hi")
    assert ids == starter.encode(starter.render("Hi"))
    assert ids.count(1) == 3  # system (the template's own), user, assistant: BOS is this format's turn start


def test_byte_level_equals_its_tokenizer_json(byte_level_library: Tokenizer) -> None:
    ours = from_gguf_metadata(gguf_of_byte_level(byte_level_library))
    for text in TEXTS:
        assert ours.encode(text) == byte_level_library.encode(text).ids
    assert ours.special_ids == {0, 1, 2} and ours.eos_ids == {0, 2}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "text"),
        ({"add_bos_token": True}, "bos text"),
        ({"add_bos_token": True, "add_eos_token": True}, "bos text eos"),
        ({"pre": "llama-bpe"}, "bos text"),  # this family adds it unless told otherwise
        ({"pre": "llama-bpe", "add_bos_token": False}, "text"),
    ],
)
def test_what_encoding_adds(byte_level_library: Tokenizer, flags: dict[str, Any], expected: str) -> None:
    ours = from_gguf_metadata(gguf_of_byte_level(byte_level_library, **flags))
    parts = {"bos": [1], "text": ours.encode("Hi"), "eos": [2]}
    assert ours.encode("Hi", add_special_tokens=True) == [
        token for name in expected.split() for token in parts[name]
    ]


def _transformers_patterns() -> list[tuple[str, str]]:
    from transformers.models.qwen2 import tokenization_qwen2
    from transformers.models.qwen3_5 import tokenization_qwen3_5

    return [
        ("qwen2", tokenization_qwen2.PRETOKENIZE_REGEX),
        ("qwen35", tokenization_qwen3_5.PRETOKENIZE_REGEX),
    ]


def test_qwen_patterns_are_those_of_transformers(byte_level_library: Tokenizer) -> None:
    for name, pattern in _transformers_patterns():
        ours = from_gguf_metadata(gguf_of_byte_level(byte_level_library, pre=name))
        theirs = Tokenizer.from_str(byte_level_library.to_str())
        theirs.normalizer = normalizers.NFC()
        theirs.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
            ]
        )
        for text in TEXTS:
            assert ours.encode(text) == theirs.encode(text).ids


# Pieces of one line by each kind of pre-tokenizer: (smollm) digits alone, (gpt-2) digits together,
# (llama) three digits and a leading sign with letters, (qwen) one digit, (tekken, gpt-4o) split by case.
LINE = "I'M  (foo)Bar 12345!=x\n\n  y"
CUTS = {
    "gpt-2": ["I", "'", "M", " ", " (", "foo", ")", "Bar", " 12345", "!=", "x", "\n\n ", " y"],
    "smollm": ["I", "'", "M", " ", " (", "foo", ")", "Bar", " ", *"12345", "!=", "x", "\n\n ", " y"],
    "llama-bpe": ["I", "'M", " ", " (", "foo", ")Bar", " ", "123", "45", "!=", "x", "\n\n", " ", " y"],
    "qwen2": ["I", "'M", " ", " (", "foo", ")Bar", " ", *"12345", "!=", "x", "\n\n", " ", " y"],
    "tekken": ["I", "'M", " ", " (", "foo", ")Bar", " ", *"12345", "!=", "x", "\n\n", " ", " y"],
    "gpt-4o": ["I'M", " ", " (", "foo", ")Bar", " ", "123", "45", "!=", "x", "\n\n", " ", " y"],
    "default": ["I", "'", "M", "  ", "(", "foo", ")", "Bar", " ", "123", "45", "!=", "x", "\n\n ", " y"],
    "seed-coder": ["I", "'M", " ", " (", "foo", ")Bar", " ", *"12345", "!=", "x", "\n\n", " ", " y"],
    "bloom": ["I'M", "  (", "foo", ")", "Bar", " 12345", "!", "=x", "\n\n ", " y"],
    "kimi-k2": ["I'M", " ", " (", "foo", ")Bar", " ", "123", "45", "!=", "x", "\n\n", " ", " y"],
    "tiny_aya": ["I'M", " ", " (", "foo", ")Bar", " ", "12", "345", "!=", "x", "\n\n", " ", " y"],
    "deepseek-v3": ["I", "'M", " ", " (", "foo", ")Bar", " ", "123", "45", "!=", "x", "\n\n", " ", " y"],
}


@pytest.mark.parametrize("name", CUTS)
def test_how_a_line_is_cut(name: str) -> None:
    library = Tokenizer(models.BPE())
    PRE_TOKENIZERS[name].install(library)
    pieces = [
        decoders.ByteLevel().decode([piece]) for piece, _ in library.pre_tokenizer.pre_tokenize_str(LINE)
    ]
    assert pieces == CUTS[name]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_pre_tokenizer_keeps_the_text(name: str, byte_level_library: Tokenizer) -> None:
    ours = from_gguf_metadata(gguf_of_byte_level(byte_level_library, pre=name))
    for text in TEXTS:
        whole = unicodedata.normalize("NFC", text) if PRE_TOKENIZERS[name].nfc else text
        assert ours.decode(ours.encode(text)) == whole


def test_marked_bpe_equals_its_tokenizer_json() -> None:
    library = train_gemma_like()
    ours = from_gguf_metadata(gguf_of_gemma_like(library))
    assert (ours.special_ids, ours.bos_id, ours.eos_ids) == ({0, 1, 2}, 1, {2})
    for text in [*TEXTS, "a\n\n\nb", "  two  spaces ", "<s>"]:
        assert ours.encode(text) == library.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=True) == library.encode(text).ids
        assert 1 not in ours.encode(text, parse_special=False)
        if "▁" not in text:  # a literal mark is a space
            assert ours.decode(ours.encode(text, parse_special=False)) == text


@pytest.mark.parametrize("name", ["llama_spm", "gemma_spm"])
def test_sentencepiece_equals_the_original_model(name: str, request: pytest.FixtureRequest) -> None:
    model: bytes = request.getfixturevalue(name)
    library = sentencepiece.SentencePieceProcessor()
    library.LoadFromSerializedProto(model)
    ours = from_gguf_metadata(gguf_of_sentencepiece(model, add_prefix=name == "llama_spm"))
    assert ours.bos_id == library.bos_id() and library.eos_id() in ours.eos_ids
    for text in TEXTS:
        ids = library.encode(text)
        assert ours.encode(text, parse_special=False) == ids
        assert ours.encode(text, parse_special=False, add_special_tokens=True) == [library.bos_id(), *ids]
        assert ours.decode(ids) == library.decode(ids)


def test_gemma_turns(gemma_spm: bytes) -> None:
    ours = from_gguf_metadata(gguf_of_sentencepiece(gemma_spm, add_prefix=False))
    start, end = ours.token_to_id("<start_of_turn>"), ours.token_to_id("<end_of_turn>")
    ids = ours.encode("<start_of_turn>user\nHi<end_of_turn>\n")
    assert ids[0] == start and ids[-2:] == [end, ours.token_to_id("\n")]
    assert ours.eos_ids == {ours.token_to_id("<eos>"), end}
    assert ours.token_bytes(ours.token_to_id("▁▁") or 0) == b"  "


def test_padding_tokens_of_type_unknown_are_reached_by_no_text(llama_spm: bytes) -> None:
    metadata = gguf_of_sentencepiece(llama_spm, add_prefix=True)
    metadata["tokenizer.ggml.tokens"] += ["[PAD700]", "x" * 300]
    metadata["tokenizer.ggml.scores"] += [0.0, 0.0]
    metadata["tokenizer.ggml.token_type"] += [2, 1]
    ours = from_gguf_metadata(metadata)
    assert 700 not in ours.encode("a [PAD700]", parse_special=False)
    assert ours.decode([700, 701]) == "[PAD700]" + "x" * 300


def test_arrays_may_come_as_numpy(llama_spm: bytes) -> None:
    metadata = gguf_of_sentencepiece(llama_spm, add_prefix=True)
    same = from_gguf_metadata(metadata)
    for key in ("scores", "token_type"):
        metadata[f"tokenizer.ggml.{key}"] = np.array(metadata[f"tokenizer.ggml.{key}"])
    ours = from_gguf_metadata(metadata)
    assert all(ours.encode(text) == same.encode(text) for text in TEXTS)


def test_templates_by_name(byte_level_library: Tokenizer) -> None:
    metadata = gguf_of_byte_level(byte_level_library)
    metadata["tokenizer.chat_template"] = "plain"
    metadata["tokenizer.chat_template.tool_use"] = "{{ tools[0].function.name }}"
    ours = from_gguf_metadata(metadata)
    assert ours.render("x") == "plain"
    assert ours.render("x", tools=[{"name": "search"}]) == "search"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"pre": "martian"}, r"tokenizer\.ggml\.pre='martian' is not supported \(supported: .*smollm"),
    (
        {"model": "bert"},
        r"tokenizer\.ggml\.model='bert' is not supported \(expected 'gpt2', 'llama' or 'gemma4'\)",
    ),
    ({"model": None}, r"tokenizer\.ggml\.model is missing; .*download"),
    ({"model": 7}, r"tokenizer\.ggml\.model=7 is not of type str"),
    ({"tokens": None}, r"tokenizer\.ggml\.tokens is missing"),
    ({"tokens": "abc"}, r"tokenizer\.ggml\.tokens is not the expected array"),
    ({"merges": None}, r"tokenizer\.ggml\.merges is missing"),
    ({"merges": ["a b c"]}, r"tokenizer\.ggml\.merges: merges do not fit the vocabulary"),
    ({"merges": ["nowhere tobefound"]}, r"tokenizer\.ggml\.merges: merges do not fit the vocabulary"),
    ({"token_type": [1, 1]}, r"tokenizer\.ggml\.token_type has 2 entries for \d+ tokens"),
    ({"model": "llama"}, r"tokenizer\.ggml\.scores has 0 entries for \d+ tokens"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_metadata_is_refused_in_one_sentence(
    changes: dict[str, Any], message: str, byte_level_library: Tokenizer
) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        from_gguf_metadata(gguf_of_byte_level(byte_level_library, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.starter
def test_importing_and_building_brings_in_no_heavy_library(
    starter_gguf: Path, run_python: Callable[..., str]
) -> None:
    code = (
        "import sys; from pathlib import Path; from macllm.tokenizer import from_gguf_metadata\n"
        "early = {'tokenizers', 'jinja2', 'sentencepiece', 'tiktoken'} & set(sys.modules)\n"
        "from macllm.weights.gguf_file import GGUFFile\n"
        f"from_gguf_metadata(GGUFFile.open(Path({str(starter_gguf)!r})).metadata).encode('a')\n"
        "late = {'mlx.core', 'transformers', 'huggingface_hub', 'jinja2', 'sentencepiece'} & set(sys.modules)\n"
        "print(sorted(early), sorted(late))"
    )
    assert run_python(code).strip() == "[] []"
