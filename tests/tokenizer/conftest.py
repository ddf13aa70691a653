"""Fixtures: the tiny tokenizers, each trained once, and the folders that models would ship them in."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_tokenizers import (
    tiktoken_ranks,
    train_byte_level,
    train_llama_like,
    train_sentencepiece,
    train_unigram,
)
from tokenizers import Tokenizer


@pytest.fixture(scope="session")
def byte_level_library() -> Tokenizer:
    return train_byte_level()


@pytest.fixture(scope="session")
def llama_like_library() -> Tokenizer:
    return train_llama_like()


@pytest.fixture(scope="session")
def unigram_library() -> Tokenizer:
    return train_unigram()


@pytest.fixture(scope="session")
def llama_spm(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("llama_spm")
    return train_sentencepiece(folder / "m", control_symbols=["[INST]", "[/INST]"])


@pytest.fixture(scope="session")
def gemma_spm(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Without a space in front, with control tokens for turns and user-defined pieces of spaces and newlines."""
    folder = tmp_path_factory.mktemp("gemma_spm")
    return train_sentencepiece(
        folder / "m",
        add_dummy_prefix=False,
        bos_piece="<bos>",
        eos_piece="<eos>",
        control_symbols=["<start_of_turn>", "<end_of_turn>"],
        user_defined_symbols=["\n", "\n\n", "▁▁", "▁▁▁▁"],
    )


@pytest.fixture(scope="session")
def ranks(byte_level_library: Tokenizer) -> bytes:
    return tiktoken_ranks(byte_level_library)


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model folder: file name -> text, bytes, or an object written as JSON."""

    def write(files: Mapping[str, Any]) -> Path:
        folder = tmp_path / "model"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(
                    content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
                )
        return folder

    return write
