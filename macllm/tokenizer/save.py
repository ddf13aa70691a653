"""Writes a tokenizer as the files of a model folder, for what came without them: the tokenizer inside a GGUF."""

import json
from pathlib import Path
from typing import Any

from macllm.errors import TokenizerError
from macllm.tokenizer.base import Tokenizer
from macllm.tokenizer.fast import FastTokenizer
from macllm.tokenizer.pieces import TextStart
from macllm.tokenizer.spm import SpmTokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> list[str]:
    """Writes tokenizer.json or tokenizer.model, and tokenizer_config.json with the chat template.

    Returns the names of the files. Raises TokenizerError for a kind that has no such files.
    """
    if isinstance(tokenizer, FastTokenizer):
        name, config = "tokenizer.json", _fast(tokenizer, folder / "tokenizer.json")
    elif isinstance(tokenizer, SpmTokenizer):
        name, config = "tokenizer.model", _sentencepiece(tokenizer, folder / "tokenizer.model")
    else:
        raise TokenizerError(
            f"a {type(tokenizer).__name__} has no files to be written as; copy the original's"
        )
    config |= tokenizer.profile.special_tokens
    config["clean_up_tokenization_spaces"] = False
    templates = tokenizer.profile.templates
    if set(templates) == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [{"name": key, "template": text} for key, text in templates.items()]
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return [name, "tokenizer_config.json"]


def _fast(tokenizer: FastTokenizer, file: Path) -> dict[str, Any]:
    file.write_text(tokenizer.to_json(), encoding="utf-8")
    return {"tokenizer_class": "PreTrainedTokenizerFast"}


def _sentencepiece(tokenizer: SpmTokenizer, file: Path) -> dict[str, Any]:
    file.write_bytes(tokenizer.processor.serialized_model_proto())
    names = {token: text for text, token in tokenizer.added.items()}
    return {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": bool(tokenizer.before),
        "add_eos_token": bool(tokenizer.after),
        "legacy": tokenizer.prefix_after_special,
        "add_prefix_space": tokenizer.text_start is not TextStart.KEEP,
        "added_tokens_decoder": {
            str(token): {"content": text, "special": token in tokenizer.special_ids}
            for token, text in sorted(names.items())
        },
    }
