"""A tokenizer's fingerprint: the same for the same files, another for whatever changes the ids of a conversation."""

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from macllm.tokenizer import load_tokenizer


def test_it_follows_what_is_encoded(
    model_folder: Callable[..., Path], byte_level_library: Tokenizer, llama_spm: bytes, ranks: bytes
) -> None:
    files = {
        "json": {"tokenizer.json": byte_level_library.to_str()},
        "spm": {"tokenizer.model": llama_spm},
        "tiktoken": {"qwen.tiktoken": ranks},
    }
    configs = [
        {"legacy": True, "chat_template": "a", "add_bos_token": True},
        {"legacy": False, "chat_template": "a", "add_bos_token": True},
        {"legacy": True, "chat_template": "b", "add_bos_token": True},
        {"legacy": True, "chat_template": "a", "add_bos_token": False},
        {"legacy": True, "chat_template": "a", "add_bos_token": True, "eos_token": "<s>"},
    ]
    for kind, more in files.items():
        prints = []
        for config in (*configs, configs[0]):
            folder = model_folder({**more, "tokenizer_config.json": config})
            prints.append(load_tokenizer(folder).fingerprint)
            for file in folder.iterdir():
                file.unlink()
        assert prints[0] == prints[-1] and len(prints[0]) == 64
        assert prints[0] != prints[2]  # the template
        if kind == "spm":
            assert len(set(prints)) == 5


def test_it_follows_the_vocabulary(model_folder: Callable[..., Path], byte_level_library: Tokenizer) -> None:
    one = load_tokenizer(model_folder({"tokenizer.json": byte_level_library.to_str()})).fingerprint
    changed = Tokenizer.from_str(byte_level_library.to_str())
    changed.add_tokens(["<another>"])
    assert load_tokenizer(model_folder({"tokenizer.json": changed.to_str()})).fingerprint != one
