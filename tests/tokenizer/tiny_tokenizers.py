"""Tiny tokenizers of every kind, trained here, and their GGUF metadata as a converter writes it."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import sentencepiece
from token_corpus import TRAINING
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from macllm.tokenizer.pieces import byte_level

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_byte_level() -> Tokenizer:
    """As SmolLM2's tokenizer.json defines its own: digits one by one, then GPT-2's byte-level BPE."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    library.train_from_iterator(TRAINING, trainer)
    library.add_tokens([AddedToken("<tool>", normalized=False)])
    return library


def train_llama_like() -> Tokenizer:
    """As Llama 2's: spaces as marks with one in front, byte fallback, a BOS by the post-processor."""
    library = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        limit_alphabet=100,
        special_tokens=[*names, *(f"<0x{byte:02X}>" for byte in range(256))],
    )
    library.train_from_iterator(TRAINING, trainer)
    state = json.loads(library.to_str())
    # the trainer registers byte tokens as added ones, which no real file does
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in names]
    library = Tokenizer.from_str(json.dumps(state))
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return library


def train_gemma_like() -> Tokenizer:
    """As Gemma 4's: merges over whole texts with marks for spaces, none in front, runs of newlines as tokens."""
    state = json.loads(train_llama_like().to_str())
    model = state["model"]
    model["merges"] = [pair for pair in model["merges"] if "\n" not in "".join(pair)]
    for length in (1, 2, 3, 4):
        model["vocab"].setdefault("\n" * length, len(model["vocab"]))
    model["merges"] += [["\n", "\n"], ["\n\n", "\n\n"], ["\n\n", "\n"]]
    state["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    state["decoder"]["decoders"] = state["decoder"]["decoders"][:-1]
    return Tokenizer.from_str(json.dumps(state))


def gguf_of_gemma_like(library: Tokenizer, **changes: Any) -> dict[str, Any]:
    """GGUF metadata of it, as a converter writes it."""
    metadata = gguf_of_byte_level(library, model="gemma4", pre=None, unknown_token_id=0, **changes)
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = [6 if re.fullmatch("<0x[0-9A-F]{2}>", token) else 1 for token in tokens]
    metadata["tokenizer.ggml.token_type"] = [2, 3, 3, *kinds[3:]]
    return metadata


def train_unigram() -> Tokenizer:
    """As T5's and its descendants': Unigram behind Metaspace."""
    library = Tokenizer(models.Unigram())
    library.normalizer = normalizers.NFKC()
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>"
    )
    library.train_from_iterator(TRAINING, trainer)
    return library


def train_sentencepiece(prefix: Path, **options: Any) -> bytes:
    """A SentencePiece BPE model as Llama's and Gemma's are trained: byte fallback, no normalization."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING),
        model_prefix=str(prefix),
        model_type="bpe",
        vocab_size=options.pop("vocab_size", 700),
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.98,
        minloglevel=2,
        **options,
    )
    return Path(f"{prefix}.model").read_bytes()


def tiktoken_ranks(library: Tokenizer) -> bytes:
    """A rank file of a byte-level BPE: its tokens' bytes in merge order, the 256 single bytes first."""
    state = json.loads(library.to_str())["model"]
    tokens = [bytes([byte]) for byte in range(256)] + [
        byte_level(a) + byte_level(b) for a, b in state["merges"]
    ]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(dict.fromkeys(tokens))]
    return b"".join(lines)


def gguf_of_byte_level(library: Tokenizer, **changes: Any) -> dict[str, Any]:
    """GGUF metadata of a byte-level BPE, as a converter writes it."""
    added = library.get_added_tokens_decoder()
    size = library.get_vocab_size()
    kinds = [1 if token not in added else 3 if added[token].special else 4 for token in range(size)]
    state = json.loads(library.to_str())
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [library.id_to_token(token) for token in range(size)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in state["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    metadata.update({f"tokenizer.ggml.{key}": value for key, value in changes.items()})
    return {key: value for key, value in metadata.items() if value is not None}


def gguf_of_sentencepiece(model: bytes, *, add_prefix: bool, **changes: Any) -> dict[str, Any]:
    """GGUF metadata of a SentencePiece model, as a converter writes it."""
    spm = sentencepiece.SentencePieceProcessor()
    spm.LoadFromSerializedProto(model)
    user_defined = {"\n", "\n\n", "▁▁", "▁▁▁▁"}
    tokens = [spm.id_to_piece(token) for token in range(spm.get_piece_size())]

    def kind(token: int) -> int:
        if spm.is_byte(token):
            return 6
        if spm.is_unknown(token):
            return 2
        if spm.is_control(token):
            return 3
        return 4 if not add_prefix and tokens[token] in user_defined else 1

    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [spm.get_score(token) for token in range(len(tokens))],
        "tokenizer.ggml.token_type": [kind(token) for token in range(len(tokens))],
        "tokenizer.ggml.bos_token_id": spm.bos_id(),
        "tokenizer.ggml.eos_token_id": spm.eos_id(),
        "tokenizer.ggml.unknown_token_id": spm.unk_id(),
        "tokenizer.ggml.add_space_prefix": add_prefix,
    }
    metadata.update({f"tokenizer.ggml.{key}": value for key, value in changes.items()})
    return {key: value for key, value in metadata.items() if value is not None}
