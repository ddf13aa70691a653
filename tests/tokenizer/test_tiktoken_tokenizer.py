"""tiktoken rank files: equal to tiktoken and to a byte-level BPE of the same ranks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from token_corpus import TEXTS
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers

from macllm.errors import TokenizerError
from macllm.tokenizer.load import load_tokenizer
from macllm.tokenizer.pretokenizers import LLAMA3, QWEN2
from macllm.tokenizer.tiktoken_file import KIMI, read_ranks

Folder = Callable[..., Path]
FAMILIES: list[tuple[str, dict[str, Any], str]] = [
    ("qwen.tiktoken", {"config.json": {"model_type": "qwen"}}, QWEN2),
    ("tokenizer.model", {"config.json": {"model_type": "llama"}}, LLAMA3),
    ("tiktoken.model", {"tokenizer_config.json": {"tokenizer_class": "TikTokenTokenizer"}}, KIMI),
    ("own.tiktoken", {"tokenizer_config.json": {"pat_str": r"\S+|\s+"}}, r"\S+|\s+"),
]


@pytest.mark.parametrize(("name", "files", "pattern"), FAMILIES)
def test_ids_are_those_of_the_familys_pattern(
    name: str, files: dict[str, Any], pattern: str, ranks: bytes, model_folder: Folder
) -> None:
    folder = model_folder({name: ranks, **files})
    ours = load_tokenizer(folder)
    library = tiktoken.Encoding(
        "t", pat_str=pattern, mergeable_ranks=read_ranks(folder / name), special_tokens={}
    )
    for text in TEXTS:
        if name == "qwen.tiktoken" and "\u0301" in text:
            continue  # composed first
        ids = library.encode_ordinary(text)
        assert ours.encode(text, parse_special=False) == ids
        assert ours.decode(ids) == text


def test_a_byte_level_bpe_of_the_same_tokens_agrees(
    byte_level_library: Tokenizer, ranks: bytes, model_folder: Folder
) -> None:
    """Two libraries, one definition: ranks are merges."""
    ours = load_tokenizer(model_folder({"tokenizer.model": ranks, "config.json": {"model_type": "llama"}}))
    other = Tokenizer.from_str(byte_level_library.to_str())
    other.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    for text in TEXTS:
        if "<" not in text:
            pieces = [other.id_to_token(token) for token in other.encode(text).ids]
            expected = [decoders.ByteLevel().decode([piece]) for piece in pieces]
            assert [ours.decode([token]) for token in ours.encode(text)] == expected


def test_qwen_composes_characters(ranks: bytes, model_folder: Folder) -> None:
    ours = load_tokenizer(model_folder({"qwen.tiktoken": ranks}))
    assert ours.encode("e\u0301") == ours.encode("é")


def test_llama3_specials(ranks: bytes, model_folder: Folder) -> None:
    ours = load_tokenizer(model_folder({"tokenizer.model": ranks, "config.json": {"model_type": "llama"}}))
    base = len(ranks.splitlines())
    assert ours.bos_id == base and ours.eos_ids == {base + 1}
    assert ours.vocab_size == base + 256
    assert ours.encode("<|begin_of_text|>a<|eot_id|>", parse_special=True)[::2] == [base, base + 9]
    assert ours.encode("a", add_special_tokens=True)[0] == base
    text = "<|eot_id|>"
    assert ours.decode(ours.encode(text, parse_special=False)) == text
    assert not set(ours.encode(text, parse_special=False)) & ours.special_ids
    assert ours.token_bytes(base + 9) == b"<|eot_id|>" and ours.token_bytes(base + 256) == b""


def test_kimi_names_some_of_its_reserved_tokens(ranks: bytes, model_folder: Folder) -> None:
    base = len(ranks.splitlines())
    added = {
        str(base): {"content": "[BOS]", "special": True},
        str(base + 1): {"content": "[EOS]", "special": True},
        str(base + 5): {"content": "<|im_end|>", "special": True},
    }
    config = {"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": added, "bos_token": "[BOS]"}
    ours = load_tokenizer(model_folder({"tiktoken.model": ranks, "tokenizer_config.json": config}))
    assert ours.vocab_size == base + 258
    assert ours.encode("<|im_end|>") == [base + 5]
    assert (ours.bos_id, ours.eos_ids) == (base, {base + 1})
    assert ours.decode([base + 7]) == f"<|reserved_token_{base + 7}|>"


def test_an_unknown_family_is_refused_with_a_remedy(ranks: bytes, model_folder: Folder) -> None:
    with pytest.raises(TokenizerError, match=r'own\.tiktoken: .*llama3, qwen, kimi.*add it as "pat_str"'):
        load_tokenizer(model_folder({"own.tiktoken": ranks}))


def test_a_bad_line_is_named(ranks: bytes, model_folder: Folder) -> None:
    with pytest.raises(TokenizerError, match=r"qwen\.tiktoken:3: not a base64 token"):
        load_tokenizer(model_folder({"qwen.tiktoken": b"AA== 0\nAQ== 1\nA*== x\n"}))
