"""Which file of a folder is read, what its configuration files add, and what is said when it cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from macllm.errors import TokenizerError
from macllm.tokenizer.fast import FastTokenizer
from macllm.tokenizer.load import load_tokenizer
from macllm.tokenizer.spm import SpmTokenizer
from macllm.tokenizer.tiktoken_file import TiktokenTokenizer

Folder = Callable[..., Path]


def test_which_file_is_read(
    byte_level_library: Tokenizer, llama_spm: bytes, ranks: bytes, model_folder: Folder
) -> None:
    folder = model_folder(
        {
            "tokenizer.json": byte_level_library.to_str(),
            "tokenizer.model": llama_spm,
            "qwen.tiktoken": ranks,
            "vocab.json": {"a": 0},
            "merges.txt": "#version: 0.2\n",
        }
    )
    for name, kind in [
        ("tokenizer.json", FastTokenizer),
        ("tokenizer.model", SpmTokenizer),
        ("qwen.tiktoken", TiktokenTokenizer),
        ("vocab.json", FastTokenizer),
    ]:
        assert type(load_tokenizer(folder)) is kind
        (folder / name).unlink()
    with pytest.raises(TokenizerError, match=r"no tokenizer found \(expected tokenizer\.json"):
        load_tokenizer(folder)


def test_tokenizer_model_is_told_by_its_content(ranks: bytes, model_folder: Folder) -> None:
    files = {"tokenizer.model": ranks, "config.json": {"model_type": "llama"}}
    assert isinstance(load_tokenizer(model_folder(files)), TiktokenTokenizer)


@pytest.mark.parametrize(
    ("files", "eos"),
    [
        ({}, set()),
        ({"config.json": {"eos_token_id": 0}}, {0}),
        ({"config.json": {"text_config": {"eos_token_id": [0, 5]}}}, {0, 5}),
        ({"generation_config.json": {"eos_token_id": [2, 0]}}, {0, 2}),
        ({"tokenizer_config.json": {"eos_token": {"content": "<|im_end|>"}}}, {2}),
        ({"special_tokens_map.json": {"eos_token": "<|im_end|>"}}, {2}),
        (
            {
                "config.json": {"eos_token_id": 0},
                "generation_config.json": {"eos_token_id": 7},
                "tokenizer_config.json": {"eos_token": "<|im_end|>"},
            },
            {0, 2, 7},
        ),
        (
            {
                "tokenizer_config.json": {"eos_token": None},
                "special_tokens_map.json": {"eos_token": "<|im_end|>"},
            },
            set(),
        ),
    ],
)
def test_end_tokens_are_the_union_of_what_the_files_name(
    files: dict[str, Any], eos: set[int], byte_level_library: Tokenizer, model_folder: Folder
) -> None:
    ours = load_tokenizer(model_folder({"tokenizer.json": byte_level_library.to_str(), **files}))
    assert ours.eos_ids == eos


def test_added_tokens_of_the_configuration(byte_level_library: Tokenizer, model_folder: Folder) -> None:
    new = byte_level_library.get_vocab_size()
    decoder = {
        "0": {"content": "<|endoftext|>", "special": True},
        str(new): {"content": "<|new|>", "special": True},
    }
    config = {"added_tokens_decoder": decoder, "additional_special_tokens": ["<tool>"]}
    ours = load_tokenizer(
        model_folder({"tokenizer.json": byte_level_library.to_str(), "tokenizer_config.json": config})
    )
    assert ours.encode("a<|new|>")[-1] == new and ours.vocab_size == new + 1
    assert {new, new - 1} <= ours.special_ids  # <tool> is special by the list
    assert ours.token_bytes(new) == b"<|new|>"


def test_an_added_token_with_another_id_is_refused(
    byte_level_library: Tokenizer, model_folder: Folder
) -> None:
    config = {"added_tokens_decoder": {"9999": {"content": "<|new|>"}}}
    folder = model_folder({"tokenizer.json": byte_level_library.to_str(), "tokenizer_config.json": config})
    with pytest.raises(
        TokenizerError, match=r"added token '<\|new\|>' has id 9999 there and \d+ in the vocabulary"
    ):
        load_tokenizer(folder)


NAMED = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]


@pytest.mark.parametrize(
    ("files", "plain", "with_tools"),
    [
        ({"tokenizer_config.json": {"chat_template": "C"}}, "C", "C"),
        ({"tokenizer_config.json": {"chat_template": NAMED}}, "D", "T"),
        ({"chat_template.json": {"chat_template": "J"}}, "J", "J"),
        ({"tokenizer_config.json": {"chat_template": NAMED}, "chat_template.jinja": "F"}, "F", "T"),
        ({"chat_template.jinja": "F", "additional_chat_templates/tool_use.jinja": "A"}, "F", "A"),
    ],
)
def test_where_the_template_comes_from(
    files: dict[str, Any], plain: str, with_tools: str, byte_level_library: Tokenizer, model_folder: Folder
) -> None:
    ours = load_tokenizer(model_folder({"tokenizer.json": byte_level_library.to_str(), **files}))
    assert ours.chat_template == plain and ours.template_origin == "model"
    assert ours.render("x") == plain
    assert ours.render("x", tools=[{"name": "f"}]) == with_tools


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tokenizer.json": "{"}, r"tokenizer\.json: not a tokenizer\.json .*download"),
    ({"tokenizer.json": '{"a": 1}'}, r"tokenizer\.json: not a tokenizer\.json"),
    ({"tokenizer.model": b"\x0a\x05abc", "config.json": {}}, r"tokenizer\.model: "),
    ({"vocab.json": "[", "merges.txt": ""}, r"vocab\.json: not a JSON vocabulary"),
    ({"vocab.json": [1], "merges.txt": ""}, r"vocab\.json: not an object of tokens and ids"),
    ({"vocab.json": {"a": 0}, "merges.txt": "x y"}, r"merges\.txt: merges do not fit the vocabulary"),
    ({"tokenizer_config.json": "nonsense"}, r"tokenizer_config\.json: not JSON .*download"),
    ({"tokenizer_config.json": b"\xff\xfe"}, r"tokenizer_config\.json: not UTF-8"),
    ({"generation_config.json": "[]"}, r"generation_config\.json: list is not a JSON object"),
    ({"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": "a"}}}}, r"'x' is not a token id"),
    (
        {"tokenizer_config.json": {"added_tokens_decoder": {"1": "a"}}},
        r"added_tokens_decoder\['1'\] has no content",
    ),
    ({"tokenizer_config.json": {"chat_template": 3}}, r"chat_template is int \(expected text or a list\)"),
    ({"tokenizer_config.json": {"chat_template": ["x"]}}, r"an entry without name and template"),
]


@pytest.mark.parametrize(("files", "message"), BAD)
def test_a_damaged_file_is_named_in_one_sentence(
    files: dict[str, Any], message: str, byte_level_library: Tokenizer, model_folder: Folder
) -> None:
    if not {"tokenizer.json", "tokenizer.model", "vocab.json"} & files.keys():
        files = {"tokenizer.json": byte_level_library.to_str(), **files}
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(model_folder(files))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="nowhere: not a folder"):
        load_tokenizer(tmp_path / "nowhere")
