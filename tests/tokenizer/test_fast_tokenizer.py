"""tokenizer.json and vocab.json + merges.txt: equal to the tokenizers library and to transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_corpus import TEXTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from macllm.errors import TokenizerError
from macllm.tokenizer.base import Profile
from macllm.tokenizer.fast import FastTokenizer
from macllm.tokenizer.load import load_tokenizer

Folder = Callable[..., Path]
LIBRARIES = ["byte_level_library", "llama_like_library", "unigram_library"]


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("add_special", [False, True])
def test_ids_and_text_are_the_librarys(
    name: str, add_special: bool, model_folder: Folder, request: pytest.FixtureRequest
) -> None:
    library: Tokenizer = request.getfixturevalue(name)
    ours = load_tokenizer(model_folder({"tokenizer.json": library.to_str()}))
    for text in TEXTS:
        ids = library.encode(text, add_special_tokens=add_special).ids
        assert ours.encode(text, add_special_tokens=add_special) == ids
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == library.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize(
    "config", [{}, {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False}]
)
@pytest.mark.parametrize("name", ["byte_level_library", "llama_like_library"])
def test_transformers_agrees(
    name: str, config: dict[str, Any], model_folder: Folder, request: pytest.FixtureRequest
) -> None:
    from transformers import AutoTokenizer

    library: Tokenizer = request.getfixturevalue(name)
    bos, eos = ("<s>", "</s>") if name == "llama_like_library" else ("<|im_start|>", "<|im_end|>")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos, **config}
    folder = model_folder({"tokenizer.json": library.to_str(), "tokenizer_config.json": config})
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        for add in (False, True):
            ids = theirs.encode(text, add_special_tokens=add)
            assert ours.encode(text, add_special_tokens=add) == ids
            assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
    assert (ours.bos_id, theirs.eos_token_id in ours.eos_ids) == (theirs.bos_token_id, True)


def test_special_tokens_are_text_when_not_parsed(byte_level_library: Tokenizer) -> None:
    ours = FastTokenizer(byte_level_library, Profile(special_ids=frozenset({0, 1, 2})))
    text = "x<|im_end|><tool>"
    end, tool = 2, byte_level_library.token_to_id("<tool>")
    assert end in ours.encode(text) and tool in ours.encode(text)
    ids = ours.encode(text, parse_special=False)
    assert end not in ids
    assert ids[-1] == tool  # not a control token: it is read from text always
    assert ours.decode(ids) == text
    assert ours.encode(text)[-2:] == [end, tool]  # the choice is per call


def test_truncation_and_padding_in_the_file_are_ignored(
    byte_level_library: Tokenizer, model_folder: Folder
) -> None:
    copy = Tokenizer.from_str(byte_level_library.to_str())
    copy.enable_truncation(4)
    copy.enable_padding(length=64)
    ours = load_tokenizer(model_folder({"tokenizer.json": copy.to_str()}))
    text = "The quick brown fox jumps over the lazy dog"
    assert ours.encode(text) == byte_level_library.encode(text).ids


@given(st.lists(st.integers(0, 720), max_size=30))
def test_any_ids_decode_as_the_library_does(ids: list[int]) -> None:
    library = _shared_byte_level()
    ours = FastTokenizer(library, Profile(special_ids=frozenset({0, 1, 2})))
    known = [token for token in ids if library.id_to_token(token) is not None]
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == library.decode(known, skip_special_tokens=skip)


_KEPT: list[Tokenizer] = []


def _shared_byte_level() -> Tokenizer:
    from tiny_tokenizers import train_byte_level

    if not _KEPT:
        _KEPT.append(train_byte_level())
    return _KEPT[0]


def test_token_bytes_join_to_the_text(byte_level_library: Tokenizer) -> None:
    ours = FastTokenizer(byte_level_library, Profile())
    for text in TEXTS:
        assert b"".join(map(ours.token_bytes, ours.encode(text))) == text.encode()
    assert ours.token_bytes(ours.vocab_size) == ours.token_bytes(-1) == b""
    assert ours.token_text(ours.encode("é")[0]).startswith(("é", "bytes:\\xc3"))
    first = ours.encode("🦙")[0]
    assert ours.token_text(first) == "bytes:" + "".join(f"\\x{b:02x}" for b in ours.token_bytes(first))


def test_lone_surrogates_are_replaced_and_pairs_joined(byte_level_library: Tokenizer) -> None:
    ours = FastTokenizer(byte_level_library, Profile())
    assert ours.decode(ours.encode("a\ud800b \ud83e\udd99")) == "a�b 🦙"


def test_vocab_and_merges_files(byte_level_library: Tokenizer, model_folder: Folder) -> None:
    state = json.loads(byte_level_library.to_str())["model"]
    merges = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in state["merges"]) + "\n"
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    files = {"vocab.json": state["vocab"], "merges.txt": merges, "tokenizer_config.json": config}
    ours = load_tokenizer(model_folder(files))
    gpt2 = Tokenizer.from_str(byte_level_library.to_str())
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in TEXTS:
        if "<|im" not in text and "<tool>" not in text:
            assert ours.encode(text) == gpt2.encode(text).ids
    assert ours.eos_ids == {0} and ours.encode("<|endoftext|>") == [0]
    assert ours.encode("", add_special_tokens=True) == []


def test_bos_and_eos_flags_beside_vocab_and_merges(
    byte_level_library: Tokenizer, model_folder: Folder
) -> None:
    state = json.loads(byte_level_library.to_str())["model"]
    merges = "\n".join(" ".join(pair) for pair in state["merges"])
    config = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "add_bos_token": True,
        "add_eos_token": True,
    }
    files = {"vocab.json": state["vocab"], "merges.txt": merges, "tokenizer_config.json": config}
    ours = load_tokenizer(model_folder(files))
    assert ours.encode("a", add_special_tokens=True) == [1, *ours.encode("a"), 2]


@pytest.mark.parametrize(
    "decoder",
    [decoders.WordPiece(), decoders.CTC(), decoders.Sequence([decoders.Fuse(), decoders.Replace("a", "b")])],
)
def test_a_decoder_that_no_table_can_hold_is_refused_by_name(decoder: Any) -> None:
    library = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    library.decoder = decoder
    with pytest.raises(TokenizerError, match=r"decoder step .* is not supported \(expected ByteLevel"):
        FastTokenizer(library, Profile())


def test_without_a_decoder_tokens_are_joined_by_spaces() -> None:
    library = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    ours = FastTokenizer(library, Profile())
    assert ours.decode([0, 1, 1]) == library.decode([0, 1, 1]) == "a b b"
