"""Streaming: what comes out token by token is what decoding gives at once, for every backend."""

import json
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import (
    gguf_of_sentencepiece,
    tiktoken_ranks,
    train_byte_level,
    train_llama_like,
    train_sentencepiece,
    train_unigram,
)
from token_corpus import TEXTS

from macllm.tokenizer.base import Tokenizer
from macllm.tokenizer.gguf import from_gguf_metadata
from macllm.tokenizer.load import load_tokenizer
from macllm.tokenizer.pieces import TextStart
from macllm.tokenizer.stream import Detokenizer

BACKENDS = [
    "byte level",
    "llama-like",
    "unigram",
    "sentencepiece",
    "sentencepiece without prefix",
    "gguf",
    "tiktoken",
]


@cache
def backend(name: str) -> Tokenizer:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        libraries = {"byte level": train_byte_level, "llama-like": train_llama_like, "unigram": train_unigram}
        if name in libraries:
            (folder / "tokenizer.json").write_text(libraries[name]().to_str())
        elif name == "tiktoken":
            (folder / "tokenizer.model").write_bytes(tiktoken_ranks(train_byte_level()))
            (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        else:
            model = train_sentencepiece(folder / "tokenizer", add_dummy_prefix="without" not in name)
            if name == "gguf":
                return from_gguf_metadata(gguf_of_sentencepiece(model, add_prefix=True))
        return load_tokenizer(folder)


def streamed(tokenizer: Tokenizer, ids: list[int], *, show_special: bool = False) -> list[str]:
    stream = tokenizer.stream(show_special=show_special)
    return [*(stream.add(token) for token in ids), stream.finish()]


@pytest.mark.parametrize("name", BACKENDS)
@given(ids=st.lists(st.integers(-1, 740), max_size=25))
def test_the_stream_of_any_ids_is_their_text(name: str, ids: list[int]) -> None:
    tokenizer = backend(name)
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(streamed(tokenizer, ids, show_special=True)) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_stream_of_a_text_is_whole_characters(name: str) -> None:
    tokenizer = backend(name)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        pieces = streamed(tokenizer, ids)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)
        assert "�" not in "".join(pieces)
        assert pieces[-1] == ""  # nothing waits behind a complete text


def test_a_character_waits_for_its_last_byte() -> None:
    tokenizer = backend("sentencepiece without prefix")
    ids = [tokenizer.token_to_id(f"<0x{byte:02X}>") or 0 for byte in "🦙".encode()]
    assert streamed(tokenizer, ids) == ["", "", "", "🦙", ""]
    assert streamed(tokenizer, ids[:3]) == ["", "", "", "�"]  # the last one is not lost
    assert "".join(streamed(tokenizer, [*ids[:2], *ids])) == "�🦙"


def test_special_tokens_show_only_when_asked() -> None:
    tokenizer = backend("byte level")
    ids = [1, *tokenizer.encode("hi"), 2]
    assert "".join(streamed(tokenizer, ids)) == "hi"
    assert "".join(streamed(tokenizer, ids, show_special=True)) == "<|im_start|>hi<|im_end|>"


def test_a_special_token_inside_a_character_does_not_break_it() -> None:
    tokenizer = backend("byte level")
    first, *rest = tokenizer.encode("🦙")
    assert "".join(streamed(tokenizer, [first, 0, *rest])) == "🦙"


def test_a_stream_starts_anew_after_finish() -> None:
    tokenizer = backend("sentencepiece")
    ids = tokenizer.encode("Hello")
    stream = tokenizer.stream()
    for _ in range(2):
        assert "".join([*map(stream.add, ids), stream.finish()]) == "Hello"


@pytest.mark.parametrize(
    ("rule", "tokens", "text"),
    [
        (TextStart.KEEP, [b" ", b" a"], "  a"),
        (TextStart.DROP_SPACE, [b" ", b" a"], " a"),
        (TextStart.DROP_SPACE, [b"", b" a"], "a"),
        (TextStart.DROP_SPACE, [b"a", b" b"], "a b"),
        (TextStart.DROP_SPACES, [b" ", b" a", b" b"], "a b"),
        (TextStart.DROP_MARKS, [b"  ", b" a"], " a"),
    ],
)
def test_how_a_text_starts(rule: TextStart, tokens: list[bytes], text: str) -> None:
    class Table:
        special_ids: frozenset[int] = frozenset()

        def token_bytes(self, token: int) -> bytes:
            return tokens[token]

        def opening_bytes(self, token: int) -> tuple[bytes, bool]:
            return rule.trim(tokens[token])

    stream = Detokenizer(Table())
    assert "".join(stream.add(token) for token in range(len(tokens))) + stream.finish() == text


def test_time_a_token_does_not_grow_with_the_text() -> None:
    tokenizer = backend("byte level")
    ids = tokenizer.encode("The quick brown fox jumps. " * 400)
    stream = tokenizer.stream()

    def seconds() -> float:
        start = time.process_time()
        for token in ids:
            stream.add(token)
        return time.process_time() - start

    seconds()
    early = min(seconds() for _ in range(5))
    for _ in range(40):
        seconds()
    late = min(seconds() for _ in range(5))
    assert late < 4 * early + 0.01
