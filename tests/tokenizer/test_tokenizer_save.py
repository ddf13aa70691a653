"""A tokenizer written as files is the same tokenizer when it is read again."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library

from macllm.errors import TokenizerError
from macllm.tokenizer import load_tokenizer
from macllm.tokenizer.base import Profile, Tokenizer
from macllm.tokenizer.fast import FastTokenizer
from macllm.tokenizer.save import save_tokenizer
from macllm.tokenizer.spm import SpmTokenizer, control_pieces, open_model

TEXTS = ["Hello, world", " leading  and\n\n trailing ", "日本語 🎉 عربى 1234", "<bos>x<eos>", ""]


def assert_same(written: Tokenizer, original: Tokenizer) -> None:
    for text in TEXTS:
        for special in (True, False):
            ids = original.encode(text, add_special_tokens=special, parse_special=special)
            assert written.encode(text, add_special_tokens=special, parse_special=special) == ids
            assert written.decode(ids) == original.decode(ids)
    assert written.bos_id == original.bos_id
    assert written.profile.templates == original.profile.templates
    assert written.profile.special_tokens == original.profile.special_tokens
    assert written.special_ids == original.special_ids


@pytest.mark.parametrize(
    "templates", [{}, {"default": "{{ 1 }}"}, {"default": "{{ 1 }}", "tool_use": "{{ 2 }}"}]
)
def test_byte_level(byte_level_library: Library, templates: dict[str, str], tmp_path: Path) -> None:
    special = frozenset(t for t, a in byte_level_library.get_added_tokens_decoder().items() if a.special)
    copy = Library.from_str(byte_level_library.to_str())
    original = FastTokenizer(copy, Profile(special_ids=special, templates=templates))
    original.encode("x", parse_special=False)  # a setting of the library's object that must not be written
    assert save_tokenizer(original, tmp_path) == ["tokenizer.json", "tokenizer_config.json"]
    assert_same(load_tokenizer(tmp_path), original)


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("bos", [True, False])
def test_sentencepiece(llama_spm: bytes, gemma_spm: bytes, prefix: bool, bos: bool, tmp_path: Path) -> None:
    processor = open_model(llama_spm if prefix else gemma_spm)
    control = control_pieces(processor)
    named = {
        "bos_token": processor.bos_id(),
        "eos_token": processor.eos_id(),
        "unk_token": processor.unk_id(),
    }
    profile = Profile(
        bos_id=processor.bos_id(),
        eos_ids=frozenset({processor.eos_id()}),
        special_ids=frozenset(control.values()),
        special_tokens={name: processor.id_to_piece(token) for name, token in named.items()},
    )
    original = SpmTokenizer(
        processor,
        profile,
        added=control,
        before=[processor.bos_id()] if bos else [],
        after=[],
        prefix_after_special=prefix,
    )
    assert save_tokenizer(original, tmp_path) == ["tokenizer.model", "tokenizer_config.json"]
    written = load_tokenizer(tmp_path)
    assert_same(written, original)
    assert written.eos_ids == original.eos_ids


def test_a_kind_without_files_is_refused(tmp_path: Path) -> None:
    class Other(Tokenizer):
        vocab_size = 0

        def __init__(self) -> None: ...
        def token_to_id(self, text: str) -> None: ...
        def _encode(self, text: str, *, add_special_tokens: bool, parse_special: bool) -> list[int]:
            return []

        def _piece(self, token: int) -> bytes:
            return b""

    with pytest.raises(TokenizerError, match="Other"):
        save_tokenizer(Other(), tmp_path)
