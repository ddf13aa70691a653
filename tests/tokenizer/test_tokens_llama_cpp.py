"""Tokenizers of GGUF files against llama.cpp itself: every pre-tokenizer, SentencePiece models, the starter."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import llama_cpp_peer as peer
import numpy as np
import pytest
from tiny_tokenizers import (
    gguf_of_byte_level,
    gguf_of_gemma_like,
    gguf_of_sentencepiece,
    train_gemma_like,
)
from token_corpus import TEXTS
from tokenizers import Tokenizer

from macllm.tokenizer.gguf import from_gguf_metadata
from macllm.tokenizer.pretokenizers import PRE_TOKENIZERS
from macllm.weights.gguf_file import GGUFFile

pytestmark = pytest.mark.slow

# The originals compose characters, llama.cpp does not: its ids are those of a text that is composed already.
COMPOSED = [unicodedata.normalize("NFC", text) for text in TEXTS]


@pytest.fixture(autouse=True)
def llama_cpp() -> None:
    peer.require_llama_cpp()


def write_vocabulary(path: Path, metadata: Mapping[str, Any]) -> Path:
    """A file with a tokenizer and nothing else."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        kind = gguf.GGUFValueType.get_type(value)
        writer.add_key_value(key, value, gguf.GGUFValueType.UINT32 if type(value) is int else kind)
    writer.add_tensor("token_embd.weight", np.zeros((len(metadata["tokenizer.ggml.tokens"]), 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def assert_same_tokens(files: Mapping[Path, Mapping[str, Any]], texts: list[str]) -> None:
    """Both read every text the same with each file's tokenizer, special tokens parsed and not."""
    for special in (False, True):
        for (path, metadata), rows in zip(
            files.items(), peer.tokens(list(files), texts, special=special), strict=True
        ):
            ours = from_gguf_metadata(metadata)
            for text, expected in zip(texts, rows, strict=True):
                assert ours.encode(text, parse_special=special) == expected, (path.stem, special, text)


def test_every_pre_tokenizer(byte_level_library: Tokenizer, tmp_path: Path) -> None:
    made = {name: gguf_of_byte_level(byte_level_library, pre=name) for name in PRE_TOKENIZERS}
    files = {write_vocabulary(tmp_path / f"{name}.gguf", keys): keys for name, keys in made.items()}
    assert_same_tokens(files, COMPOSED)


def test_marked_bpe(tmp_path: Path) -> None:
    keys = gguf_of_gemma_like(train_gemma_like())
    texts = [text for text in TEXTS if "▁" not in text]
    assert_same_tokens({write_vocabulary(tmp_path / "gemma4.gguf", keys): keys}, texts)


def test_sentencepiece(llama_spm: bytes, gemma_spm: bytes, tmp_path: Path) -> None:
    made = {
        "llama": gguf_of_sentencepiece(llama_spm, add_prefix=True),
        "gemma": gguf_of_sentencepiece(gemma_spm, add_prefix=False),
    }
    files = {write_vocabulary(tmp_path / f"{name}.gguf", keys): keys for name, keys in made.items()}
    # the marks of spaces written out: the original finds pieces in them where llama.cpp does not
    assert_same_tokens(files, [text for text in TEXTS if "▁" not in text])


@pytest.mark.starter
def test_starter(starter_gguf: Path) -> None:
    assert_same_tokens({starter_gguf: GGUFFile.open(starter_gguf).metadata}, TEXTS)
