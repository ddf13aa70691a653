"""SentencePiece .model files: equal to the sentencepiece library, and to transformers where it reads them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st
from token_corpus import TEXTS

from macllm.errors import TokenizerError
from macllm.tokenizer.gguf import from_gguf_metadata
from macllm.tokenizer.load import load_tokenizer
from macllm.tokenizer.spm import SpmTokenizer

Folder = Callable[..., Path]


def reference(model: bytes) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    return processor


@pytest.mark.parametrize("name", ["llama_spm", "gemma_spm"])
def test_ids_and_text_are_the_librarys(
    name: str, model_folder: Folder, request: pytest.FixtureRequest
) -> None:
    model: bytes = request.getfixturevalue(name)
    library, ours = reference(model), load_tokenizer(model_folder({"tokenizer.model": model}))
    assert (ours.bos_id, ours.eos_ids) == (library.bos_id(), {library.eos_id()})
    assert ours.vocab_size == library.get_piece_size()
    for text in TEXTS:
        ids = library.encode(text)
        assert ours.encode(text, parse_special=False) == ids
        assert ours.encode(text, parse_special=False, add_special_tokens=True) == [library.bos_id(), *ids]
        assert ours.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("name", ["llama_spm", "gemma_spm"])
def test_a_text_is_its_ids_and_back(name: str, model_folder: Folder, request: pytest.FixtureRequest) -> None:
    ours = load_tokenizer(model_folder({"tokenizer.model": request.getfixturevalue(name)}))
    for text in TEXTS:
        if "▁" not in text:  # a literal mark is a space to SentencePiece
            assert ours.decode(ours.encode(text, parse_special=False)) == text


def test_transformers_agrees(llama_spm: bytes, model_folder: Folder) -> None:
    from transformers import AutoTokenizer

    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, **names}
    files = {
        "tokenizer.model": llama_spm,
        "tokenizer_config.json": config,
        "config.json": {"model_type": "llama"},
    }
    folder = model_folder(files)
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for text in [*TEXTS, "<s>Hello</s>x", "<s> Hello</s> x"]:
        if not text.startswith(" "):  # its conversion leaves out the space that the model puts before these
            assert ours.encode(text, add_special_tokens=True) == theirs.encode(text)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_run_of_text_after_a_special_token(legacy: bool, llama_spm: bytes, model_folder: Folder) -> None:
    config = {"legacy": legacy}
    ours = load_tokenizer(model_folder({"tokenizer.model": llama_spm, "tokenizer_config.json": config}))
    library = reference(llama_spm)
    # with the old behaviour every run of text gets a space in front, with the new one only the first
    hello = library.encode("Hello") if legacy else library.encode("\nHello")[len(library.encode("\n")) :]
    assert ours.encode("<s>[INST]Hello") == [library.bos_id(), library.piece_to_id("[INST]"), *hello]


def test_special_tokens_are_text_when_not_parsed(llama_spm: bytes, model_folder: Folder) -> None:
    added = {"700": {"content": "<think>", "special": False}, "701": {"content": "<|im_end|>"}}
    config = {"added_tokens_decoder": added, "eos_token": "<|im_end|>", "legacy": False}
    ours = load_tokenizer(model_folder({"tokenizer.model": llama_spm, "tokenizer_config.json": config}))
    assert ours.vocab_size == 702 and ours.special_ids >= {701} and ours.eos_ids == {701}
    text = "a</s><think><|im_end|>"
    assert ours.encode(text)[-3:] == [2, 700, 701]
    ids = ours.encode(text, parse_special=False)
    assert 700 in ids and not ours.special_ids & set(ids)  # an ordinary added token is always read
    assert ours.decode(ids) == text
    assert ours.decode([701, 700], skip_special_tokens=True) == "<think>"


def test_the_longest_added_token_wins(llama_spm: bytes, model_folder: Folder) -> None:
    files = {"tokenizer.model": llama_spm, "added_tokens.json": {"<a": 700, "<a>": 701, "<a>b": 702}}
    ours = load_tokenizer(model_folder(files))
    assert [token for token in ours.encode("<a><a>b<a<") if token >= 700] == [701, 702, 700]


@given(st.lists(st.integers(0, 720), max_size=20))
@example([35])  # the byte 0x20: only a mark at the start of a text is dropped
def test_any_ids_decode_as_the_library_does(ids: list[int]) -> None:
    model, ours = _shared()
    library = reference(model)
    # the library shows an unknown piece as " ⁇ " and control pieces as nothing
    visible = [token for token in ids if token < 700 and token not in ours.special_ids]
    text = ours.decode(ids, skip_special_tokens=True)
    # of a broken character it shows one U+FFFD a byte, as no other decoder does
    assert re.sub("�+", "�", text) == re.sub("�+", "�", library.decode(visible))


_KEPT: list[tuple[bytes, SpmTokenizer]] = []


def _shared() -> tuple[bytes, Any]:
    import tempfile

    from tiny_tokenizers import gguf_of_sentencepiece, train_sentencepiece

    if not _KEPT:
        with tempfile.TemporaryDirectory() as folder:
            model = train_sentencepiece(Path(folder) / "m")
        tokenizer = from_gguf_metadata(gguf_of_sentencepiece(model, add_prefix=True))
        assert isinstance(tokenizer, SpmTokenizer)
        _KEPT.append((model, tokenizer))
    return _KEPT[0]


@given(st.text(st.sampled_from("abcdefgh the.,éß日🦙\n\t ▁0123"), max_size=60))
def test_a_model_rebuilt_from_gguf_merges_like_the_original(text: str) -> None:
    model, ours = _shared()
    assert ours.encode(text) == reference(model).encode(text)


def test_a_damaged_model_is_named(llama_spm: bytes, model_folder: Folder) -> None:
    folder = model_folder({"tokenizer.model": llama_spm[: len(llama_spm) // 2]})
    with pytest.raises(TokenizerError, match=r"tokenizer\.model: .*download"):
        load_tokenizer(folder)
    (folder / "tokenizer.model").write_bytes(b"<html>not found</html>")
    with pytest.raises(TokenizerError, match="neither a SentencePiece model nor a tiktoken file"):
        load_tokenizer(folder)
